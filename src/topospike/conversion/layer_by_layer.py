r"""Convert: methods whose layers wait for the whole answer of the layer before.

With all of its input there, a neuron knows at once the whole number :math:`k` that its activation
is nearest to, and may send it in any order. Four ways, each in T steps:

``parallel``   k spikes, sorted to the end of the train (Hao et al., ICML 2025)
``phase``      the binary digits of k, the largest first (Kim et al. 2018; LAS, AAAI 2026)
``one-spike``  one spike, the earlier the larger k (Stanojevic et al. 2024; TTFSFormer, ICML 2025)
``graded``     one spike of size k at the first step (SFN 2025)

The error of uneven spike trains is gone: what is left is rounding. The price is latency, T steps
a layer, and that no answer comes before the last of them: what a network says at t < T are the
parts of its answer sent so far.

In decoded values the waiting is one evaluation of the network with every activation rounded; the T
steps then send what was found.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from topospike.conversion.method import METHODS, Method, ThresholdRule, whole, yes_or_no
from topospike.conversion.shifts import IMAGES, ShiftedSite, fit_shifts
from topospike.errors import ConfigError
from topospike.snn.coding import Coding, SiteState
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron, Uniform
from topospike.snn.site import Rule, Site
from topospike.thresholds.statistics import Granularity

MOST_DIGITS = 15
"""Binary digits that a float32 holds with room to spare."""


@dataclass(frozen=True)
class LayerByLayer(Coding):
    """Sends, in ``steps`` steps, whole numbers known before the first. Subclass: `part`.

    Parameters
    ----------
    steps
        T.

    Notes
    -----
    ``state.extra`` holds k; a decoded value is the sum of what was sent, in units of theta / levels
    of the site's `Uniform` neuron.
    """

    by_formula = False
    steps: int = 8

    @property
    def presimulation(self) -> int:
        """Return 1: one evaluation of the network finds every k."""
        return 1

    @property
    def complete_at(self) -> int:
        """Return T."""
        return self.steps

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return what is sent of k at step t = 1..steps; the parts of all steps add up to k."""
        raise NotImplementedError(f"{self.name} does not say what it sends")

    def silent_from(self, neuron: Neuron) -> float:
        """Return the step after the last part."""
        return self.steps + 1

    def bits(self, neuron: Neuron) -> float:
        """Return 1: time tells what a spike is worth."""
        return 1.0

    def presimulate(self, site: Site, r_in: Tensor) -> tuple[Tensor, SiteState]:
        """Round the activation, which is what later layers wait for."""
        seen = r_in + site.shift if isinstance(site, ShiftedSite) else r_in
        k = uniform(site).whole(seen, site.threshold)
        return k * unit_of(site, r_in), SiteState(extra=k)

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Send the part of step t."""
        decoded = torch.zeros_like(r_in) if state.decoded is None else state.decoded
        if t > self.steps:
            return SiteState(decoded, torch.zeros_like(r_in), None, state.extra)
        spikes = self.part(t, state.extra) * unit_of(rule.site, r_in)
        return SiteState(decoded + spikes, spikes, None, state.extra)


def uniform(site: Site) -> Uniform:
    """Return a site's neuron, which must have equally spaced values."""
    if not isinstance(site.neuron, Uniform):
        raise ConfigError(
            f"site {site.name} holds {site.neuron.name} neurons; {site.coding.name} coding needs "
            "Uniform ones."
        )
    return site.neuron


def unit_of(site: Site, like: Tensor) -> Tensor:
    """Return the value of k = 1."""
    unit = site.threshold.to(like.dtype) / uniform(site).levels
    return unit * site.scale if isinstance(site, ShiftedSite) else unit


