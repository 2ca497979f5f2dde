"""Convert: neurons with several thresholds, whose spikes are graded: DCGS."""

from __future__ import annotations

from dataclasses import dataclass, replace

from topospike.conversion.methods.method import (
    Method,
    ThresholdRule,
    firing_rule,
    one_of,
    whole,
)
from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.neurons import (
    MAX_LEVELS,
    Identity,
    MultiThreshold,
    Neuron,
)
from topospike.thresholds.statistics import Granularity

SCHEMES = Registry("scheme", dict.fromkeys(("auto", "relu", "operand")))
STATS = Registry("stat", dict.fromkeys(("absolute", "signed")))


@dataclass(frozen=True, kw_only=True)
class GradedMethod(Method):
    """Multi-threshold neurons, whose spikes are graded; no training. What such methods share.

    At a ReLU site there is one threshold a channel. An operand site, in front of a layer that would
    be fed graded numbers (transformers), takes a quantile of the magnitude times 4, one a site, as
    the published settings for transformers do. ``None`` stands for these.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    scheme : {"auto", "relu", "operand"}
        Where sites go: in the place of every rectifier (``relu``), in front of every operand of a
        convolution, linear layer or product (``operand``), or rectifiers first and operands where
        a layer would still be fed graded numbers (``auto``).
    levels
        Positive thresholds of a neuron (4; 8 at operand sites).
    stat : {"absolute", "signed"}
        Whether thresholds of operand sites follow the magnitude of the values, or, as the reference
        code of DCGS does, their signed value (which leaves units that are mostly negative silent).
    """

    ranges = Method.ranges | {
        "scheme": one_of(SCHEMES),
        "levels": whole(1, MAX_LEVELS),
        "stat": one_of(STATS),
    }

    solver: str | None = None
    granularity: Granularity | None = None
    scale: float | None = None
    scheme: str = "auto"
    levels: int | None = None
    stat: str = "absolute"

    @property
    def scheme_of_sites(self) -> str:
        """Where sites go; neurons of one sign can sit in the place of rectifiers only."""
        if self.site_neuron(gated=False) is not None:
            return self.scheme
        if self.scheme == "operand":
            _ = self.neuron_of("every operand", False)
        return "relu"

    def site_neuron(self, gated: bool) -> Neuron | None:
        """Return the firing rule."""
        return MultiThreshold(self.levels or (4 if gated else 8), gated=gated)

    def threshold_rule(self, timesteps: int, *, gated: bool) -> ThresholdRule:
        """Return how a ReLU site (gated) or an operand site gets its threshold."""
        rule = super().threshold_rule(timesteps, gated=gated)
        if gated:
            return replace(rule, granularity=self.granularity or "channel")
        return replace(
            rule,
            solver=self.solver or "percentile",
            scale=4.0 if self.scale is None else self.scale,
            values="absolute" if self.stat == "absolute" else "signed",
            signed=True,
        )


@dataclass(frozen=True, kw_only=True)
class DCGSMethod(GradedMethod):
    """Differential coding with graded spikes; thresholds from the optimal quantiser.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale, scheme, levels, stat
        As in `GradedMethod`.
    coding : {"differential", "rate", "sigma-delta"}
    neuron
        Firing rule of every site (see `topospike.snn.neurons`), in the place of multi-threshold
        neurons with ``levels`` positive thresholds.
    """

    name = "dcgs"
    source = "Huang et al., ICML 2025"

    ranges = GradedMethod.ranges | {"coding": one_of(CODINGS), "neuron": firing_rule}

    coding: str = "differential"
    neuron: Neuron | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neuron is not None and self.levels not in (None, self.neuron.levels):
            raise ConfigError(
                f"levels is {self.levels}, but the {self.neuron.name} neurons given have "
                f"{self.neuron.levels}; give one of the two options."
            )

    def site_coding(self) -> Coding:
        """Return how spikes become values."""
        return CODINGS[self.coding]

    def site_neuron(self, gated: bool) -> Neuron | None:
        """Return the firing rule; ``None`` at operand sites if it is bound to one sign."""
        if self.neuron is None:
            return super().site_neuron(gated)
        if isinstance(self.neuron, MultiThreshold | Identity):
            return replace(self.neuron, gated=gated)
        return self.neuron if gated else None
