"""Stage analyse: distances in the hyperbolic disk and how well coordinates explain a graph.

Compares two embeddings (HD-correlation, C-score), asks whether the coordinates alone guide a
message to its target (greedy routing), and whether groups of nodes (layers, communities) lie apart
on the circle: the index of angular separability is 1 when every group occupies an arc of its own
and 0 when they are mixed as badly as can be; only the order of the angles counts. Routing and
distances are quadratic in the number of nodes; nothing here embeds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.graphs.graph import adjacency, as_graph
from topospike.errors import ConfigError, ShapeError

if TYPE_CHECKING:
    from topospike.analysis.graphs.graph import GraphLike


Polar = Float[np.ndarray, " node"]


def hyperbolic_distances(theta: Polar, r: Polar) -> Float[np.ndarray, "node node"]:
    """Hyperbolic distance (curvature -1) between all pairs of nodes.

    Parameters
    ----------
    theta, r : float64, shape (node,)
        Native polar coordinates, angles in radians.

    Returns
    -------
    float64, shape (node, node)

    Notes
    -----
    cosh h = cosh r_i cosh r_j - sinh r_i sinh r_j cos(Delta), Delta = pi - |pi - |t_i - t_j||;
    where round-off takes cosh h below 1, h = |r_i - r_j|.

    Examples
    --------
    >>> import numpy as np
    >>> h = hyperbolic_distances(np.array([0.0, np.pi]), np.array([1.0, 2.0]))
    >>> round(float(h[0, 1]), 6)
    3.0
    """
    theta, r = checked_polar(theta, r)
    delta = np.pi - np.abs(np.pi - np.abs(theta[:, None] - theta[None, :]))
    cosine = np.outer(np.cosh(r), np.cosh(r)) - np.outer(np.sinh(r), np.sinh(r)) * np.cos(delta)
    radial = np.abs(r[:, None] - r[None, :])
    h = np.where(cosine < 1, radial, np.arccosh(np.maximum(cosine, 1.0)))
    np.fill_diagonal(h, 0.0)
    return h


def checked_polar(theta: Polar, r: Polar) -> tuple[Polar, Polar]:
    """Refuse coordinates of unequal length or with NaN."""
    theta, r = np.asarray(theta, dtype=np.float64), np.asarray(r, dtype=np.float64)
    if theta.ndim != 1 or theta.shape != r.shape:
        raise ShapeError(
            f"theta has shape {theta.shape} and r {r.shape}; two equally long vectors are required."
        )
    if not (np.isfinite(theta).all() and np.isfinite(r).all()):
        raise ConfigError("theta and r must be finite; NaN or infinity was given.")
    return theta, r


def hd_correlation(first: tuple[Polar, Polar], second: tuple[Polar, Polar]) -> float:
    """Pearson correlation of the pairwise hyperbolic distances of two embeddings.

    Parameters
    ----------
    first, second
        ``(theta, r)`` of the same nodes in the same order.

    Raises
    ------
    ShapeError
        If the two embeddings have different numbers of nodes.

    Examples
    --------
    >>> import numpy as np
    >>> one = (np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    >>> round(hd_correlation(one, one), 12)
    1.0
    """
    if len(first[0]) != len(second[0]):
        raise ShapeError(
            f"the embeddings have {len(first[0])} and {len(second[0])} nodes; the same nodes in "
            "the same order are required."
        )
    upper = np.triu_indices(len(first[0]), k=1)
    a, b = (hyperbolic_distances(theta, r)[upper] for theta, r in (first, second))
    return float(np.corrcoef(a, b)[0, 1])


def c_score(first: Polar, second: Polar) -> float:
    """Share of node pairs whose circular order agrees in two sets of angles (or their mirror).

    Notes
    -----
    For each pair i < j both sets are turned until node i is at angle 0. The pair agrees when node j
    lies on the same half, [0, pi) or (pi, 2 pi), in both; it agrees with the mirror image when the
    halves are opposite. Exactly 0 in both, or exactly pi in both, counts for both directions. The
    larger count is taken. 1 is perfect, about 0.5 is chance.

    References
    ----------
    .. [1] A. Muscoloni, J. M. Thomas, S. Ciucci, G. Bianconi, C. V. Cannistraci, "Machine learning
       meets complex networks via coalescent embedding in the hyperbolic space", Nature
       Communications 8 (2017), 1615.

    Examples
    --------
    >>> import numpy as np
    >>> c_score(np.array([0.0, 1.0, 2.0]), np.array([0.0, 6.0, 5.0]))
    1.0
    """
    if len(first) != len(second):
        raise ShapeError(
            f"{len(first)} and {len(second)} angles were given; the same nodes are required."
        )
    upper = np.triu_indices(len(first), k=1)
    a, b = (
        seen_from_first(np.asarray(theta, dtype=np.float64))[upper] for theta in (first, second)
    )
    either = ((a == 0) & (b == 0)) | ((a == np.pi) & (b == np.pi))
    same = ((a < np.pi) & (b < np.pi)) | ((a > np.pi) & (b > np.pi)) | either
    mirrored = ((a < np.pi) & (b > np.pi)) | ((a > np.pi) & (b < np.pi)) | either
    return float(max(same.sum(), mirrored.sum()) / len(a))


def seen_from_first(theta: Polar) -> np.ndarray:
    """Angle in [0, 2 pi) of node j (column) after turning node i (row) to 0.

    A full turn to within machine precision counts as 0, so that tied nodes are seen as tied.
    """
    turned = theta[None, :] + (2 * np.pi - theta[:, None])
    turns = turned / (2 * np.pi)
    nearest = np.rint(turns)
    whole = np.abs(turns - nearest) < np.finfo(np.float64).eps * np.maximum(nearest, 0)
    return np.where(whole, 0.0, np.mod(turned, 2 * np.pi))


@dataclass(frozen=True, slots=True)
class GreedyRouting:
    """How well a graph is navigated by its coordinates.

    Attributes
    ----------
    score
        Mean over ordered pairs of shortest hops / greedy hops, 0 for a failed pair.
    success
        Share of ordered pairs that arrive.
    hops
        Mean greedy hops of the pairs that arrive.
    """

    score: float
    success: float
    hops: float


def greedy_routing(graph: GraphLike, theta: Polar, r: Polar) -> GreedyRouting:
    """Route between all pairs, each time to the neighbour hyperbolically nearest to the target.

    Parameters
    ----------
    graph
        The embedded graph, nodes in the order of ``theta`` and ``r``.

    Notes
    -----
    Ties go to the lowest node index; a message that would return to the node it came from is
    dropped. The next hop depends on (node, target) only, and no longer cycle than a return can
    occur (along a cycle the distances would have to be equal and the tie rule contradicts itself),
    so all pairs are advanced together. Cost: O(N E) time, N^2 memory.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> path = layered_graph([np.ones((1, 2), dtype=bool)])
    >>> greedy_routing(path, np.array([0.0, 2.0, 1.0]), np.array([1.0, 1.0, 0.1]))
    GreedyRouting(score=1.0, success=1.0, hops=1.3333333333333333)
    """
    from scipy.sparse.csgraph import shortest_path

    network = as_graph(graph)
    theta, r = checked_polar(theta, r)
    n = network.n_nodes
    if len(theta) != n:
        raise ShapeError(f"{len(theta)} coordinates were given for a graph of {n} nodes.")
    if n < 2:
        raise ConfigError(f"greedy routing needs at least two nodes; {n} given.")
    matrix = adjacency(network)
    distance = hyperbolic_distances(theta, r)
    following = np.full((n, n), -1, dtype=np.int64)
    for node in network.active:
        neighbours = matrix.indices[matrix.indptr[node] : matrix.indptr[node + 1]]
        following[node] = neighbours[distance[neighbours].argmin(axis=0)]
    hops = greedy_hops(following)
    shortest = shortest_path(matrix, unweighted=True, directed=True)
    pairs = ~np.eye(n, dtype=bool)
    arrived = (hops > 0) & pairs
    score = (shortest[arrived] / hops[arrived]).sum() / pairs.sum()
    mean_hops = float(hops[arrived].mean()) if arrived.any() else 0.0
    return GreedyRouting(float(score), float(arrived.sum() / pairs.sum()), mean_hops)


def greedy_hops(following: np.ndarray) -> np.ndarray:
    """Hops from every node to every target under a next-hop table; 0 where the message drops."""
    n = len(following)
    source, target = (axis.ravel() for axis in np.indices((n, n)))
    moving = (source != target) & (following[source, target] >= 0)
    source, target = source[moving], target[moving]
    origin, previous, here = source, np.full(len(source), -1), source
    hops = np.zeros((n, n), dtype=np.int64)
    step = 0
    while len(here):
        step += 1
        onward = following[here, target]
        arrived = onward == target
        hops[origin[arrived], target[arrived]] = step
        alive = ~arrived & (onward != previous)
        origin, target = origin[alive], target[alive]
        previous, here = here[alive], onward[alive]
    return hops


@dataclass(frozen=True, slots=True)
class AngularSeparation:
    """The angular separation index (ASI), per group and with its permutation p-value.

    Attributes
    ----------
    index
        max(0, 1 - mistakes / worst), summed over the groups.
    groups
        The same for each group in rising label order; None for a group of one node.
    p_value
        Share of random orders that separate at least as well; None without permutations.
    """

    index: float
    groups: tuple[float | None, ...]
    p_value: float | None


def angular_separation(
    theta: Float[np.ndarray, " node"],
    labels: Int[np.ndarray, " node"],
    *,
    permutations: int = 0,
    seed: int = 0,
) -> AngularSeparation:
    """Measure how well groups of nodes are separated along the circle.

    Parameters
    ----------
    theta : float, shape (node,)
        Angles; ties are ordered by node index.
    labels : int, shape (node,)
        Group of each node.
    permutations
        0: the worst case is the theoretical one, deterministic, and there is no p-value. Above 0:
        the worst case is the worst of that many random orders, and a p-value is given.
    seed
        Seed of the random orders.

    Raises
    ------
    ConfigError
        If there are fewer than 4 nodes, or not more than one and fewer than N groups.

    Notes
    -----
    Between consecutive members of a group lie gaps of foreign nodes; all but the largest gap are
    mistakes. Theoretical worst case of a group of n of N: ceil((N - n) (n - 1) / n).

    References
    ----------
    .. [1] A. Muscoloni, C. V. Cannistraci, "Angular separability of data clusters or network
       communities in geometrical space and its relevance to hyperbolic embedding",
       arXiv 1907.00025 (2019).

    Examples
    --------
    >>> import numpy as np
    >>> angular_separation(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 0, 1, 1])).index
    1.0
    >>> angular_separation(np.array([0.0, 1.0, 2.0, 3.0]), np.array([0, 1, 0, 1])).index
    0.0
    """
    group = np.unique(np.asarray(labels), return_inverse=True)[1].ravel()
    n, n_groups = len(group), int(group.max()) + 1 if len(group) else 0
    if n < 4 or not 1 < n_groups < n:
        raise ConfigError(
            f"{n} nodes in {n_groups} groups were given; angular separation needs at least 4 "
            "nodes, at least 2 groups, and a group with more than one node."
        )
    ordered = group[np.argsort(np.asarray(theta), kind="stable")]
    mistakes = count_mistakes(ordered, n_groups)
    sizes = np.bincount(group)
    if permutations <= 0:
        worst = np.ceil((n - sizes) * (sizes - 1) / sizes)
        index, per_group = separation(mistakes, worst, sizes)
        return AngularSeparation(index, per_group, None)
    rng = np.random.default_rng(seed)
    drawn = np.array(
        [count_mistakes(rng.permutation(group), n_groups) for _ in range(permutations)]
    )
    worst = drawn[drawn.sum(axis=1).argmax()]
    index, per_group = separation(mistakes, worst, sizes)
    random_index = np.maximum(0.0, 1 - drawn.sum(axis=1) / max(worst.sum(), 1))
    p_value = float(((random_index >= index).sum() + 1) / (permutations + 1))
    return AngularSeparation(index, per_group, p_value)


def count_mistakes(ordered: Int[np.ndarray, " node"], n_groups: int) -> Int[np.ndarray, " group"]:
    """Foreign nodes inside each group's arc, given the groups in angular order."""
    n = len(ordered)
    mistakes = np.zeros(n_groups, dtype=np.int64)
    for group in range(n_groups):
        position = np.flatnonzero(ordered == group)
        if len(position) > 1:
            gaps = np.diff(position, append=position[0] + n) - 1
            mistakes[group] = gaps.sum() - gaps.max()
    return mistakes


def separation(
    mistakes: np.ndarray, worst: np.ndarray, sizes: np.ndarray
) -> tuple[float, tuple[float | None, ...]]:
    """Turn mistakes and their worst case into the index and the per-group indices."""
    total = max(float(worst.sum()), 1.0)
    per_group = tuple(
        float(1 - m / w) if size > 1 and w > 0 else None
        for m, w, size in zip(mistakes, worst, sizes, strict=True)
    )
    return max(0.0, float(1 - mistakes.sum() / total)), per_group
