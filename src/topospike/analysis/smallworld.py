"""Stage analyse: small-worldness of layered (bipartite) graphs.

A chain of layers has no triangle, so the usual clustering is 0 and the usual sigma and omega are 0
or 0/0. The squares take the triangles' place: Robins-Alexander clustering (closed paths of length
3, what CH3-L3 counts) and Latapy's overlap of second neighbours, with nulls that keep the layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.graphs.graph import LayeredGraph, adjacency, to_igraph
from topospike.analysis.graphs.null import NullComparison, compare_with_null, degree_preserving_null
from topospike.errors import ConfigError

CHUNK = 512
SAMPLED_SOURCES = 256
EXACT_PATH_WORK = 200_000_000
"""Up to this many nodes x links all shortest paths are walked, above from sampled nodes."""


@dataclass(frozen=True, slots=True)
class BipartiteClustering:
    """Squares, paths of length 3 and the two bipartite clustering coefficients of one graph."""

    squares: float
    paths3: float
    robins_alexander: float
    latapy: float


@dataclass(frozen=True, slots=True)
class SmallWorld:
    """Small-worldness of a layered graph beside layer-and-degree-preserving nulls.

    Attributes
    ----------
    clustering
        Robins-Alexander coefficient of the whole graph with its null.
    latapy
        Mean Latapy (dot) coefficient of the whole graph.
    path_length
        Mean hops between nodes of the largest component, with its null.
    block_clustering
        Robins-Alexander coefficient of each block of consecutive layers with its null; a dense
        block raises the coefficient of the whole graph by itself.
    block_latapy
        The same for Latapy's coefficient, without null.
    sigma
        (C / <C null>) / (L / <L null>); above 1: small world. None where a mean is 0.
    omega
        <L null> / L - C / C_lattice, in about -1 (lattice) to 1 (random); None where undefined.
    log_nodes, loglog_nodes
        ln N and ln ln N of the largest component: for 2 < gamma <= 3 an ultra-small world has a
        path length of the order of ln ln N.
    sampled_sources
        Nodes the path length was measured from; None when it was all of them.
    """

    clustering: NullComparison
    latapy: float
    path_length: NullComparison
    block_clustering: tuple[NullComparison, ...]
    block_latapy: tuple[float, ...]
    sigma: float | None
    omega: float | None
    log_nodes: float
    loglog_nodes: float | None
    sampled_sources: int | None


def is_bipartite(graph: LayeredGraph) -> bool:
    """Tell whether the graph has no odd cycle, as every chain of layers."""
    return to_igraph(graph).is_bipartite()


def require_bipartite(graph: LayeredGraph) -> None:
    """Refuse graphs with odd cycles, for which these coefficients do not exist."""
    if not is_bipartite(graph):
        raise ConfigError(
            "bipartite clustering was asked of a graph with an odd cycle (links inside a layer or "
            "across two); it is defined for bipartite graphs such as a chain of layers."
        )


def shared_neighbours(
    graph: LayeredGraph,
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield (i, j, c_ij), all ordered pairs i != j with c_ij > 0 shared neighbours, in chunks."""
    matrix = adjacency(graph)
    for start in range(0, graph.n_nodes, CHUNK):
        product = (matrix[start : start + CHUNK] @ matrix).tocoo()
        rows, columns = product.coords
        other = rows + start != columns
        yield rows[other] + start, columns[other], np.rint(product.data[other])


