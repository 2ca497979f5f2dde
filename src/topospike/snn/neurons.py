"""Simulate: the firing rules Q, which turn a membrane potential into one signed graded spike.

A rule is a pure elementwise function s = Q(u): no state, no time, no coding. The running state of
a site lives in the engine, and `topospike.snn.coding` says how u is formed from decoded values and
how s changes them. One spike per neuron and step at most, reset by subtraction of s.

A staircase has no useful derivative: nothing here carries a gradient. Half precision states work,
but the tolerance of the gate (1e-6 theta) is then below their resolution.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.errors import ConfigError

GATE_TOLERANCE = 1e-6
"""Slack of the affordability gate, as a share of theta."""

MAX_LEVELS = 16
"""With more levels the smallest threshold would drown in the gate's slack."""

# Keeps sign and exponent of a float, clears its mantissa: rounds |q| down to a power of two.
EXPONENT_MASKS: dict[torch.dtype, tuple[torch.dtype, int]] = {
    torch.float64: (torch.int64, -(1 << 52)),
    torch.float32: (torch.int32, -(1 << 23)),
    torch.bfloat16: (torch.int16, -(1 << 7)),
    torch.float16: (torch.int16, -(1 << 10)),
}


class Neuron:
    """A firing rule. A frozen dataclass that derives from it may be used at any site.

    Attributes
    ----------
    name : str
        Short name for reports.
    levels : int
        Number of positive thresholds (0 for the identity).
    gated : bool
        Whether `fire` needs ``available``.
    initial_membrane : float
        Membrane before the first step, as a fraction of theta.
    """

    name: str
    levels: int
    gated: bool
    initial_membrane: float

    def fire(self, u: Tensor, theta: Tensor, available: Tensor | None = None) -> Tensor:
        """Return the spike value s = Q(u), of the shape of ``u``; ``theta`` broadcasts to it."""
        raise NotImplementedError(f"{self.name} has no firing rule")


def select_level(
    u: Float[Tensor, "*shape"],
    theta: Float[Tensor, "*#shape"],
    *,
    levels: int,
    available: Float[Tensor, "*#shape"] | None = None,
) -> Float[Tensor, "*shape"]:
    """Choose the spike of a multi-threshold neuron: the ladder value nearest to the membrane.

    Parameters
    ----------
    u
        Membrane potential, any shape.
    theta
        Largest threshold, broadcastable to ``u``. Where it is 0 or negative nothing is emitted.
    levels
        Number n of positive thresholds, 1 to 16; the ladder is ``theta / 2**i``, i = 0..n-1.
    available
        ``None`` for an identity site: both signs are free. Otherwise a ReLU site: the accumulated
        output, which a negative spike must not overdraw.

    Returns
    -------
    Tensor
        One of 0, ``+-theta / 2**i`` per element.

    Raises
    ------
    ConfigError
        If ``levels`` is outside 1..16 or ``u`` is not of a floating dtype.

    Notes
    -----
    Emits ``+-lambda_i`` with the smallest i such that ``|u| >= 0.75 lambda_i`` (a midpoint goes
    to the larger magnitude), and nothing below ``0.75 lambda_{n-1}``; at a ReLU site a negative
    spike also needs ``available >= lambda_i - 1e-6 theta``, and i is the smallest that satisfies
    both. Huang et al. (ICML 2025), closed form.

    With q = u / (0.75 theta) the answer is theta times the largest power of two not above |q|,
    which clearing the mantissa gives at once. A correctly rounded quotient of two floats is >= 2^-i
    exactly when the quotient is, so ties need no second comparison. The gate is monotone as well:
    clipping q at ``-available / theta`` before the rounding picks the largest level satisfying
    both conditions. The cost is five passes over the data (eight with the gate) whatever n is.

    The reference code compares the gate without a tolerance; such ties are systematic (the
    accumulated output and the ladder are both multiples of theta) and were left to rounding.
    A NaN membrane gives a non-finite spike, so that it does not stay hidden.

    Examples
    --------
    >>> u = torch.tensor([0.1, 0.375, 3.0, -0.8])
    >>> select_level(u, torch.tensor(1.0), levels=2)
    tensor([ 0.0000,  0.5000,  1.0000, -1.0000])
    >>> select_level(u, torch.tensor(1.0), levels=2, available=torch.tensor(0.5))
    tensor([ 0.0000,  0.5000,  1.0000, -0.5000])
    """
    check_levels(levels)
    if u.dtype not in EXPONENT_MASKS:
        known = ", ".join(str(dtype) for dtype in EXPONENT_MASKS)
        raise ConfigError(f"membrane has dtype {u.dtype}; it must be one of {known}.")
    u, theta = u.detach(), theta.detach().to(u.dtype)
    silent = theta <= 0
    q = u / (0.75 * theta).masked_fill_(silent, torch.inf)
    if available is None:
        q.clamp_(-1.0, 1.0)
    else:
        per_theta = (-1.0 / theta).masked_fill_(silent, 0.0)
        floor = (available.detach() * per_theta).sub_(GATE_TOLERANCE).clamp_(-1.0, 0.0)
        torch.clamp(q, floor, floor.new_ones(()), out=q)
    as_integer, mask = EXPONENT_MASKS[u.dtype]
    q.view(as_integer).bitwise_and_(mask)
    # Every value left is a signed power of two; those below the last level fall silent.
    torch.hardshrink(q, 0.75 * 2.0 ** (1 - levels), out=q)
    return q.mul_(theta)


