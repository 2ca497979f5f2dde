"""Stage analyse: the classical measures of an undirected graph, for comparison with other work.

Definitions are those of the topological-measures program that comes with Cannistraci-Hebb
training. On a chain of layers clustering, local efficiency and LCP-correlation are zero by
construction: use `topospike.analysis.smallworld` there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.embedding.hyperbolic import common_neighbours
from topospike.analysis.graphs.graph import LayeredGraph, adjacency, as_graph, to_igraph
from topospike.analysis.graphs.null import NullComparison, compare_with_null, degree_preserving_null
from topospike.errors import ConfigError

if TYPE_CHECKING:
    import igraph

    from topospike.analysis.graphs.graph import GraphLike


@dataclass(frozen=True, slots=True)
class TopologicalMeasures:
    """Classical measures of one graph.

    Attributes
    ----------
    density
        Links / node pairs.
    clustering
        Mean over nodes of the share of linked neighbour pairs; nodes of degree < 2 count 0.
    path_length
        Mean hops over connected ordered pairs.
    efficiency
        Mean of 1 / hops over ordered pairs, unconnected pairs 0.
    local_efficiency
        Mean over nodes of the efficiency inside the subgraph of their neighbours.
    closeness
        Mean over nodes of the sum of 1 / hops to the others.
    radiality
        Mean over nodes of sum_j (diameter + 1 - hops) / (N - 1). The reference counts an
        unconnected pair as 0 hops; give a connected graph.
    edge_betweenness, node_betweenness
        Means over links (each pair of nodes counted once) and over nodes (ordered pairs, that is
        twice the usual value).
    assortativity
        Correlation of the degrees at both ends of a link; None for equal degrees.
    lcp_correlation
        Correlation of common neighbours and links among them over links that have any; 0 if none
        has or one of the two is constant.
    """

    nodes: int
    links: int
    density: float
    average_degree: float
    clustering: float
    path_length: float
    efficiency: float
    local_efficiency: float
    closeness: float
    radiality: float
    edge_betweenness: float
    node_betweenness: float
    assortativity: float | None
    lcp_correlation: float


def topological_measures(graph: GraphLike) -> TopologicalMeasures:
    """Measure a graph as the topological-measures program does; link weights are not used.

    Parameters
    ----------
    graph
        A graph with at least two nodes and one link, best its largest component.

    Raises
    ------
    ConfigError
        If the graph has no link.

    Notes
    -----
    Cost O(N E) time and N^2 memory: meant for graphs of some thousand nodes.

    Examples
    --------
    >>> import igraph
    >>> measures = topological_measures(igraph.Graph.Full(4))
    >>> measures.clustering, measures.path_length, measures.node_betweenness
    (1.0, 1.0, 0.0)
    """
    network = as_graph(graph)
    n = network.n_nodes
    if network.n_links == 0:
        raise ConfigError(f"a graph of {n} nodes without links has no paths to measure.")
    plain = to_igraph(network)
    hops = np.array(plain.distances(), dtype=np.float64)
    reached = np.isfinite(hops) & (hops > 0)
    inverse = np.divide(1.0, hops, out=np.zeros_like(hops), where=reached)
    finite = np.where(np.isfinite(hops), hops, 0.0)
    off = ~np.eye(n, dtype=bool)
    assortativity = plain.assortativity_degree(directed=False)
    return TopologicalMeasures(
        nodes=n,
        links=network.n_links,
        density=network.n_links / (n * (n - 1) / 2),
        average_degree=float(network.degrees.mean()),
        clustering=float(np.mean(plain.transitivity_local_undirected(mode="zero"))),
        path_length=float(hops[reached].mean()),
        efficiency=float(inverse.sum() / (n * (n - 1))),
        local_efficiency=float(np.mean([neighbour_efficiency(plain, v) for v in range(n)])),
        closeness=float(inverse.sum(axis=1).mean()),
        radiality=float((finite.max() + 1 - finite[off]).sum() / (n - 1) / n),
        edge_betweenness=float(np.mean(plain.edge_betweenness(directed=False))),
        node_betweenness=float(2 * np.mean(plain.betweenness(directed=False))),
        assortativity=None if math.isnan(assortativity) else float(assortativity),
        lcp_correlation=lcp_correlation(network),
    )


def neighbour_efficiency(network: igraph.Graph, node: int) -> float:
    """Efficiency inside the subgraph of a node's neighbours; 0 with fewer than two, or no link."""
    around = network.neighbors(node)
    if len(around) < 2:
        return 0.0
    inside = network.induced_subgraph(around)
    if inside.ecount() == 0:
        return 0.0
    hops = np.array(inside.distances())
    reached = np.isfinite(hops) & (hops > 0)
    return float((1 / hops[reached]).sum() / (len(around) * (len(around) - 1)))


def local_community_links(
    graph: LayeredGraph,
) -> tuple[Int[np.ndarray, " link"], Int[np.ndarray, " link"]]:
    """Return, for each link, its common neighbours (CN) and the links among them (LCL)."""
    shared = common_neighbours(graph)
    inner = np.zeros(graph.n_links, dtype=np.int64)
    matrix = adjacency(graph)
    around = [
        set(matrix.indices[a:b]) for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)
    ]
    for link in np.flatnonzero(shared > 1):
        i, j = graph.edges[link]
        both = around[i] & around[j]
        inner[link] = sum(len(around[node] & both) for node in both) // 2
    return shared, inner


