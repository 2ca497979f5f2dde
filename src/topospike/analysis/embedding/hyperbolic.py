"""Stage analyse: coalescent embedding of a graph into the hyperbolic disk (native coordinates).

Pre-weighting gives every existing link a dissimilarity (absent links have none). On a chain of
layers linked nodes share no neighbour, so RA1 = (1 + d_i)(1 + d_j) - 1 and RA2 = d_i d_j there: the
rules see degrees only, and ties are massive. Angles come from the weights by dimension reduction
(`topospike.analysis.embedding.reduction`), radii from the rank of the degree alone. The embedding
is a picture and a coordinate system; statistics of depth live in `topospike.analysis.metadepth`,
distances and scores in `topospike.analysis.embedding.geometry`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.degree import PowerLawFit, power_law
from topospike.analysis.embedding.reduction import coordinates, landmark_nodes
from topospike.analysis.graphs.graph import LayeredGraph, adjacency, as_graph, to_igraph
from topospike.errors import ConfigError
from topospike.registry import Registry

if TYPE_CHECKING:
    from topospike.analysis.graphs.graph import GraphLike


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


@dataclass(frozen=True, eq=False)
class Embedding:
    """Polar coordinates of the largest connected component in the native hyperbolic disk.

    Attributes
    ----------
    theta : float64, shape (node,)
        Angle in [0, 2 pi).
    r : float64, shape (node,)
        Radius in [0, 2 ln N]; small means central, that is deep in the hierarchy.
    nodes : int64, shape (node,)
        Index of each embedded node in the graph that was given.
    graph
        The embedded component, its nodes numbered like `theta`.
    fit
        The power-law fit of its degrees that the radii use.
    landmarks
        Nodes the angles were computed from; None when it was all of them.
    """

    theta: Float[np.ndarray, " node"]
    r: Float[np.ndarray, " node"]
    nodes: Int[np.ndarray, " node"]
    graph: LayeredGraph
    fit: PowerLawFit
    weighting: str
    reduction: str
    angles: str
    landmarks: int | None = None

    @property
    def gamma(self) -> float:
        """Exponent of the embedded component's degree distribution."""
        return self.fit.gamma

    @property
    def xy(self) -> Float[np.ndarray, "node 2"]:
        """Cartesian coordinates in the native disk."""
        return np.stack([self.r * np.cos(self.theta), self.r * np.sin(self.theta)], axis=1)


def polar_angle(position: Float[np.ndarray, "node axis"]) -> Float[np.ndarray, " node"]:
    """Angle in [0, 2 pi) of two-dimensional positions; a single coordinate is returned as it is."""
    if position.shape[1] == 1:
        return position[:, 0]
    theta = np.arctan2(position[:, 1], position[:, 0])
    return np.where(theta < 0, theta + 2 * np.pi, theta) % (2 * np.pi)