def fire_if(
    u: Float[Tensor, "*shape"],
    theta: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """Fire a single-threshold neuron: theta where ``u >= theta``, else 0.

    Parameters
    ----------
    u
        Membrane potential, any shape.
    theta
        Threshold, broadcastable to ``u``.

    Notes
    -----
    The comparison is inclusive (Bu et al., ICLR 2022). A NaN membrane compares false and stays
    silent: check inputs before they reach a site.

    Examples
    --------
    >>> fire_if(torch.tensor([-1.0, 0.4, 0.5, 2.0]), torch.tensor(0.5))
    tensor([0.0000, 0.0000, 0.5000, 0.5000])
    """
    u, theta = u.detach(), theta.detach().to(u.dtype)
    # Comparing into a float tensor is several times faster than multiplying a bool one.
    return torch.ge(u, theta, out=torch.empty_like(u)).mul_(theta)


def fire_if_signed(
    u: Float[Tensor, "*shape"],
    theta: Float[Tensor, "*#shape"],
    *,
    available: Float[Tensor, "*#shape"],
) -> Float[Tensor, "*shape"]:
    """Fire a single-threshold neuron that may take back a spike it has emitted.

    Parameters
    ----------
    u, theta
        As in `fire_if`.
    available
        Accumulated output, of the shape of ``u``; a negative spike needs
        ``available >= theta - 1e-6 theta``.

    Notes
    -----
    +theta where ``u >= theta``; -theta where ``u <= 0`` and the gate is open; else 0. This is the
    single-threshold neuron of Huang et al. (ICML 2025). Hu et al. (TPAMI 2023) ask for a membrane
    slightly below zero (-1e-3) instead, which differs only on a set of measure zero.

    Examples
    --------
    >>> u = torch.tensor([1.2, 0.4, -0.1, -0.1])
    >>> fire_if_signed(u, torch.tensor(1.0), available=torch.tensor([0.0, 1.0, 1.0, 0.0]))
    tensor([ 1.,  0., -1.,  0.])
    """
    u, theta = u.detach(), theta.detach().to(u.dtype)
    taken_back = torch.le(u, 0.0, out=torch.empty_like(u))
    affordable = torch.ge(
        available.detach(), theta * (1.0 - GATE_TOLERANCE), out=torch.empty_like(u)
    )
    fired = torch.ge(u, theta, out=torch.empty_like(u))
    return fired.sub_(taken_back.mul_(affordable)).mul_(theta)


def check_levels(levels: int) -> None:
    """Raise `ConfigError` unless ``levels`` is a usable number of thresholds."""
    if not 1 <= levels <= MAX_LEVELS:
        raise ConfigError(
            f"levels is {levels}; a multi-threshold neuron needs 1 to {MAX_LEVELS} positive "
            "thresholds (4 is usual for convolutional networks, 8 for transformers)."
        )


@dataclass(frozen=True)
class MultiThreshold(Neuron):
    """Multi-threshold neuron of differential coding (Huang et al., ICML 2025); starts at rest.

    ``levels`` positive thresholds, as many negative ones; ``gated`` at a ReLU site, where negative
    spikes may only take back what was emitted, free at an identity site. ``schedule`` gives fewer
    levels to the first steps: ``(3, 5)`` 3 at t = 1, 5 at t = 2, all of them from then on.

    Examples
    --------
    >>> MultiThreshold(levels=2, gated=False).fire(torch.tensor([-0.4]), torch.tensor(1.0))
    tensor([-0.5000])
    """

    name = "multi-threshold"
    initial_membrane = 0.0

    levels: int
    gated: bool
    schedule: tuple[int, ...] = field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        for levels in (self.levels, *self.schedule):
            check_levels(levels)

    def fire(self, u: Tensor, theta: Tensor, available: Tensor | None = None) -> Tensor:
        """Apply `select_level`; ``available`` is read only when the neuron is gated."""
        budget = require_available(available, self.name) if self.gated else None
        return select_level(u, theta, levels=self.levels, available=budget)


def at_step(neuron: Neuron, t: int) -> Neuron:
    """Return the firing rule of step t: a neuron with a schedule has fewer levels at first."""
    if isinstance(neuron, MultiThreshold) and t <= len(neuron.schedule):
        return replace(neuron, levels=neuron.schedule[t - 1], schedule=())
    return neuron


@dataclass(frozen=True)
class IntegrateAndFire(Neuron):
    """Integrate-and-fire neuron of rate coding: positive spikes only.

    Starts at theta / 2, which centres the rounding error of the spike count; networks trained with
    another shift of the floor (SlipReLU) start elsewhere.
    """

    name = "integrate-and-fire"
    levels = 1
    gated = False

    initial_membrane: float = field(default=0.5, repr=False, kw_only=True)

    def fire(self, u: Tensor, theta: Tensor, available: Tensor | None = None) -> Tensor:
        """Apply `fire_if`; ``available`` is not read."""
        return fire_if(u, theta)


@dataclass(frozen=True)
class SignedIntegrateAndFire(Neuron):
    """Integrate-and-fire neuron that may take back its own spikes; starts at theta / 2."""

    name = "signed integrate-and-fire"
    levels = 1
    gated = True
    initial_membrane = 0.5

    def fire(self, u: Tensor, theta: Tensor, available: Tensor | None = None) -> Tensor:
        """Apply `fire_if_signed`."""
        budget = require_available(available, self.name)
        return fire_if_signed(u, theta, available=budget)


def largest_code(neuron: Neuron) -> tuple[int, bool]:
    """Return the largest spike in units of the smallest one, and whether spikes have signs.

    0 where spikes are no multiples of a smallest one.

    Examples
    --------
    >>> largest_code(MultiThreshold(3, gated=True)), largest_code(IntegrateAndFire())
    ((4, True), (1, False))
    """
    if isinstance(neuron, MultiThreshold):
        return 1 << (neuron.levels - 1), True
    if isinstance(neuron, IntegrateAndFire | SignedIntegrateAndFire):
        return 1, neuron.gated
    return 0, False


def tells_who_fired(neuron: Neuron) -> bool:
    """Tell whether the lowest 8 bits of a code say if it is 0, also where they cut it off."""
    return largest_code(neuron)[0] < 256


@dataclass(frozen=True)
class Uniform(Neuron):
    """Emits the nearest of the equally spaced values ``k theta / levels``, as one graded spike.

    ``k`` runs from 0 (``gated``, the place of a ReLU) or from ``-levels`` to ``levels``; a midpoint
    goes up. At a ReLU site this is the activation of QCFS (Bu et al., ICLR 2022).

    Examples
    --------
    >>> Uniform(4, gated=True).fire(torch.tensor([-1.0, 0.3, 0.4, 9.0]), torch.tensor(1.0))
    tensor([0.0000, 0.2500, 0.5000, 1.0000])
    """

    name = "uniform"
    initial_membrane = 0.0

    levels: int
    gated: bool = False

    def fire(self, u: Tensor, theta: Tensor, available: Tensor | None = None) -> Tensor:
        """Return the nearest value; 0 where ``theta`` is. ``available`` is not read."""
        unit = theta.detach().to(u.dtype) / self.levels
        return self.whole(u, theta).mul_(unit)

    def whole(self, u: Tensor, theta: Tensor) -> Tensor:
        """Return k."""
        unit = theta.detach().to(u.dtype) / self.levels
        k = (u.detach() / unit.masked_fill(unit <= 0, torch.inf)).add_(0.5).floor_()
        return k.clamp_(0 if self.gated else -self.levels, self.levels)


@dataclass(frozen=True)
class Identity(Neuron):
    """Emits its membrane unchanged: a network of these repeats the ANN exactly at every step.

    ``gated`` at a ReLU site: a negative spike then takes back no more than was emitted, and the
    decoded output is exactly ``max(r_in, 0)``.

    Examples
    --------
    >>> Identity(gated=True).fire(torch.tensor([-2.0, 3.0]), torch.empty(0), torch.tensor(0.5))
    tensor([-0.5000,  3.0000])
    """

    name = "identity"
    levels = 0
    initial_membrane = 0.0

    gated: bool = False

    def fire(self, u: Tensor, theta: Tensor, available: Tensor | None = None) -> Tensor:
        """Return ``u``, or at a ReLU site ``max(u, -available)``; ``theta`` is not read."""
        if self.gated:
            return torch.maximum(u, -require_available(available, self.name))
        return u


def require_available(available: Tensor | None, neuron: str) -> Tensor:
    """Return ``available``, or raise `ConfigError` when a gated neuron was not given it."""
    if available is None:
        raise ConfigError(
            f"{neuron} neuron is gated: fire() needs `available`, the accumulated output; "
            "compute it with Coding.available(t, r_out)."
        )
    return available