class Parallel(LayerByLayer):
    """k spikes at the last k steps.

    Notes
    -----
    A spike at step x iff k >= T - x + 1 (Hao et al., ICML 2025).

    Examples
    --------
    >>> torch.stack([Parallel(3).part(t, torch.tensor([0.0, 1.0, 3.0])) for t in (1, 2, 3)])
    tensor([[0., 0., 1.],
            [0., 0., 1.],
            [0., 1., 1.]])
    """

    name = "parallel"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return 1 at the last k steps."""
        return torch.ge(k, self.steps - t + 1, out=torch.empty_like(k))


class Phase(LayerByLayer):
    """The binary digits of k, the largest first, all with its sign.

    Examples
    --------
    >>> torch.stack([Phase(3).part(t, torch.tensor([5.0, -7.0])) for t in (1, 2, 3)])
    tensor([[ 4., -4.],
            [ 0., -2.],
            [ 1., -1.]])
    """

    name = "phase"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return the digit of step t with its place value."""
        value = 2.0 ** (self.steps - t)
        return k.abs().div_(value).floor_().remainder_(2.0).mul_(value).mul_(k.sign())


class OneSpike(LayerByLayer):
    """One spike that stands for all of k, at the step that says how much it is.

    Notes
    -----
    At step T - |k| + 1, none for k = 0: no way to send values by spikes needs fewer events.

    Examples
    --------
    >>> torch.stack([OneSpike(3).part(t, torch.tensor([0.0, 2.0, -3.0])) for t in (1, 2, 3)])
    tensor([[ 0.,  0., -3.],
            [ 0.,  2.,  0.],
            [ 0.,  0.,  0.]])
    """

    name = "one-spike"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return k at its step."""
        return torch.where(k.abs() == self.steps - t + 1, k, 0.0)


class Graded(LayerByLayer):
    """One graded spike of size k, at the first step.

    Examples
    --------
    >>> Graded(1).part(1, torch.tensor([3.0])).item()
    3.0
    """

    name = "graded"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return k."""
        return k

    def bits(self, neuron: Neuron) -> float:
        """Return log2 of the values an event can have."""
        return super(LayerByLayer, self).bits(neuron) - (1.0 if neuron.gated else 0.0)


@dataclass(frozen=True, kw_only=True)
class LayerByLayerMethod(Method):
    """What the methods whose layers wait for one another share; no training.

    Thresholds are the optimum of a quantiser with the levels that the method can tell apart, one a
    channel at ReLU sites, one a site in front of operands; a network trained with quantised
    activations brings its own.
    """

    exports = frozenset({"csr"})
    beyond = "layers that wait for the whole answer of the layer before"

    granularity: Granularity | None = None
    signed: ClassVar[bool] = True

    @property
    def scheme_of_sites(self) -> str:
        """Rectifiers first, then operands, if spikes of both signs can be sent."""
        return "auto" if self.signed else "relu"

    @property
    def values(self) -> int:
        """Return how many positive values a neuron can tell."""
        raise NotImplementedError(f"{self.name} does not say how many values it tells apart")

    def site_neuron(self, gated: bool) -> Neuron | None:
        """Return the rounding of a site; ``None`` for both signs where they cannot be sent."""
        return Uniform(self.values, gated=gated) if gated or self.signed else None

    def threshold_rule(self, timesteps: int, *, gated: bool) -> ThresholdRule:
        """Return how a site gets its threshold; the length of a run does not matter."""
        return ThresholdRule(
            solver=self.solver or "optimal",
            granularity=self.granularity or ("channel" if gated else "layer"),
            quantisation_levels=self.quantisation_levels or self.values,
            scale=1.0 if self.scale is None else self.scale,
            percentile=self.percentile,
            values="rectified" if gated else "signed",
            signed=not gated,
        )

    def latency(self, steps: int) -> str:
        """Say how late the answer comes."""
        return (
            f"Every layer waits for all {steps} steps of the one before: there is no answer before "
            f"t = {steps}, and on a chip it comes after {steps} steps for each layer on the way."
        )


