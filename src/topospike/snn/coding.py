"""Simulate: how decoded values and spikes drive each other, one time step at a time.

Every site keeps one number per neuron, the decoded output r_out: what the activation is believed
to be after t steps. Its input r_in is the ordinary ANN expression of the r_out of earlier sites.
A coding is two choices: its gain g at step t, and whether a spike corrects a held value or enters
a mean.

    held    u = g (r_in - r_out) + v0              s = Q(u)    r_out += s / g
    mean    u = g r_in - (g - 1) r_out + v0        s = Q(u)    r_out = ((g - 1) r_out + s) / g

Differential coding holds with g = t, sigma-delta coding with g = 1, rate coding is the mean with
g = t. This equals membrane dynamics on spike trains (r_in, r_out are the decoded input and
output), needs no bias handling and no time axis, and gives the outputs of all t in one run. The
arithmetic is pure; r_out starts at zero. t counts from 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.registry import Registry

if TYPE_CHECKING:
    from topospike.snn.neurons import Neuron
    from topospike.snn.site import Rule, Site


@dataclass(frozen=True, slots=True)
class SiteState:
    """What one site holds during a run, after a step: a value, which the next step consumes.

    Attributes
    ----------
    decoded : Tensor or None
        Decoded output r_out; ``None`` before the first step, when it is zero.
    spikes : Tensor or None
        The signed values emitted at the step, where they are recorded.
    fired : int or None
        How many neurons of the batch fired at the step, where a compiled loop has counted.
    extra
        What else the coding keeps.
    loop
        The compiled loop laid out for this state, if there is one.
    """

    decoded: Tensor | None = None
    spikes: Tensor | None = None
    fired: int | None = None
    extra: Any = None
    loop: Callable[..., int] | None = field(default=None, repr=False, compare=False)

    @property
    def events(self) -> int:
        """How many neurons of the batch fired at the step."""
        if self.fired is not None:
            return self.fired
        return 0 if self.spikes is None else int(self.spikes.count_nonzero())


@dataclass(frozen=True)
class Coding:
    """How spikes become values; see the module's formulas. Subclass it for one of your own.

    Attributes
    ----------
    name : str
        Name used in settings and reports.
    averages : bool
        Whether a spike enters a mean, which silence lets fall; else it corrects a held value.
    settles : bool
        Whether a constant input leaves every neuron silent in the end, for good.
    by_formula : bool
        Whether r_out[t] is `decode` of r_out[t-1] and the spikes at every t of a run.
    presimulation : int
        Steps that `presimulate` asks for before a run.
    """

    name: ClassVar[str]
    averages: ClassVar[bool] = False
    settles: ClassVar[bool] = False
    by_formula: ClassVar[bool] = True

    @property
    def presimulation(self) -> int:
        """See the class."""
        return 0

    @property
    def complete_at(self) -> int | None:
        """The step at which a layer has said all and the next may begin; ``None``: at no step."""
        return None

    def gain(self, t: int) -> float:
        """Return g at step t."""
        return t

    def drive(
        self,
        t: int,
        r_in: Float[Tensor, "*shape"],
        r_out: Float[Tensor, "*shape"],
        v0: Float[Tensor, "*#shape"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return the membrane u at step t from r_in[t], r_out[t-1] and the initial membrane."""
        g = self.gain(t)
        if self.averages:
            u = r_in * g
            u = u if g == 1 else u.sub_(r_out, alpha=g - 1)
        else:
            u = r_in - r_out
            u = u if g == 1 else u.mul_(g)
        return u if v0 is None else u.add_(v0)

    def decode(
        self, t: int, r_out: Float[Tensor, "*shape"], s: Float[Tensor, "*shape"]
    ) -> Float[Tensor, "*shape"]:
        """Return r_out[t] from r_out[t-1] and the spike of step t."""
        share = 1.0 / self.gain(t)
        return r_out.lerp(s, share) if self.averages else torch.add(r_out, s, alpha=share)

    def available(self, t: int, r_out: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Return the largest negative spike allowed at step t that keeps r_out[t] >= 0."""
        return r_out * (self.gain(t) - self.averages)

    def reach(self, t: int) -> float:
        """Return the largest value that can be decoded by step t, in units of theta."""
        return 1.0 if self.averages else sum(1.0 / self.gain(k) for k in range(1, t + 1))

    def silent_from(self, neuron: Neuron) -> float:
        """Return the first step whose silence lasts while the input stays; infinity: none."""
        return 1 if self.settles else math.inf

    def bits(self, neuron: Neuron) -> float:
        """Return what an event carries: log2 of the values it can have, of either sign.

        One where there is a single one, whose sign is known.
        """
        return math.log2(2 * max(neuron.levels, 1))

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take one step of a site; ``rule(t, r_in, state)`` is the step by the formulas."""
        return rule(t, r_in, state)

    def presimulate(self, site: Site, r_in: Tensor) -> tuple[Tensor, SiteState]:
        """Return decoded outputs and the state to start from, given those inputs beforehand.

        ``r_in`` holds `presimulation` steps one after the other along its first axis.
        """
        raise NotImplementedError(f"{self.name} coding needs no steps before a run")


@dataclass(frozen=True)
class Differential(Coding):
    """Differential coding: a spike corrects the decoded value, silence keeps it.

    Notes
    -----
    With e the encoded value, ``e[t] = r[t-1] + s[t]`` and ``r[t] = mean(e[1..t])``, so that
    ``r[t] = r[t-1] + s[t] / t`` (Huang et al., ICML 2025). The largest value that can be reached
    is theta (1 + 1/2 + ... + 1/T). The reference code runs an extra zero-input frame to learn the
    constant part of every tensor; in decoded values no such frame is needed.

    Examples
    --------
    A constant input that is one spike high is exact after the first step and silent from then on.

    >>> coding, r_in, r_out = Differential(), torch.tensor(0.5), torch.tensor(0.0)
    >>> r_out = coding.decode(1, r_out, coding.drive(1, r_in, r_out))
    >>> coding.drive(2, r_in, r_out)
    tensor(0.)
    """

    name = "differential"


@dataclass(frozen=True)
class Rate(Coding):
    """Rate coding: the decoded value is the mean of the spikes so far.

    Examples
    --------
    A constant input that is one spike high needs that spike at every step.

    >>> coding, r_in, r_out = Rate(), torch.tensor(0.5), torch.tensor(0.0)
    >>> r_out = coding.decode(1, r_out, coding.drive(1, r_in, r_out))
    >>> coding.drive(2, r_in, r_out)
    tensor(0.5000)
    """

    name = "rate"
    averages = True


@dataclass(frozen=True)
class SigmaDelta(Coding):
    """Sigma-delta coding: a spike corrects the decoded value by its whole size, at any step.

    Notes
    -----
    ``u = r_in - r_out``, ``r_out += s``: an integrate-and-fire neuron with reset by subtraction,
    without a division by t. With multi-threshold neurons an error below 1.5 theta shrinks to a
    third a step, down to 0.75 of the lowest threshold, below which a neuron is silent. Once no
    neuron fires, none fires again while the input stays.

    Examples
    --------
    >>> coding, r_in, r_out = SigmaDelta(), torch.tensor(0.75), torch.tensor(0.5)
    >>> u = coding.drive(7, r_in, r_out)
    >>> u, coding.decode(7, r_out, u)
    (tensor(0.2500), tensor(0.7500))
    """

    name = "sigma-delta"
    settles = True

    def gain(self, t: int) -> float:
        """Return 1."""
        return 1

    def silent_from(self, neuron: Neuron) -> float:
        """Return the first step with all levels: coarse ones before may say nothing yet."""
        return 1 + len(getattr(neuron, "schedule", ()))


CODINGS: Registry[Coding] = Registry(
    "coding", {coding.name: coding for coding in (Differential(), Rate(), SigmaDelta())}
)
"""The codings by their names in settings."""