def circular_adjustment(value: Float[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
    """Stretch values linearly onto [0, 2 pi (N - 1) / N], so that the ends do not meet."""
    low, high = value.min(), value.max()
    if high == low:
        raise ConfigError("all nodes have the same coordinate; use angles='equidistant'.")
    return (value - low) / (high - low) * 2 * np.pi * (len(value) - 1) / len(value)


def equidistant_adjustment(value: Float[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
    """Spread the nodes evenly: the node of rank k (rising, stable) gets 2 pi k / N."""
    theta = np.empty(len(value))
    theta[np.argsort(value, kind="stable")] = 2 * np.pi * np.arange(len(value)) / len(value)
    return theta


def original_angles(position: Float[np.ndarray, "node axis"]) -> Float[np.ndarray, " node"]:
    """Return the angle itself; for a single coordinate (MCE, ncMCE) its circular adjustment."""
    value = polar_angle(position)
    return value if position.shape[1] == 2 else circular_adjustment(value)


ANGLES: Registry[Callable[[np.ndarray], np.ndarray]] = Registry(
    "angles",
    {
        "original": original_angles,
        "circular": lambda position: circular_adjustment(polar_angle(position)),
        "equidistant": lambda position: equidistant_adjustment(polar_angle(position)),
    },
)


def radial_positions(
    ranks: Float[np.ndarray, " node"] | Int[np.ndarray, " node"], gamma: float, n: int | None = None
) -> Float[np.ndarray, " node"]:
    """Radius of the node whose degree has the given rank (1 = largest degree).

    Notes
    -----
    r = max(0, 2 beta ln(rank) + 2 (1 - beta) ln N) with beta = 1 / (gamma - 1); curvature -1. The
    clip at 0 acts for gamma < 2 only. The rim is 2 ln N.
    """
    n = len(ranks) if n is None else n
    beta = 1 / (gamma - 1)
    return np.maximum(0.0, 2 * beta * np.log(ranks) + 2 * (1 - beta) * np.log(n))


def degree_ranks(degrees: Int[np.ndarray, " node"]) -> Int[np.ndarray, " node"]:
    """Rank 1..N of falling degree; of equal degrees the lower index is more central."""
    ranks = np.empty(len(degrees), dtype=np.int64)
    ranks[np.argsort(-degrees, kind="stable")] = np.arange(1, len(degrees) + 1)
    return ranks


def coalescent_embedding(
    graph: GraphLike,
    weighting: str = "RA2",
    reduction: str = "ISO",
    angles: str = "equidistant",
    *,
    landmarks: int | None = None,
) -> Embedding:
    """Embed a graph in the two-dimensional hyperbolic disk.

    Parameters
    ----------
    graph
        A LayeredGraph, an undirected igraph graph or a symmetric scipy.sparse adjacency. Isolated
        nodes and all but the largest connected component are left out (see ``nodes``).
    weighting
        Dissimilarity of linked nodes: ``RA2``, ``RA1``, ``EBC``, ``original`` (given weights) or
        ``none``.
    reduction
        ``ISO``, ``ncISO``, ``LE`` (two coordinates), ``MCE`` or ``ncMCE`` (one coordinate).
    angles
        ``original``; ``circular``: stretched onto [0, 2 pi (N - 1) / N], which for MCE and ncMCE
        is the original; ``equidistant``: spread evenly in the same order.
    landmarks
        How many nodes span the kernel; None takes all of them up to 4000 nodes and 1000 above,
        where N^2 distances would not fit. The angles are then approximate.

    Returns
    -------
    Embedding

    Raises
    ------
    ConfigError
        If an option is unknown, the graph has no link, or all degrees of the component are equal
        (then there is no hierarchy to place radially).

    Notes
    -----
    The only freedom of the result is the sign of each coordinate, removed by convention. With
    tied weights, as every layer chain has, the spanning tree of MCE and ncMCE depends on how ties
    are broken: here by (weight, i, j). The reference does not check that the graph is connected;
    we reduce to the largest component. ``circular`` for two-coordinate reductions is our addition.

    References
    ----------
    .. [1] A. Muscoloni, J. M. Thomas, S. Ciucci, G. Bianconi, C. V. Cannistraci, "Machine learning
       meets complex networks via coalescent embedding in the hyperbolic space", Nature
       Communications 8 (2017), 1615.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> masks = [np.random.default_rng(0).random((30, 40)) < 0.1 for _ in range(1)]
    >>> embedding = coalescent_embedding(layered_graph(masks))
    >>> embedding.theta.shape == embedding.r.shape == embedding.nodes.shape
    True
    >>> bool((embedding.r <= 2 * np.log(len(embedding.r)) + 1e-12).all())
    True
    """
    whole = as_graph(graph)
    place = ANGLES[angles]
    if whole.n_links == 0:
        raise ConfigError(
            f"a graph of {whole.n_nodes} nodes without links cannot be embedded; at least two "
            "distinct degrees in one component are required."
        )
    nodes = whole.largest_component()
    component = whole if len(nodes) == whole.n_nodes else whole.subgraph(nodes)
    if len(np.unique(component.degrees)) < 2:
        raise ConfigError(
            f"all {len(nodes)} nodes of the largest component have degree "
            f"{component.degrees[0]}; coalescent embedding needs at least two distinct degrees."
        )
    fit = power_law(component.degrees)
    chosen = landmark_nodes(len(nodes), landmarks)
    lengths = link_weights(component, weighting)
    position = coordinates(component, lengths, reduction, landmarks=chosen)
    return Embedding(
        theta=place(position),
        r=radial_positions(degree_ranks(component.degrees), fit.gamma),
        nodes=nodes,
        graph=component,
        fit=fit,
        weighting=weighting,
        reduction=reduction,
        angles=angles,
        landmarks=None if chosen is None else len(chosen),
    )