def squares_and_latapy(graph: LayeredGraph) -> tuple[float, Float[np.ndarray, " node"]]:
    """Count the squares, and measure each node's Latapy dot coefficient, in one pass.

    Notes
    -----
    Squares (cycles of four nodes) = 1/2 sum_{i<j} c_ij (c_ij - 1) / 2, as each has two diagonals.
    Latapy: cc(u, v) = |N(u) n N(v)| / |N(u) u N(v)|, averaged over the v with a shared neighbour;
    0 where there is none.

    References
    ----------
    .. [1] M. Latapy, C. Magnien, N. Del Vecchio, "Basic notions for the analysis of large two-mode
       networks", Social Networks 30 (2008).
    """
    squares = 0.0
    total, seconds = np.zeros(graph.n_nodes), np.zeros(graph.n_nodes)
    for i, j, c in shared_neighbours(graph):
        squares += float((c * (c - 1)).sum()) / 8
        overlap = c / (graph.degrees[i] + graph.degrees[j] - c)
        total += np.bincount(i, weights=overlap, minlength=graph.n_nodes)
        seconds += np.bincount(i, minlength=graph.n_nodes)
    return squares, total / np.maximum(seconds, 1)


def count_squares(graph: LayeredGraph) -> float:
    """Cycles of four nodes."""
    return float(sum((c * (c - 1)).sum() for _, _, c in shared_neighbours(graph)) / 8)


def count_paths3(graph: LayeredGraph) -> float:
    """Paths of three links in a triangle-free graph: sum over links of (d_i - 1)(d_j - 1)."""
    di, dj = graph.degrees[graph.edges].T.astype(np.float64)
    return float(((di - 1) * (dj - 1)).sum())


def robins_alexander(graph: LayeredGraph) -> float:
    """C = 4 squares / paths of three links; 0 where there is no such path."""
    paths = count_paths3(graph)
    return 4 * count_squares(graph) / paths if paths else 0.0


def bipartite_clustering(graph: LayeredGraph) -> BipartiteClustering:
    """Clustering of a bipartite graph (a chain of layers or one block), isolated nodes left out.

    Raises
    ------
    ConfigError
        If the graph is not bipartite.

    References
    ----------
    .. [1] G. Robins, M. Alexander, "Small worlds among interlocking directors", Computational and
       Mathematical Organization Theory 10 (2004).

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> bipartite_clustering(layered_graph([np.ones((2, 2), dtype=bool)])).robins_alexander
    1.0
    """
    require_bipartite(graph)
    squares, per_node = squares_and_latapy(graph)
    paths, latapy = count_paths3(graph), per_node[graph.active]
    return BipartiteClustering(
        squares=squares,
        paths3=paths,
        robins_alexander=4 * squares / paths if paths else 0.0,
        latapy=float(latapy.mean()) if latapy.size else 0.0,
    )


def path_length(graph: LayeredGraph, *, sources: Int[np.ndarray, " source"] | None = None) -> float:
    """Mean hops over the connected ordered pairs (from ``sources`` only, if given); 0 if none."""
    network = to_igraph(graph)
    if sources is None:
        mean = network.average_path_length(directed=False, unconn=True)
        return 0.0 if math.isnan(mean) else float(mean)
    hops = np.array(network.distances(source=sources.tolist()))
    reached = np.isfinite(hops) & (hops > 0)
    return float(hops[reached].mean()) if reached.any() else 0.0


def component_path_length(graph: LayeredGraph, rng: np.random.Generator) -> tuple[float, int, int]:
    """Path length of the largest component: (mean hops, its nodes, sources walked)."""
    component = graph.subgraph(graph.largest_component())
    n = component.n_nodes
    if n * component.n_links <= EXACT_PATH_WORK or n <= SAMPLED_SOURCES:
        return path_length(component), n, n
    sources = rng.choice(n, size=SAMPLED_SOURCES, replace=False)
    return path_length(component, sources=sources), n, SAMPLED_SOURCES


def block_graph(graph: LayeredGraph, pair: tuple[int, int]) -> LayeredGraph:
    """Return the same nodes with only the links between two layers."""
    return LayeredGraph(graph.sizes, graph.edges[graph.blocks[pair]], graph.layers)


