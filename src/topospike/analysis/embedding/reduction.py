"""Stage analyse: dimension reduction, the second step of coalescent embedding.

From the weighted graph to one or two coordinates per node. The kernels are symmetric but
indefinite, and the reference orders by SINGULAR value, that is by |eigenvalue|; taking the
algebraically largest eigenvalues (as common manifold-learning libraries do) gives another picture.
Above some thousand nodes the kernel is spanned by a sample of landmark nodes.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.graphs.graph import LayeredGraph, adjacency
from topospike.errors import ConfigError
from topospike.registry import Registry

DENSE_NODES = 300
"""Up to here eigenvectors come from a full dense solver, above from Lanczos iterations."""
EXACT_NODES = 4000
"""Up to here distances between all nodes are kept (N^2 float64), above to landmarks only."""
LANDMARKS = 1000

Weights = Float[np.ndarray, " link"]
Landmarks = Int[np.ndarray, " landmark"]


def distances(graph: LayeredGraph, weights: Weights, sources: Landmarks | None) -> np.ndarray:
    """Weighted shortest-path lengths from the sources (None: from all), float64 (source, node)."""
    from scipy.sparse.csgraph import dijkstra

    return dijkstra(adjacency(graph, weights), directed=True, indices=sources)


def spanning_tree(graph: LayeredGraph, weights: Weights) -> np.ndarray:
    """Positions in ``graph.edges`` of the minimum spanning tree; ties by (weight, i, j)."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    order = np.lexsort((graph.edges[:, 1], graph.edges[:, 0], weights))
    rank = np.empty(graph.n_links)
    rank[order] = np.arange(1, graph.n_links + 1)
    tree = minimum_spanning_tree(adjacency(graph, rank))
    return order[np.sort(np.rint(tree.data).astype(np.int64)) - 1]


def tree_distances(graph: LayeredGraph, weights: Weights, sources: Landmarks | None) -> np.ndarray:
    """Path lengths inside the minimum spanning tree, float64 (source, node)."""
    kept = spanning_tree(graph, weights)
    tree = LayeredGraph(graph.sizes, graph.edges[kept], graph.layers)
    return distances(tree, weights[kept], sources)


def centred(length: np.ndarray, landmarks: Landmarks | None) -> np.ndarray:
    """-1/2 J (D.^2) J with J = I - 11'/N, the Gram matrix of classical scaling.

    With landmarks, row and column means are taken over them.
    """
    kernel = -0.5 * length**2
    kernel -= kernel.mean(axis=0)
    inner = kernel if landmarks is None else kernel[:, landmarks]
    kernel -= inner.mean(axis=1, keepdims=True)
    return kernel


