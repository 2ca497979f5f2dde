"""Stage topology: how density falls and how the replaced share shrinks over training.

Every density schedule is ``initial + (final - initial) * share(t)`` with a share that goes from 0
to 1. Time ``t`` has any unit, as long as ``start`` and ``end`` use the same (epochs for the literal
sigmoid). The exponents of soft removal belong to the evolution stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from topospike.errors import ConfigError
from topospike.registry import Registry

# Share of the way that is behind us, from the progress u in [0, 1], the times t, start and end,
# and the steepness k. The sigmoid is rescaled to be exactly 0 and 1 at the ends, as in the public
# CHTss code; its literal form is equation (A6) of Zhang et al. (2025), where with k = 1 per epoch
# nearly the whole change happens within eight epochs. The cubic is that of Zhu and Gupta (2017).
Share = Callable[[float, float, float, float, float], float]
DENSITY_SCHEDULES: Registry[Share] = Registry(
    "density schedule",
    {
        "sigmoid": lambda u, t, start, end, k: (
            0.5 * (math.tanh(0.5 * k * (2.0 * u - 1.0)) / math.tanh(0.5 * k) + 1.0)
        ),
        "sigmoid_literal": lambda u, t, start, end, k: (
            0.5 * (math.tanh(0.5 * k * (t - 0.5 * (start + end))) + 1.0)
        ),
        "cubic": lambda u, t, start, end, k: 1.0 - (1.0 - u) ** 3,
        "linear": lambda u, t, start, end, k: u,
        "constant": lambda u, t, start, end, k: 0.0,
    },
)
# From the progress and zeta; the cosine is that of Evci et al. (2020).
ZETA_SCHEDULES: Registry[Callable[[float, float], float]] = Registry(
    "zeta schedule",
    {
        "cosine": lambda u, zeta: 0.5 * zeta * (1.0 + math.cos(math.pi * u)),
        "constant": lambda u, zeta: zeta,
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
    for name, value in (("initial", initial), ("final", final)):
        if not 0.0 <= value <= 1.0:
            raise ConfigError(f"{name} is {value!r}; it must lie in [0, 1].")
    if not end >= start:
        raise ConfigError(f"the decay ends at {end} before it starts at {start}.")
    if not k > 0:
        raise ConfigError(f"k is {k!r}; the steepness must be positive.")
    if kind == "constant" and initial != final:
        raise ConfigError(
            f"a constant schedule cannot go from {initial} to {final}; "
            "make them equal or choose another schedule."
        )
    if t >= end:
        return final
    if t < start:
        return initial
    return initial + (final - initial) * share((t - start) / (end - start), t, start, end, k)


def zeta_at(t: float, *, zeta: float = 0.3, end: float, kind: str = "cosine") -> float:
    """Return the share of links removed and regrown at the update at time ``t``.

    Parameters
    ----------
    t, end
        Time of the update, and of the last one (positive), in one unit.
    zeta
        The share at t = 0, in [0, 1].
    kind
        ``cosine``: ``zeta / 2 * (1 + cos(pi t / end))``, 0 from ``end`` on; ``constant``: ``zeta``.

    Raises
    ------
    ConfigError
        For an unknown ``kind``, ``zeta`` outside [0, 1] or ``end`` not positive.

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