def lattice(graph: LayeredGraph) -> LayeredGraph:
    """Bipartite ring lattice with the same sizes and links per block.

    Notes
    -----
    Output o of n_out sits at o n_in / n_out on the ring of inputs and is linked to the inputs
    nearest to it; a block's links are shared out among the outputs as evenly as possible.
    """
    edges = []
    for (low, high), links in graph.blocks.items():
        inputs, outputs = np.flatnonzero(graph.layers == low), np.flatnonzero(graph.layers == high)
        bounds = np.arange(len(outputs) + 1) * len(links) // len(outputs)
        for o, output in enumerate(outputs):
            count = int(bounds[o + 1] - bounds[o])
            first = math.ceil(o * len(inputs) / len(outputs) - count / 2)
            chosen = inputs[(first + np.arange(count)) % len(inputs)]
            edges.append(np.stack([chosen, np.full(count, output)], axis=1))
    joined = np.sort(np.concatenate(edges), axis=1)
    order = np.lexsort((joined[:, 1], joined[:, 0]))
    return LayeredGraph(graph.sizes, joined[order], graph.layers)


def small_world(graph: LayeredGraph, *, nulls: int = 20, seed: int = 0) -> SmallWorld:
    """Measure clustering and path length against nulls that keep layers and degrees.

    Parameters
    ----------
    graph
        A layered bipartite graph, for example from `layered_graph`.
    nulls
        Layer-and-degree-preserving random graphs; 0 leaves sigma and omega undefined.
    seed
        Seed of the nulls and of sampled path sources.

    Raises
    ------
    ConfigError
        If the graph has no link or is not bipartite, or ``nulls`` is negative.

    Notes
    -----
    sigma and omega carry over Humphries and Gurney (2008) and Telesford et al. (2011) to bipartite
    graphs; this form is ours. A complete block is its own null, so its sigma is 1. Path lengths of
    graphs with nodes x links above 2e8 are means over 256 sampled sources.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> world = small_world(layered_graph([np.ones((4, 4), dtype=bool)]), nulls=2)
    >>> world.clustering.value, world.sigma
    (1.0, 1.0)
    """
    if nulls < 0:
        raise ConfigError(f"nulls={nulls} was given; 0 or more random graphs are required.")
    if graph.n_links == 0:
        raise ConfigError("small-worldness is undefined for a graph without links.")
    own = bipartite_clustering(graph)
    rng = np.random.default_rng(seed)
    length, n, sources = component_path_length(graph, rng)
    blocks = {pair: block_graph(graph, pair) for pair in graph.blocks}
    null_clustering, null_length = [], []
    null_blocks: dict[tuple[int, int], list[float]] = {pair: [] for pair in blocks}
    for _ in range(nulls):
        null = degree_preserving_null(graph, rng)
        null_clustering.append(robins_alexander(null))
        null_length.append(component_path_length(null, rng)[0])
        for pair in blocks if len(blocks) > 1 else ():
            null_blocks[pair].append(robins_alexander(block_graph(null, pair)))
    if len(blocks) == 1:
        null_blocks = dict.fromkeys(blocks, null_clustering)
    clustering = compare_with_null(own.robins_alexander, null_clustering)
    path = compare_with_null(length, null_length)
    of_blocks = {pair: bipartite_clustering(block) for pair, block in blocks.items()}
    c_lattice = robins_alexander(lattice(graph))
    return SmallWorld(
        clustering=clustering,
        latapy=own.latapy,
        path_length=path,
        block_clustering=tuple(
            compare_with_null(of_blocks[p].robins_alexander, null_blocks[p]) for p in blocks
        ),
        block_latapy=tuple(of_blocks[p].latapy for p in blocks),
        sigma=sigma(clustering, path),
        omega=path.mean / length - clustering.value / c_lattice
        if path.mean and length and c_lattice
        else None,
        log_nodes=math.log(n),
        loglog_nodes=math.log(math.log(n)) if n > 2 else None,
        sampled_sources=None if sources == n else sources,
    )


def sigma(clustering: NullComparison, path: NullComparison) -> float | None:
    """(C / <C null>) / (L / <L null>); None where one of them is 0 or no null was drawn."""
    if not (clustering.mean and path.mean and path.value):
        return None
    return (clustering.value / clustering.mean) / (path.value / path.mean)