def lcp_correlation(graph: LayeredGraph) -> float:
    """Pearson correlation of CN and LCL over the links with common neighbours; 0 if undefined.

    References
    ----------
    .. [1] C. V. Cannistraci, G. Alanis-Lobato, T. Ravasi, "From link-prediction in brain
       connectomes and protein interactomes to the local-community-paradigm in complex networks",
       Scientific Reports 3 (2013), 1613.
    """
    shared, inner = local_community_links(graph)
    cn, lcl = shared[shared > 0], inner[shared > 0]
    if len(cn) < 2 or np.ptp(cn) == 0 or np.ptp(lcl) == 0:
        return 0.0
    return float(np.corrcoef(cn, lcl)[0, 1])


DEGENERATE = 1e-11
REMOVED_SHARE = 0.1


def structural_consistency(
    graph: GraphLike,
    *,
    removed: Int[np.ndarray, "gone 2"] | None = None,
    fraction: float = REMOVED_SHARE,
    seed: int = 0,
) -> float:
    """Measure how predictable the links of a graph are from its other links.

    Parameters
    ----------
    graph
        Any graph with links.
    removed : int, shape (gone, 2), or None
        The links to take away; None draws ``round(fraction E)`` of them.
    fraction, seed
        Used when ``removed`` is None.

    Returns
    -------
    float
        Share of the removed links among as many best-scored absent pairs, in [0, 1].

    Raises
    ------
    ConfigError
        If nothing is removed, or a removed pair is no link.

    Notes
    -----
    The adjacency A_R = V diag(lambda) V' of the remaining graph is corrected to first order,
    V diag(lambda + v' Delta v) V' with Delta the removed links, and the pairs absent from A_R are
    ranked by it. Eigenvalues closer than 1e-11 are taken as equal, and their eigenvectors turned to
    make Delta diagonal. Ties at the cut go to the lower (i, j). Cost O(N^3).

    References
    ----------
    .. [1] L. Lu, L. Pan, T. Zhou, Y.-C. Zhang, H. E. Stanley, "Toward link predictability of
       complex networks", PNAS 112 (2015), 2325.

    Examples
    --------
    >>> import igraph
    >>> structural_consistency(igraph.Graph.Full_Bipartite(6, 6), seed=1)
    1.0
    """
    network = as_graph(graph)
    if removed is None:
        count = round(fraction * network.n_links)
        rng = np.random.default_rng(seed)
        removed = network.edges[rng.choice(network.n_links, size=count, replace=False)]
    if len(removed) == 0:
        raise ConfigError(
            f"no link is removed from a graph of {network.n_links} links; at least one is required."
        )
    whole = adjacency(network).toarray()
    gone = np.zeros_like(whole)
    i, j = np.asarray(removed).T
    if not whole[i, j].all():
        raise ConfigError("a removed pair is not a link of the graph.")
    gone[i, j] = gone[j, i] = 1
    values, vectors = np.linalg.eigh(whole - gone)
    vectors = rotated_where_degenerate(values, vectors, gone)
    shift = ((gone @ vectors) * vectors).sum(axis=0)
    score = (vectors * (values + shift)) @ vectors.T
    pairs = np.triu(whole - gone == 0, k=1)
    best = np.argsort(-score[pairs], kind="stable")[: len(removed)]
    return float(gone[pairs][best].mean())


def compared_consistency(graph: LayeredGraph, *, draws: int, seed: int) -> NullComparison:
    """Structural consistency of a layered graph beside graphs with the same layers and degrees.

    The value is the mean over ``draws`` draws of removed links; each null is one rewired graph with
    one draw. Isolated nodes are left out. 0 where a tenth of the links is less than one link.

    Raises
    ------
    ConfigError
        If the graph has links inside a layer, or ``draws`` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> complete = layered_graph([np.ones((6, 6), dtype=bool)])
    >>> compared_consistency(complete, draws=2, seed=0).value
    1.0
    """
    if draws < 1:
        raise ConfigError(f"draws={draws} was given; at least one is required.")
    active = graph.subgraph(graph.active)
    if round(REMOVED_SHARE * active.n_links) < 1:
        return compare_with_null(0.0, [0.0] * draws)
    rng = np.random.default_rng(seed)
    seeds = rng.integers(2**32, size=(2, draws))
    own = [structural_consistency(active, seed=int(s)) for s in seeds[0]]
    nulls = [
        structural_consistency(degree_preserving_null(active, rng), seed=int(s)) for s in seeds[1]
    ]
    return compare_with_null(float(np.mean(own)), nulls)


def rotated_where_degenerate(
    values: Float[np.ndarray, " node"], vectors: np.ndarray, change: np.ndarray
) -> np.ndarray:
    """Turn the eigenvectors of each repeated eigenvalue so that ``change`` is diagonal there."""
    vectors = vectors.copy()
    starts = np.flatnonzero(np.diff(values, prepend=-np.inf) >= DEGENERATE)
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        if stop - start > 1:
            space = vectors[:, start:stop]
            vectors[:, start:stop] = space @ np.linalg.eigh(space.T @ change @ space)[1]
    return vectors
