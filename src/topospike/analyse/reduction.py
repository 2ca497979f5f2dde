"""Stage analyse: dimension reduction, the second step of coalescent embedding.

From the weighted graph to one or two coordinates per node. The kernels are symmetric but
indefinite, and the reference orders by SINGULAR value, that is by |eigenvalue|; taking the
algebraically largest eigenvalues (as common manifold-learning libraries do) gives another picture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from topospike.analyse.graph import LayeredGraph, adjacency
from topospike.errors import ConfigError
from topospike.registry import Registry

DENSE_NODES = 300
"""Up to here eigenvectors come from a full dense solver, above from Lanczos iterations."""


def distances(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """All weighted shortest-path lengths, float64 (node, node)."""
    from scipy.sparse.csgraph import dijkstra

    return dijkstra(adjacency(graph, weights), directed=True)


def spanning_tree(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """Positions in ``graph.edges`` of the minimum spanning tree; ties by (weight, i, j)."""
    from scipy.sparse.csgraph import minimum_spanning_tree

    order = np.lexsort((graph.edges[:, 1], graph.edges[:, 0], weights))
    rank = np.empty(graph.n_links)
    rank[order] = np.arange(1, graph.n_links + 1)
    tree = minimum_spanning_tree(adjacency(graph, rank))
    return order[np.sort(np.rint(tree.data).astype(np.int64)) - 1]


def tree_distances(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """Path lengths inside the minimum spanning tree, float64 (node, node)."""
    kept = spanning_tree(graph, weights)
    tree = LayeredGraph(graph.sizes, graph.edges[kept], graph.layers)
    return distances(tree, weights[kept])


def centred(squared: np.ndarray) -> np.ndarray:
    """-1/2 J (D.^2) J with J = I - 11'/N, the Gram matrix of classical scaling."""
    kernel = -0.5 * squared
    kernel -= kernel.mean(axis=0)
    kernel -= kernel.mean(axis=1, keepdims=True)
    return kernel


def leading_triplets(kernel: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Singular values (falling) and right singular vectors of a symmetric kernel.

    The sign of each vector is fixed by making its largest component positive.
    """
    if len(kernel) > DENSE_NODES:
        from scipy.sparse.linalg import eigsh

        start = np.random.default_rng(0).standard_normal(len(kernel))
        values, vectors = eigsh(kernel, k=count, which="LM", v0=start)
    else:
        values, vectors = np.linalg.eigh(kernel)
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    vectors = vectors[:, order]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(vectors.shape[1])])
    return np.abs(values[order]), vectors * signs


def iso(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """ISO: centred Gram matrix of the shortest paths, coordinates 1 and 2."""
    values, vectors = leading_triplets(centred(distances(graph, weights) ** 2), 2)
    return vectors * np.sqrt(values)


def nc_iso(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """ncISO: the shortest paths themselves, neither squared nor centred, coordinates 2 and 3."""
    values, vectors = leading_triplets(distances(graph, weights), 3)
    return (vectors * np.sqrt(values))[:, 1:]


def mce(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """MCE: centred Gram matrix of the path lengths in the spanning tree, coordinate 1."""
    values, vectors = leading_triplets(centred(tree_distances(graph, weights) ** 2), 1)
    return vectors * np.sqrt(values)


def nc_mce(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """ncMCE: the path lengths in the spanning tree themselves, coordinate 2."""
    values, vectors = leading_triplets(tree_distances(graph, weights), 2)
    return (vectors * np.sqrt(values))[:, 1:]


def laplacian_eigenmaps(graph: LayeredGraph, weights: Float[np.ndarray, " link"]) -> np.ndarray:
    """LE: heat kernel exp(-(w / mean w)^2), generalised eigenvectors 2 and 3 of (D - H, D)."""
    import scipy.linalg

    heat = np.exp(-((weights / weights.mean()) ** 2))
    kernel = adjacency(graph, heat).toarray()
    degree = kernel.sum(axis=1)
    if not (degree > 0).all():
        raise ConfigError(
            f"reduction 'LE' is not defined here: the heat kernel of {int((degree == 0).sum())} "
            "nodes underflows to zero because their link weights are far above the mean. Use "
            "reduction 'ISO', or weighting 'none'."
        )
    vectors = scipy.linalg.eigh(np.diag(degree) - kernel, np.diag(degree), subset_by_index=[1, 2])[
        1
    ]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])
    return vectors * signs


REDUCTIONS: Registry[Callable[[LayeredGraph, np.ndarray], np.ndarray]] = Registry(
    "reduction",
    {"ISO": iso, "ncISO": nc_iso, "MCE": mce, "ncMCE": nc_mce, "LE": laplacian_eigenmaps},
)


def coordinates(
    graph: LayeredGraph, weights: Float[np.ndarray, " link"], reduction: str = "ISO"
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

    Notes
    -----
    Cost: O(N (E + N log N)) time and N^2 float64 memory. Sign freedom of eigenvectors is removed
    by convention (largest component positive).
    """
    return REDUCTIONS[reduction](graph, weights)
