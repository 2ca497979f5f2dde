"""Stage analyse: angular separability of groups of nodes (layers, communities) on the circle.

Only the order of the angles counts. The index is 1 when every group occupies an arc of its own and
0 when the groups are mixed as badly as can be.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from topospike.errors import ConfigError


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
