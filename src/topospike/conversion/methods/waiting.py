"""Convert: the methods whose layers wait for the whole answer of the layer before.

Their codings are in `topospike.conversion.methods.layer_by_layer`: ``parallel``, ``phase``,
``one-spike`` and ``graded`` differ in how a whole number is sent, and in how many a neuron can tell
apart.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from topospike.conversion.methods.layer_by_layer import (
    MOST_DIGITS,
    Graded,
    LayerByLayer,
    OneSpike,
    Parallel,
    Phase,
)
from topospike.conversion.methods.method import Method, ThresholdRule, whole, yes_or_no
from topospike.conversion.methods.shifts import IMAGES, ShiftedSite, fit_shifts
from topospike.snn.coding import Coding
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron, Uniform
from topospike.snn.site import Site
from topospike.thresholds.statistics import Granularity


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
        Fit a shift and a scale of every channel, layer by layer
        (`topospike.conversion.methods.shifts`).

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