def leading_pairs(kernel: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of largest modulus, falling, and their vectors, of a symmetric kernel.

    The sign of each vector is fixed by making its largest component positive.
    """
    if len(kernel) > DENSE_NODES:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).standard_normal(len(kernel))
        values, vectors = eigsh(kernel, k=count, which="LM", v0=start)
    else:
        values, vectors = np.linalg.eigh(kernel)
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    return values[order], with_fixed_sign(vectors[:, order])


def with_fixed_sign(vectors: np.ndarray) -> np.ndarray:
    """Make the largest component of every column positive."""
    largest = vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])]
    return vectors * np.sign(largest)


def spectral_positions(kernel: np.ndarray, landmarks: Landmarks | None, count: int) -> np.ndarray:
    """Coordinates sqrt(s_k) v_k of all nodes from the kernel (its landmark rows, if sampled).

    Nodes that are no landmarks are placed by the Nystrom extension v_k' K / s_k.
    """
    inner = kernel if landmarks is None else kernel[:, landmarks]
    values, vectors = leading_pairs(inner, count)
    scale = np.sqrt(np.abs(values))
    if landmarks is None:
        return vectors * scale
    return (kernel.T @ vectors) * np.sign(values) / scale


def iso(graph: LayeredGraph, weights: Weights, landmarks: Landmarks | None) -> np.ndarray:
    """ISO: centred Gram matrix of the shortest paths, coordinates 1 and 2."""
    kernel = centred(distances(graph, weights, landmarks), landmarks)
    return spectral_positions(kernel, landmarks, 2)


def nc_iso(graph: LayeredGraph, weights: Weights, landmarks: Landmarks | None) -> np.ndarray:
    """ncISO: the shortest paths themselves, neither squared nor centred, coordinates 2 and 3."""
    return spectral_positions(distances(graph, weights, landmarks), landmarks, 3)[:, 1:]


def mce(graph: LayeredGraph, weights: Weights, landmarks: Landmarks | None) -> np.ndarray:
    """MCE: centred Gram matrix of the path lengths in the spanning tree, coordinate 1."""
    kernel = centred(tree_distances(graph, weights, landmarks), landmarks)
    return spectral_positions(kernel, landmarks, 1)


def nc_mce(graph: LayeredGraph, weights: Weights, landmarks: Landmarks | None) -> np.ndarray:
    """ncMCE: the path lengths in the spanning tree themselves, coordinate 2."""
    return spectral_positions(tree_distances(graph, weights, landmarks), landmarks, 2)[:, 1:]


def laplacian_eigenmaps(
    graph: LayeredGraph, weights: Weights, landmarks: Landmarks | None
) -> np.ndarray:
    """LE: heat kernel exp(-(w / mean w)^2), generalised eigenvectors 2 and 3 of (D - H, D).

    With landmarks the same eigenvectors come from the sparse matrix by Lanczos iterations.
    """
    import scipy.linalg
    import scipy.sparse
    from scipy.sparse.linalg import eigsh

    heat = adjacency(graph, np.exp(-((weights / weights.mean()) ** 2)))
    degree = np.asarray(heat.sum(axis=1)).ravel()
    if not (degree > 0).all():
        raise ConfigError(
            f"reduction 'LE' is not defined here: the heat kernel of {int((degree == 0).sum())} "
            "nodes underflows to zero because their link weights are far above the mean. Use "
            "reduction 'ISO', or weighting 'none'."
        )
    if landmarks is None:
        kernel = heat.toarray()
        laplacian = np.diag(degree) - kernel
        vectors = scipy.linalg.eigh(laplacian, np.diag(degree), subset_by_index=[1, 2])[1]
        return with_fixed_sign(vectors)
    root = scipy.sparse.diags_array(1 / np.sqrt(degree))
    start = np.random.default_rng(0).standard_normal(len(degree))
    values, vectors = eigsh(root @ heat @ root, k=3, which="LA", v0=start)
    return with_fixed_sign(root @ vectors[:, np.argsort(-values)[1:]])


Reduction = Callable[[LayeredGraph, np.ndarray, "Landmarks | None"], np.ndarray]

REDUCTIONS: Registry[Reduction] = Registry(
    "reduction",
    {"ISO": iso, "ncISO": nc_iso, "MCE": mce, "ncMCE": nc_mce, "LE": laplacian_eigenmaps},
)


def landmark_nodes(n_nodes: int, landmarks: int | None = None) -> Landmarks | None:
    """Choose the landmark nodes; None means all.

    Parameters
    ----------
    n_nodes
        Nodes of the graph.
    landmarks
        How many; None takes all nodes up to 4000, and 1000 above.

    Raises
    ------
    ConfigError
        If fewer than 4 landmarks are asked for.
    """
    if landmarks is None:
        landmarks = n_nodes if n_nodes <= EXACT_NODES else LANDMARKS
    if landmarks < min(4, n_nodes):
        raise ConfigError(f"landmarks={landmarks} was given; at least 4 are required.")
    if landmarks >= n_nodes:
        return None
    return np.sort(np.random.default_rng(0).choice(n_nodes, size=landmarks, replace=False))


def coordinates(
    graph: LayeredGraph,
    weights: Weights,
    reduction: str = "ISO",
    *,
    landmarks: Landmarks | None = None,
) -> Float[np.ndarray, "node axis"]:
    """Reduce a connected weighted graph to two coordinates per node, or one for MCE and ncMCE.

    Parameters
    ----------
    graph
        A connected LayeredGraph.
    weights : float64, shape (link,)
        Link lengths, from `link_weights`.
    reduction
        ``ISO``, ``ncISO``, ``LE``, ``MCE`` or ``ncMCE``.
    landmarks : int, shape (landmark,), or None
        Nodes whose distances span the kernel; None takes all nodes, as the reference does.

    Notes
    -----
    Cost with S landmarks: O(S (E + N log N)) time, S N float64 memory. The sign freedom of
    eigenvectors is removed by convention (largest component positive).
    """
    return REDUCTIONS[reduction](graph, weights, landmarks)
