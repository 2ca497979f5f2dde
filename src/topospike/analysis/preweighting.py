"""Stage analyse: pre-weighting, the first step of coalescent embedding.

Each rule gives every existing link a dissimilarity (absent links have none). On a chain of layers
linked nodes share no neighbour, so RA1 = (1 + d_i)(1 + d_j) - 1 and RA2 = d_i d_j there: the rules
see degrees only, and ties are massive.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.graph import LayeredGraph, adjacency, to_igraph
from topospike.errors import ConfigError
from topospike.registry import Registry

ROWS = 512
"""Rows of the adjacency squared at a time, which bounds the memory to 512 N numbers."""


def common_neighbours(graph: LayeredGraph) -> Int[np.ndarray, " link"]:
    """Count the neighbours shared by the two ends of each link."""
    matrix = adjacency(graph)
    i, j = graph.edges.T
    counts = np.zeros(graph.n_links, dtype=np.int64)
    for first in range(0, graph.n_nodes, ROWS):
        links = slice(*np.searchsorted(i, [first, first + ROWS]))
        shared = (matrix[first : first + ROWS] @ matrix).toarray()
        counts[links] = np.rint(shared[i[links] - first, j[links]])
    return counts


def ra1(graph: LayeredGraph) -> Float[np.ndarray, " link"]:
    """(d_i + d_j + d_i d_j) / (1 + CN_ij)."""
    di, dj = graph.degrees[graph.edges].T
    return (di + dj + di * dj) / (1.0 + common_neighbours(graph))


def ra2(graph: LayeredGraph) -> Float[np.ndarray, " link"]:
    """(1 + e_i + e_j + e_i e_j) / (1 + CN_ij), e_i the links of i outside, j left out."""
    shared = common_neighbours(graph)
    ei, ej = graph.degrees[graph.edges].T - shared - 1
    return (1 + ei + ej + ei * ej) / (1.0 + shared)


def ebc(graph: LayeredGraph) -> Float[np.ndarray, " link"]:
    """Edge betweenness of the unweighted graph, each pair of nodes counted once."""
    return np.array(to_igraph(graph).edge_betweenness(directed=False), dtype=np.float64)


def original(graph: LayeredGraph) -> Float[np.ndarray, " link"]:
    """Return the weights the graph was given, read as distances."""
    if graph.weights is None:
        raise ConfigError(
            "weighting 'original' was asked for a graph without link weights; pass a weighted "
            "igraph graph or sparse adjacency, or use weighting 'none'."
        )
    return graph.weights


def none(graph: LayeredGraph) -> Float[np.ndarray, " link"]:
    """Every link has length 1."""
    return np.ones(graph.n_links)


WEIGHTINGS: Registry[Callable[[LayeredGraph], Float[np.ndarray, " link"]]] = Registry(
    "weighting", {"RA1": ra1, "RA2": ra2, "EBC": ebc, "original": original, "none": none}
)


def link_weights(graph: LayeredGraph, weighting: str = "RA2") -> Float[np.ndarray, " link"]:
    """Return the dissimilarity of every link of ``graph``, in the order of ``graph.edges``.

    Parameters
    ----------
    graph
        Any LayeredGraph.
    weighting
        ``RA1``, ``RA2``, ``EBC``, ``original`` (the given weights) or ``none`` (all 1).

    Raises
    ------
    ConfigError
        If the rule is unknown, or ``original`` is asked of a graph without weights.

    References
    ----------
    .. [1] A. Muscoloni, J. M. Thomas, S. Ciucci, G. Bianconi, C. V. Cannistraci, "Machine learning
       meets complex networks via coalescent embedding in the hyperbolic space", Nature
       Communications 8 (2017), 1615.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> chain = layered_graph([np.ones((2, 3), dtype=bool)])
    >>> link_weights(chain, "RA2").tolist()
    [6.0, 6.0, 6.0, 6.0, 6.0, 6.0]
    """
    return WEIGHTINGS[weighting](graph)
