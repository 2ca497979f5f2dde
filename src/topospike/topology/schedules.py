"""Stage topology: how density falls and how the removed share shrinks over training.

Every density schedule is ``initial + (final - initial) * share(t)`` with a share that goes from 0
to 1, so the same function serves densities and sparsities. Time ``t`` has any unit, as long as
``start`` and ``end`` use the same (epochs for the literal sigmoid). The exponents of soft removal
belong to the evolution stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from topospike.errors import ConfigError
from topospike.registry import Registry


def sigmoid_share(t: float, *, start: float, end: float, k: float) -> float:
    """Return the logistic curve rescaled to be exactly 0 at ``start`` and 1 at ``end``.

    Notes
    -----
    With progress u = (t - start) / (end - start) and the logistic function σ:
    ``(σ(k(2u - 1)) - 1/2) / (σ(k) - σ(-k)) + 1/2``. k has no unit; larger is steeper. This is the
    form of the public CHTss code (Zhang et al., 2025).

    Examples
    --------
    >>> [round(sigmoid_share(t, start=0, end=40, k=6.0), 3) for t in (0, 10, 20, 40)]
    [0.0, 0.045, 0.5, 1.0]
    """
    progress = (t - start) / (end - start)
    return 0.5 * (math.tanh(0.5 * k * (2.0 * progress - 1.0)) / math.tanh(0.5 * k) + 1.0)


def literal_sigmoid_share(t: float, *, start: float, end: float, k: float) -> float:
    """Return the logistic curve as printed: ``1 / (1 + exp(-k (t - (start + end) / 2)))``.

    Notes
    -----
    Equation (A6) of Zhang et al. (2025), t in epochs and k per epoch: with k = 1 nearly the whole
    change happens within eight epochs around the middle.

    Examples
    --------
    >>> round(literal_sigmoid_share(108, start=0, end=225, k=1.0), 4)
    0.011
    """
    return 0.5 * (math.tanh(0.5 * k * (t - 0.5 * (start + end))) + 1.0)


def cubic_share(t: float, *, start: float, end: float, k: float) -> float:
    """Return ``1 - (1 - u)^3``, the gradual pruning curve of Zhu and Gupta (2017); ignores ``k``.

    Examples
    --------
    >>> cubic_share(1, start=0, end=2, k=6.0)
    0.875
    """
    return 1.0 - (1.0 - (t - start) / (end - start)) ** 3


def linear_share(t: float, *, start: float, end: float, k: float) -> float:
    """Return the progress ``u = (t - start) / (end - start)`` itself; ignores ``k``.

    Examples
    --------
    >>> linear_share(1, start=0, end=4, k=6.0)
    0.25
    """
    return (t - start) / (end - start)


def constant_share(t: float, *, start: float, end: float, k: float) -> float:
    """Return 0 at every time: the density does not move.

    Examples
    --------
    >>> constant_share(3, start=0, end=4, k=6.0)
    0.0
    """
    return 0.0


DENSITY_SCHEDULES: Registry[Callable[..., float]] = Registry(
    "density schedule",
    {
        "sigmoid": sigmoid_share,
        "sigmoid_literal": literal_sigmoid_share,
        "cubic": cubic_share,
        "linear": linear_share,
        "constant": constant_share,
    },
)


def sparsity_at(
    t: float,
    *,
    initial: float,
    final: float,
    end: float,
    start: float = 0.0,
    kind: str = "sigmoid",
    k: float = 6.0,
) -> float:
    """Return the sparsity that the density schedule asks for at time ``t``.

    Parameters
    ----------
    t
        Time of the update. With updates after each epoch, epoch e (from 0) ends at t = e + 1.
    initial, final
        Sparsity up to ``start`` and from ``end`` on, both in [0, 1].
    end, start
        The window of the decay, in the unit of ``t``. ``end`` must be the time of an update, or
        the last update stops short of ``final``.
    kind
        ``sigmoid`` (rescaled), ``sigmoid_literal`` (as printed, t in epochs), ``cubic``,
        ``linear`` or ``constant``.
    k
        Steepness of the two sigmoids.

    Returns
    -------
    float
        Sparsity; exactly ``final`` for ``t >= end``. Give it to `active_count` for the link target.

    Raises
    ------
    ConfigError
        For an unknown ``kind``, a window of negative length, ``k`` not positive, a value outside
        [0, 1], or a constant schedule with ``initial != final``.

    Notes
    -----
    ``s(t) = s_i + (s_f - s_i) share(t)``; Zhang et al. (2025), equation (A6), and Bao et al.
    (2026), who take the convolutions from 20 % to 78 %. Neither fixes the unit of t; the two
    sigmoids are the two readings. The public code subtracts the starting step in the wrong
    unit; here the window is [start, end].

    Examples
    --------
    >>> round(sparsity_at(10, initial=0.2, final=0.78, end=40, k=1.0), 6)
    0.336302
    >>> sparsity_at(40, initial=0.2, final=0.78, end=40)
    0.78
    """
    share = DENSITY_SCHEDULES[kind]
    _check_window(initial=initial, final=final, start=start, end=end, k=k)
    if kind == "constant" and initial != final:
        raise ConfigError(
            f"a constant schedule cannot go from {initial} to {final}; "
            "make them equal or choose another schedule."
        )
    if t >= end:
        return final
    if t < start:
        return initial
    return initial + (final - initial) * share(t, start=start, end=end, k=k)


def density_at(
    t: float,
    *,
    initial: float,
    final: float,
    end: float,
    start: float = 0.0,
    kind: str = "sigmoid",
    k: float = 6.0,
) -> float:
    """Return the density at time ``t``; ``initial`` and ``final`` are densities too.

    The schedules are affine in their end points, so this is `sparsity_at` read in densities.

    Examples
    --------
    >>> round(density_at(20, initial=0.8, final=0.22, end=40), 6)
    0.51
    """
    return sparsity_at(t, initial=initial, final=final, end=end, start=start, kind=kind, k=k)


def zeta_at(t: float, *, zeta: float = 0.3, end: float, kind: str = "cosine") -> float:
    """Return the share of links removed and regrown at the update at time ``t``.

    Parameters
    ----------
    t
        Time of the update, in the unit of ``end``.
    zeta
        The share at t = 0, in [0, 1].
    end
        Time of the last update, positive.
    kind
        ``cosine``: ``zeta / 2 * (1 + cos(pi t / end))``, 0 from ``end`` on; ``constant``: ``zeta``.

    Raises
    ------
    ConfigError
        For an unknown ``kind``, ``zeta`` outside [0, 1] or ``end`` not positive.

    Notes
    -----
    The cosine is that of Evci et al. (2020), also used by the Cannistraci-Hebb training code.

    Examples
    --------
    >>> zeta_at(0, end=75), zeta_at(75, end=75), zeta_at(75, end=75, kind="constant")
    (0.3, 0.0, 0.3)
    """
    if not 0.0 <= zeta <= 1.0:
        raise ConfigError(f"zeta is {zeta!r}; the removed share must lie in [0, 1].")
    if not end > 0:
        raise ConfigError(f"end is {end!r}; the last update must come after time 0.")
    return ZETA_SCHEDULES[kind](min(max(t / end, 0.0), 1.0), zeta)


ZETA_SCHEDULES: Registry[Callable[[float, float], float]] = Registry(
    "zeta schedule",
    {
        "cosine": lambda progress, zeta: 0.5 * zeta * (1.0 + math.cos(math.pi * progress)),
        "constant": lambda progress, zeta: zeta,
    },
)


def _check_window(*, initial: float, final: float, start: float, end: float, k: float) -> None:
    for name, value in (("initial", initial), ("final", final)):
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} is {value!r}; it must lie in [0, 1].")
    if not end >= start:
        raise ConfigError(f"the decay ends at {end} before it starts at {start}.")
    if not k > 0:
        raise ConfigError(f"k is {k!r}; the steepness must be positive.")