@dataclass(frozen=True, kw_only=True)
class TimedMethod(LayerByLayerMethod):
    """Those of them that spread a number over T steps.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    steps
        T: a run of another length is cut off, or has nothing more to say.
    """

    ranges = LayerByLayerMethod.ranges | {"steps": whole(1)}
    coding: ClassVar[type[LayerByLayer]]
    longest: ClassVar[float] = math.inf

    steps: int = 8

    @property
    def values(self) -> int:
        """Return T."""
        return self.steps

    def site_coding(self) -> Coding:
        """Return how numbers are spread over the steps."""
        return self.coding(self.steps)

    def remark(self) -> str:
        """Say how late the answer comes."""
        return self.latency(self.steps)


@dataclass(frozen=True, kw_only=True)
class ParallelMethod(TimedMethod):
    """Spike counts found at once and sent sorted: rate coding without uneven trains.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale, steps
        As in `TimedMethod`.
    calibrated
        Fit a shift and a scale of every channel, layer by layer (`topospike.conversion.shifts`).

    Notes
    -----
    k = clip(floor(T (r + psi) / theta + 1/2), 0, T), sent as k phi theta / T; psi = 0 and phi = 1
    without calibration, and in a network trained with QCFS of L levels, of which T = L steps lose
    nothing.
    """

    name = "parallel"
    source = "Hao et al., ICML 2025"
    activations = "s-qcfs"
    coding = Parallel
    signed = False
    ranges = TimedMethod.ranges | {"calibrated": yes_or_no}

    calibrated: bool = True

    def site(self, name: str, gated: bool) -> Site:
        """Build one site, with room for its shift and scale."""
        neuron, coding = self.neuron_of(name, gated), self.site_coding()
        return ShiftedSite(name, gated=gated, neuron=neuron, coding=coding)

    def finish(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> SpikingNetwork:
        """Fit shifts and scales on the first calibration batch."""
        if self.calibrated:
            fit_shifts(snn, tuple(tensor[:IMAGES] for tensor in images))
        return snn


@dataclass(frozen=True, kw_only=True)
class PhaseMethod(TimedMethod):
    """Binary digits: T steps tell 2^T - 1 positive values apart.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    steps
        T, digits of a value.

    Notes
    -----
    The reference cuts digits off at theta / 2^T; here the value nearest to the activation is sent,
    and the largest one is theta itself.
    """

    name = "phase"
    source = "Kim et al., 2018; LAS, AAAI 2026"
    coding = Phase
    longest = MOST_DIGITS
    ranges = TimedMethod.ranges | {"steps": whole(1, MOST_DIGITS)}

    @property
    def values(self) -> int:
        """Return 2^T - 1."""
        return 2**self.steps - 1


@dataclass(frozen=True, kw_only=True)
class OneSpikeMethod(TimedMethod):
    """One spike a neuron, whose time is the value: the fewest events values can be sent by.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    steps
        T, moments a spike can come at; a value is told apart from T - 1 others.
    """

    name = "one-spike"
    source = "Stanojevic et al., 2024; TTFSFormer, ICML 2025"
    coding = OneSpike

    steps: int = 32


@dataclass(frozen=True, kw_only=True)
class GradedStepMethod(LayerByLayerMethod):
    """One graded spike a neuron, in one step.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    levels
        Positive values an event can have, equally spaced up to the threshold.

    Notes
    -----
    An event counts as one accumulate, as everywhere here. It carries log2 of its values in bits;
    a chip without graded spikes pays as many accumulates, one with multipliers a MAC
    (`topospike reproduce methods` prints the energy by bits).
    """

    name = "graded"
    source = "SFN, 2025 (arXiv 2510.23383)"

    ranges = LayerByLayerMethod.ranges | {"levels": whole(1, 2**MOST_DIGITS)}

    levels: int = 16

    @property
    def values(self) -> int:
        """Return the levels."""
        return self.levels

    def site_coding(self) -> Coding:
        """Return coding by one graded spike."""
        return Graded(1)

    def remark(self) -> str:
        """Say that one step is all."""
        return (
            "One step is the whole answer; on a chip it comes after a step for each layer on the "
            "way."
        )


for kind in (ParallelMethod, PhaseMethod, OneSpikeMethod, GradedStepMethod):
    METHODS.register(kind.name, kind)
