"""Stage analyse: communities of a graph and Newman's modularity."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int, Real

from topospike.analysis.graph import as_graph, to_igraph
from topospike.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from topospike.analysis.graph import GraphLike


@contextmanager
def seeded_igraph(seed: int) -> Iterator[None]:
    """Give igraph a generator of our own for a while; igraph knows only one for the process."""
    import igraph

    igraph.set_random_number_generator(random.Random(seed))
    try:
        yield
    finally:
        igraph.set_random_number_generator(random)


def modularity(graph: GraphLike, membership: Real[np.ndarray, " node"]) -> float:
    """Newman's modularity Q = sum_c (L_c / E - (K_c / 2E)^2) of a partition of the nodes.

    Parameters
    ----------
    graph
        Any graph; link weights are not used.
    membership : int, shape (node,)
        Community of each node.

    References
    ----------
    .. [1] M. E. J. Newman, "Modularity and community structure in networks", PNAS 103 (2006).

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> modularity(layered_graph([np.eye(2, dtype=bool)]), np.array([0, 1, 0, 1]))
    0.5
    """
    network = as_graph(graph)
    if len(membership) != network.n_nodes:
        raise ShapeError(
            f"{len(membership)} labels were given for a graph of {network.n_nodes} nodes."
        )
    if network.n_links == 0:
        raise ConfigError("modularity is undefined for a graph without links.")
    group = np.unique(np.asarray(membership), return_inverse=True)[1].ravel()
    ends = group[network.edges]
    inside = np.bincount(ends[ends[:, 0] == ends[:, 1], 0], minlength=group.max() + 1)
    stubs = np.bincount(group, weights=network.degrees)
    links = network.n_links
    return float((inside / links - (stubs / (2 * links)) ** 2).sum())


def communities(graph: GraphLike, *, seed: int = 0, runs: int = 5) -> Int[np.ndarray, " node"]:
    """Find communities by the Leiden method, the best of several runs.

    Parameters
    ----------
    graph
        Any graph; link weights are not used.
    seed
        Seed of the runs.
    runs
        Independent runs, of which the partition with the largest modularity is kept.

    Returns
    -------
    int64, shape (node,)
        Community of each node.

    References
    ----------
    .. [1] V. A. Traag, L. Waltman, N. J. van Eck, "From Louvain to Leiden: guaranteeing
       well-connected communities", Scientific Reports 9 (2019).
    """
    network = as_graph(graph)
    if network.n_links == 0:
        raise ConfigError("communities are undefined for a graph without links.")
    plain = to_igraph(network)
    with seeded_igraph(seed):
        found = [
            plain.community_leiden(objective_function="modularity", n_iterations=-1)
            for _ in range(runs)
        ]
    best = max(found, key=lambda clustering: float(clustering.modularity or 0.0))
    return np.array(best.membership, dtype=np.int64)
