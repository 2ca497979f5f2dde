"""Stage analyse: which neurons of a chain are alive, which of them hang together, and by what ways.

Pieces of the graph and active neurons, communities and Newman's modularity, and paths: a
credit-assigned path is a chain of links from an input to an output, one neuron a layer: what an
input can reach, and along what errors come back (Zhang et al. 2024). With as many links, hubs that
feed hubs open many times more paths than random links do.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, Real

from topospike.analysis.graphs.graph import LayeredGraph, as_graph, to_igraph
from topospike.analysis.graphs.null import NullComparison, compare_with_null, random_null
from topospike.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from topospike.analysis.graphs.graph import GraphLike


@dataclass(frozen=True, slots=True)
class Connectivity:
    """Size and coherence of a layered graph.

    ``components`` counts pieces among the active nodes; ``largest_share`` is the largest piece's
    share of them (0 without links).
    """

    sizes: tuple[int, ...]
    active: tuple[int, ...]
    nodes: int
    active_nodes: int
    links: int
    density: float
    components: int
    largest_nodes: int
    largest_share: float


def connectivity(graph: LayeredGraph) -> Connectivity:
    """Count nodes, links and connected components; density is over the blocks that have links.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> row = connectivity(layered_graph([np.eye(3, dtype=bool)]))
    >>> row.components, row.largest_share, round(row.density, 3)
    (3, 0.3333333333333333, 0.333)
    """
    active = np.bincount(graph.layers[graph.active], minlength=len(graph.sizes))
    n_active = int(active.sum())
    largest = len(graph.largest_component()) if n_active else 0
    return Connectivity(
        sizes=graph.sizes,
        active=tuple(active.tolist()),
        nodes=graph.n_nodes,
        active_nodes=n_active,
        links=graph.n_links,
        density=block_density(graph),
        components=len(np.unique(graph.component_labels[graph.active])),
        largest_nodes=largest,
        largest_share=largest / n_active if n_active else 0.0,
    )


def block_density(graph: LayeredGraph) -> float:
    """Links / possible links, counting only pairs of layers that have any link."""
    possible = sum(
        graph.sizes[a] * graph.sizes[b] if a != b else graph.sizes[a] * (graph.sizes[a] - 1) // 2
        for a, b in graph.blocks
    )
    return graph.n_links / possible if possible else 0.0


def active_neurons(masks: Sequence[Bool[np.ndarray, "_ _"]]) -> tuple[float, float | None]:
    """Share of active neurons (ANP) of a chain of masks, in two forms.

    Parameters
    ----------
    masks
        Two-dimensional masks, input side first, each n_in equal to the n_out before it.

    Returns
    -------
    anp : float
        As the reference counts: columns with a link in every mask plus rows with a link in the
        last, over all of them. A hidden neuron with outputs but no inputs counts as active.
    anp_hidden : float or None
        Share of hidden neurons with links on both sides; None for a single mask.

    Examples
    --------
    >>> import numpy as np
    >>> first, second = np.zeros((2, 2), dtype=bool), np.ones((1, 2), dtype=bool)
    >>> first[0, 0] = True
    >>> active_neurons([first, second])
    (0.8, 0.5)
    """
    blocks = [(k, k + 1, mask) for k, mask in enumerate(masks)]
    return active_share((masks[0].shape[1], *(mask.shape[0] for mask in masks)), blocks)


def active_share(
    sizes: Sequence[int], blocks: Sequence[tuple[int, int, Bool[np.ndarray, "_ _"]]]
) -> tuple[float, float | None]:
    """Share of active neurons of node sets in any wiring, in the two forms of `active_neurons`.

    A node set that some mask reads counts the neurons with an outgoing link, any other set those
    with an incoming one; hidden sets are those that are both read and written.
    """
    sends = [np.zeros(n, dtype=bool) for n in sizes]
    receives = [np.zeros(n, dtype=bool) for n in sizes]
    for source, target, mask in blocks:
        sends[source] |= mask.any(axis=0)
        receives[target] |= mask.any(axis=1)
    read, written = {source for source, _, _ in blocks}, {target for _, target, _ in blocks}
    counted = [sends[k] if k in read else receives[k] for k in range(len(sizes))]
    anp = sum(int(c.sum()) for c in counted) / sum(sizes)
    hidden = [np.logical_and(sends[k], receives[k]) for k in sorted(read & written)]
    total = sum(h.size for h in hidden)
    return anp, sum(int(h.sum()) for h in hidden) / total if total else None


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


HUBS = 0.08
"""Share of the neurons of a layer that count as hubs: 80 of 1000, as published."""


@dataclass(frozen=True, slots=True)
class CreditPaths:
    """Paths from the first to the last layer, beside random graphs of the same layers and links.

    Attributes
    ----------
    total
        Number of paths.
    through_hubs
        Share of them that pass a hub in every layer between; None without a path or such a layer.
    """

    total: NullComparison
    through_hubs: NullComparison | None


def credit_paths(
    graph: LayeredGraph, *, hubs: float = HUBS, nulls: int = 20, seed: int = 0
) -> CreditPaths:
    """Count the paths from the first layer to the last, and the share that runs through hubs.

    Parameters
    ----------
    graph
        A layered graph whose links go from lower to higher layers.
    hubs
        Share of the neurons of a layer that are its hubs, those of highest degree; at least one.
    nulls, seed
        Random graphs with the same layers and links per block, and their seed.

    Raises
    ------
    ConfigError
        ``hubs`` is not in (0, 1].

    Notes
    -----
    Zhang et al. (2024), Epitopological learning and Cannistraci-Hebb network shape intelligence
    brain-inspired theory for ultra-sparse advantage in deep learning (ICLR 2024). For random links
    the share expected is ``hubs`` to the power of the layers between: 0.0064 for 80 of 1000 in two.

    Examples
    --------
    >>> from topospike.analysis import layered_graph
    >>> first, second = np.eye(3, dtype=bool), np.array([[True, True, False]] * 2)
    >>> paths = credit_paths(layered_graph([first, second]), nulls=0)
    >>> paths.total.value, paths.through_hubs.value  # two inputs reach two outputs each
    (4.0, 0.5)
    """
    if not 0.0 < hubs <= 1.0:
        raise ConfigError(f"hubs is {hubs}; a share above 0 and at most 1 is required.")
    rng = np.random.default_rng(seed)
    drawn = [measured(random_null(graph, rng), hubs) for _ in range(nulls)]
    total, share = measured(graph, hubs)
    shares = [other for _, other in drawn if other is not None]
    return CreditPaths(
        total=compare_with_null(total, [count for count, _ in drawn]),
        through_hubs=None if share is None else compare_with_null(share, shares),
    )


def measured(graph: LayeredGraph, hubs: float) -> tuple[float, float | None]:
    """Return the number of paths, and the share of those through hubs."""
    everywhere = np.ones(graph.n_nodes, dtype=bool)
    total = count_paths(graph, everywhere)
    if total == 0 or len(graph.sizes) < 3:
        return total, None
    return total, count_paths(graph, hub_nodes(graph, hubs)) / total


def hub_nodes(graph: LayeredGraph, share: float) -> Bool[np.ndarray, " node"]:
    """Mark all nodes of the outer layers and the hubs of those between; of ties, the first."""
    chosen = np.zeros(graph.n_nodes, dtype=bool)
    for layer, size in enumerate(graph.sizes):
        nodes = np.flatnonzero(graph.layers == layer)
        if layer in (0, len(graph.sizes) - 1):
            chosen[nodes] = True
            continue
        order = np.argsort(-graph.degrees[nodes], kind="stable")
        chosen[nodes[order[: max(1, round(share * size))]]] = True
    return chosen


def count_paths(graph: LayeredGraph, allowed: Bool[np.ndarray, " node"]) -> float:
    """Count the paths from layer 0 to the last layer that pass allowed nodes only."""
    reached: Float[np.ndarray, " node"] = np.where(graph.layers == 0, 1.0, 0.0) * allowed
    for low, high in sorted(graph.blocks, key=lambda block: (block[1], block[0])):
        ends: Int[np.ndarray, "link 2"] = graph.edges[graph.blocks[low, high]]
        backwards = graph.layers[ends[:, 0]] > graph.layers[ends[:, 1]]
        sources = np.where(backwards, ends[:, 1], ends[:, 0])
        targets = np.where(backwards, ends[:, 0], ends[:, 1])
        arriving = np.bincount(targets, weights=reached[sources], minlength=graph.n_nodes)
        reached = reached + arriving * allowed
    return float(reached[graph.layers == len(graph.sizes) - 1].sum())
