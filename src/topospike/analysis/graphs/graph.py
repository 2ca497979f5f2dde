"""Stage analyse: sparse layers as one undirected graph.

A chain of masks M_1 .. M_L, torch order (n_out, n_in), becomes a graph whose nodes are the neurons
(inputs first, then each layer's outputs) and whose links are the True entries. Nothing else of the
network enters: no weight values, signs, biases or thresholds. Conv layers are turned into
two-dimensional masks in `topospike.analysis.graphs.chains`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int

from topospike.errors import ConfigError, ShapeError, require

if TYPE_CHECKING:
    import igraph
    import scipy.sparse
    import torch

    MaskLike: TypeAlias = np.ndarray | torch.Tensor
    GraphLike: TypeAlias = (
        "LayeredGraph | igraph.Graph | scipy.sparse.sparray | scipy.sparse.spmatrix"
    )


@dataclass(frozen=True, eq=False)
class LayeredGraph:
    """An undirected graph without self-loops whose nodes carry a layer label.

    Attributes
    ----------
    sizes
        Nodes of each layer, layer 0 first, isolated nodes included.
    edges : int64, shape (link, 2)
        Node indices with ``i < j``, sorted, each link once.
    layers : int64, shape (node,)
        Layer of each node; all 0 for a graph that has no layers.
    weights : float64, shape (link,), or None
        Link weights read as distances (only the ``original`` pre-weighting uses them).
    taps : int64, shape (link,), or None
        In a channel graph, how many kernel taps each link stands for.
    """

    sizes: tuple[int, ...]
    edges: Int[np.ndarray, "link 2"]
    layers: Int[np.ndarray, " node"]
    weights: Float[np.ndarray, " link"] | None = None
    taps: Int[np.ndarray, " link"] | None = None

    @property
    def n_nodes(self) -> int:
        """Nodes, isolated ones included."""
        return len(self.layers)

    @property
    def n_links(self) -> int:
        """Links."""
        return len(self.edges)

    @cached_property
    def degrees(self) -> Int[np.ndarray, " node"]:
        """Links of each node."""
        return np.bincount(self.edges.ravel(), minlength=self.n_nodes)

    @cached_property
    def active(self) -> Int[np.ndarray, " active"]:
        """Indices of the nodes that have at least one link."""
        return np.flatnonzero(self.degrees)

    @cached_property
    def blocks(self) -> dict[tuple[int, int], Int[np.ndarray, " block"]]:
        """Positions in `edges` of the links between each pair of layers (lower layer first)."""
        pairs = np.sort(self.layers[self.edges], axis=1)
        code = pairs[:, 0] * len(self.sizes) + pairs[:, 1]
        return {
            (int(c) // len(self.sizes), int(c) % len(self.sizes)): np.flatnonzero(code == c)
            for c in np.flatnonzero(np.bincount(code))
        }

    @cached_property
    def component_labels(self) -> Int[np.ndarray, " node"]:
        """Connected component of each node; an isolated node is a component of its own."""
        from scipy.sparse.csgraph import connected_components

        return connected_components(adjacency(self), directed=False)[1].astype(np.int64)

    def largest_component(self) -> Int[np.ndarray, " node"]:
        """Nodes of the largest connected component (of equal ones, the lowest node index wins)."""
        if self.n_nodes == 0:
            return np.zeros(0, dtype=np.int64)
        label, first, count = np.unique(
            self.component_labels, return_index=True, return_counts=True
        )
        best = label[np.lexsort((first, -count))[0]]
        return np.flatnonzero(self.component_labels == best)

    def subgraph(self, nodes: Int[np.ndarray, " kept"]) -> LayeredGraph:
        """Keep only ``nodes`` and the links among them; nodes are renumbered in rising order."""
        nodes = np.unique(nodes)
        position = np.full(self.n_nodes, -1, dtype=np.int64)
        position[nodes] = np.arange(len(nodes))
        keep = (position[self.edges] >= 0).all(axis=1)
        layers = self.layers[nodes]
        return LayeredGraph(
            sizes=tuple(np.bincount(layers, minlength=len(self.sizes)).tolist()),
            edges=position[self.edges[keep]],
            layers=layers,
            weights=None if self.weights is None else self.weights[keep],
            taps=None if self.taps is None else self.taps[keep],
        )


def mask_array(mask: MaskLike, *, name: str = "mask") -> Bool[np.ndarray, ...]:
    """Return a bool numpy array of a mask (torch or numpy); a numeric one means ``value != 0``.

    Raises
    ------
    ConfigError
        If the array is neither bool nor numeric, or holds NaN.
    """
    plain: Any = mask
    if hasattr(plain, "detach"):
        plain = plain.detach().cpu()
        plain = plain.float().numpy() if plain.is_floating_point() else plain.numpy()
    array = np.asarray(plain)
    if array.dtype == bool:
        return array
    if array.dtype.kind not in "iuf":
        raise ConfigError(
            f"{name} has dtype {array.dtype}; a bool mask (or a weight array) is required."
        )
    if np.isnan(array).any():
        raise ConfigError(f"{name} holds NaN; pass the bool mask or finite weights.")
    return array != 0


def layered_graph(masks: Sequence[MaskLike]) -> LayeredGraph:
    """Join consecutive bipartite masks into one layered graph.

    Parameters
    ----------
    masks : sequence of bool, shape (n_out, n_in) each
        Input side first; ``n_out`` of each equals ``n_in`` of the next. Numeric arrays are read
        as ``weight != 0``.

    Returns
    -------
    LayeredGraph
        Layers 0..L, layer 0 the inputs of the first mask.

    Raises
    ------
    ShapeError
        If a mask is not two-dimensional, is empty, or does not follow the one before it.
    ConfigError
        If no mask is given.

    Notes
    -----
    M_l[o, i] True links node offset_l + i to node offset_(l+1) + o. Such a graph is bipartite
    (even against odd layers): it has no triangle, and linked nodes share no neighbour.

    Examples
    --------
    >>> import numpy as np
    >>> graph = layered_graph([np.eye(3, dtype=bool), np.ones((2, 3), dtype=bool)])
    >>> graph.sizes, graph.n_links, graph.degrees.tolist()
    ((3, 3, 2), 9, [1, 1, 1, 3, 3, 3, 3, 3])
    """
    if not isinstance(masks, Sequence) or len(masks) == 0:
        raise ConfigError("no masks given; pass a list of at least one (n_out, n_in) mask.")
    arrays = [mask_array(mask, name=f"mask {k}") for k, mask in enumerate(masks)]
    for k, array in enumerate(arrays):
        if array.ndim != 2 or 0 in array.shape:
            raise ShapeError(
                f"mask {k} has shape {array.shape}; a non-empty (n_out, n_in) mask is required. "
                "Turn a conv mask into one with channel_mask or unfold."
            )
        if k and array.shape[1] != arrays[k - 1].shape[0]:
            raise ShapeError(
                f"mask {k} has shape {array.shape} but mask {k - 1} has shape "
                f"{arrays[k - 1].shape}; n_in must equal the n_out before it. Give the masks "
                "input side first, or join them with graph_from_blocks."
            )
    sizes = (arrays[0].shape[1], *(array.shape[0] for array in arrays))
    return graph_from_blocks(sizes, [(k, k + 1, array) for k, array in enumerate(arrays)])


def graph_from_blocks(
    sizes: Sequence[int], blocks: Iterable[tuple[int, int, MaskLike]]
) -> LayeredGraph:
    """Build a layered graph from node sets and the masks between them, in any wiring.

    Parameters
    ----------
    sizes
        Nodes of each node set (layer).
    blocks
        ``(source, target, mask)`` with mask shape ``(sizes[target], sizes[source])``. Two blocks
        may read or write the same node set (residual networks, attention); a link given twice
        counts once, a link of a node to itself is dropped.

    Raises
    ------
    ShapeError
        If a mask does not fit its two node sets.

    Examples
    --------
    A residual block whose projection shortcut joins the same two node sets as its convolutions:

    >>> import numpy as np
    >>> full = np.ones((2, 2), dtype=bool)
    >>> graph_from_blocks([2, 2, 2], [(0, 1, full), (1, 2, full), (0, 2, full)]).n_links
    12
    """
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    n_nodes = int(offsets[-1])
    codes = []
    for source, target, mask in blocks:
        array = mask_array(mask, name=f"mask {source} -> {target}")
        if array.shape != (sizes[target], sizes[source]):
            raise ShapeError(
                f"mask {source} -> {target} has shape {array.shape}; "
                f"({sizes[target]}, {sizes[source]}) is required."
            )
        n_out, n_in = np.nonzero(array)
        pair = np.stack([offsets[source] + n_in, offsets[target] + n_out])
        pair = pair[:, pair[0] != pair[1]]
        codes.append(pair.min(axis=0) * n_nodes + pair.max(axis=0))
    # np.unique hashes integers, which takes ten times as long for millions of distinct ones.
    code = np.sort(np.concatenate(codes)) if codes else np.zeros(0, dtype=np.int64)
    code = code[np.diff(code, prepend=-1) != 0]
    return LayeredGraph(
        sizes=tuple(int(n) for n in sizes),
        edges=np.stack([code // max(n_nodes, 1), code % max(n_nodes, 1)], axis=1),
        layers=np.repeat(np.arange(len(sizes)), sizes),
    )


def adjacency(
    graph: LayeredGraph, values: Float[np.ndarray, " link"] | None = None
) -> scipy.sparse.csr_array:
    """Return the symmetric (node, node) float64 adjacency; ``values`` default to 1 per link."""
    import scipy.sparse

    data = np.ones(graph.n_links) if values is None else np.asarray(values, dtype=np.float64)
    i, j = graph.edges.T
    shape = (graph.n_nodes, graph.n_nodes)
    rows, columns = np.concatenate([i, j]), np.concatenate([j, i])
    matrix = scipy.sparse.csr_array((np.concatenate([data, data]), (rows, columns)), shape=shape)
    matrix.sort_indices()
    return matrix


def as_graph(graph: GraphLike) -> LayeredGraph:
    """Accept a LayeredGraph, an undirected igraph graph or a symmetric sparse adjacency.

    The values of a sparse adjacency and igraph's link attribute ``weight`` become `weights`;
    igraph's vertex attribute ``layer`` becomes the layer label.

    Raises
    ------
    ConfigError
        If the object is none of these, or the graph is directed, has self-loops or repeated
        links, negative or non-finite weights.
    """
    if isinstance(graph, LayeredGraph):
        return graph
    module = sys.modules.get("igraph")
    if module is not None and isinstance(graph, module.Graph):
        return from_igraph(graph)
    import scipy.sparse

    if scipy.sparse.issparse(graph):
        return from_sparse(graph)  # pyright: ignore[reportArgumentType]
    raise ConfigError(
        f"a {type(graph).__name__} was given as a graph; a LayeredGraph, an igraph.Graph or a "
        "symmetric scipy.sparse adjacency is required. Build one from masks with layered_graph."
    )


def from_igraph(graph: igraph.Graph) -> LayeredGraph:
    """Read an undirected, simple igraph graph."""
    if graph.is_directed() or not graph.is_simple():
        raise ConfigError(
            "the igraph graph is directed or has self-loops or repeated links; an undirected "
            "simple graph is required. Call as_undirected() and simplify() first."
        )
    edges = np.array(graph.get_edgelist(), dtype=np.int64).reshape(-1, 2)
    order = np.lexsort((edges.max(axis=1), edges.min(axis=1)))
    weights = np.array(graph.es["weight"], dtype=np.float64) if graph.is_weighted() else None
    layers = np.zeros(graph.vcount(), dtype=np.int64)
    if "layer" in graph.vs.attributes():
        layers = np.unique(np.array(graph.vs["layer"]), return_inverse=True)[1].astype(np.int64)
    return checked(
        np.sort(edges, axis=1)[order], layers, None if weights is None else weights[order]
    )


def to_igraph(graph: LayeredGraph) -> igraph.Graph:
    """Return the nodes and links, no weights, as an igraph graph."""
    require("igraph", purpose="this measure of a graph")
    import igraph

    return igraph.Graph(graph.n_nodes, graph.edges.tolist())


def from_sparse(matrix: scipy.sparse.sparray | scipy.sparse.spmatrix) -> LayeredGraph:
    """Read a symmetric sparse adjacency with zero diagonal."""
    import scipy.sparse

    shape: tuple[int, ...] | None = getattr(matrix, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != shape[1]:
        raise ShapeError(f"the adjacency has shape {shape}; a square matrix is required.")
    full = scipy.sparse.coo_array(scipy.sparse.csr_array(matrix, dtype=np.float64))
    full.eliminate_zeros()
    rows, columns = full.coords
    if (rows == columns).any():
        raise ConfigError("the adjacency has self-loops; set its diagonal to zero.")
    csr = scipy.sparse.csr_array(full)
    if abs(csr - csr.T).nnz:
        raise ConfigError("the adjacency is not symmetric; an undirected graph is required.")
    upper = rows < columns
    order = np.lexsort((columns[upper], rows[upper]))
    edges = np.stack([rows[upper], columns[upper]], axis=1).astype(np.int64)[order]
    weights = full.data[upper][order]
    unweighted = bool((weights == 1).all())
    return checked(edges, np.zeros(shape[0], dtype=np.int64), None if unweighted else weights)


def checked(
    edges: Int[np.ndarray, "link 2"],
    layers: Int[np.ndarray, " node"],
    weights: Float[np.ndarray, " link"] | None,
) -> LayeredGraph:
    """Build the graph after refusing weights that cannot be distances."""
    if weights is not None and not (np.isfinite(weights).all() and (weights > 0).all()):
        bad = weights[~(np.isfinite(weights) & (weights > 0))][0]
        raise ConfigError(f"a link has weight {bad}; positive finite weights are required.")
    return LayeredGraph(tuple(np.bincount(layers).tolist()), edges, layers, weights)
