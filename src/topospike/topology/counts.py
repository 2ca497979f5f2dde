"""Stage topology: sparsity <-> number of links, with one rounding rule for the whole library.

``floor(share * n + 1e-6)`` is the only way a share becomes a count. The small term cancels binary
rounding (0.29 x 100 is 28.999999999999996). Nothing here knows tensors or layers.
"""

from __future__ import annotations

import math
import operator

from topospike.errors import ConfigError

ROUNDING_GUARD = 1e-6


def share_count(n: int, share: float) -> int:
    """Return how many of ``n`` items a share stands for, rounded down.

    Parameters
    ----------
    n
        Number of items, at least 0.
    share
        Fraction in [0, 1].

    Returns
    -------
    int
        ``floor(share * n + 1e-6)``, never more than ``n``.

    Raises
    ------
    ConfigError
        If ``n`` is negative or ``share`` is outside [0, 1] or not a number.

    Examples
    --------
    >>> share_count(100, 0.29), int(0.29 * 100)
    (29, 28)
    """
    n = operator.index(n)
    if n < 0:
        raise ConfigError(f"n is {n}; a count must be 0 or more.")
    if not 0.0 <= share <= 1.0:
        raise ConfigError(f"share is {share!r}; it must lie in [0, 1].")
    return min(n, math.floor(share * n + ROUNDING_GUARD))


def active_count(n: int, sparsity: float) -> int:
    """Return how many of ``n`` possible links exist at a sparsity.

    Parameters
    ----------
    n
        Number of possible links (weights of the layer), at least 1.
    sparsity
        Share of absent links, in [0, 1).

    Returns
    -------
    int
        ``n - floor(sparsity * n + 1e-6)``, at least 1.

    Raises
    ------
    ConfigError
        If ``n`` < 1 or ``sparsity`` is outside [0, 1) or not a number.

    Notes
    -----
    Equals the starting count ``N - int(S N)`` of the public Cannistraci-Hebb training code, except
    where that code loses a link to binary rounding. Its regrowth target ``int((1 - S) N)`` is
    another number in most cases, which makes layers drift by a link; we use this count everywhere.

    Examples
    --------
    >>> active_count(784 * 784, 0.99)
    6147
    >>> active_count(3, 0.9999)
    1
    """
    n = operator.index(n)
    if n < 1:
        raise ConfigError(f"n is {n}; a layer needs at least 1 possible link.")
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(
            f"sparsity is {sparsity!r}; it must lie in [0, 1): 0 keeps every link, "
            "0.99 keeps one in a hundred."
        )
    return max(1, n - share_count(n, sparsity))


def sparsity_of(active: int, n: int) -> float:
    """Return the sparsity of a layer with ``active`` of ``n`` possible links.

    ``active_count(n, sparsity_of(active, n)) == active`` for every ``1 <= active <= n``.

    Raises
    ------
    ConfigError
        If ``n`` < 1 or ``active`` is outside 0..n.

    Examples
    --------
    >>> sparsity_of(1, 4)
    0.75
    """
    if n < 1 or not 0 <= active <= n:
        raise ConfigError(
            f"{active} active of {n} possible links; needed: 0 <= active <= n, n >= 1."
        )
    return 1.0 - active / n
