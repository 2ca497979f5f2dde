"""The options of one conversion with every default filled in, for both kinds of site.

A ReLU site takes the place of a rectifier: thresholds from the optimal quantiser of its values,
one per channel. An operand site sits in front of a convolution, linear layer or product whose
operand is a graded number (transformers): thresholds from a quantile of its magnitude times a
scale, one per site, as the published settings for transformers do.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from topospike.conversion.methods import METHODS, Method
from topospike.conversion.statistics import Granularity, Values
from topospike.conversion.thresholds import SOLVERS, decodable_levels
from topospike.errors import ConfigError, ConversionError
from topospike.registry import suggestion
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.neurons import Identity, MultiThreshold, Neuron

SCHEMES = ("auto", "relu", "operand")
OPERAND_LEVELS = 8
OPERAND_SCALE = 4.0


@dataclass(frozen=True)
class SiteRule:
    """How sites of one kind fire and get their thresholds."""

    neuron: Neuron | None
    solver: str
    granularity: Granularity
    quantisation_levels: int
    scale: float
    values: Values
    signed: bool


@dataclass(frozen=True)
class Plan:
    """One conversion: coding, where sites go, and the rules of the two kinds of site."""

    method: Method
    presimulation: int
    scheme: str
    coding: Coding
    relu: SiteRule
    operand: SiteRule

    def rule(self, gated: bool) -> SiteRule:
        """Return the rule of a ReLU site (gated) or an operand site."""
        return self.relu if gated else self.operand


def plan_for(
    method: str,
    timesteps: int,
    *,
    scheme: str = "auto",
    coding: str | None = None,
    neuron: Neuron | None = None,
    levels: int | None = None,
    solver: str | None = None,
    granularity: Granularity | None = None,
    quantisation_levels: int | None = None,
    scale: float | None = None,
    stat: str = "absolute",
    presimulation: int | None = None,
) -> Plan:
    """Fill in what was left open with the method's defaults, and refuse unknown names early."""
    defaults = METHODS[method]
    if scheme not in SCHEMES:
        raise ConfigError(
            f"scheme is {scheme!r}. Known: {', '.join(SCHEMES)}.{suggestion(scheme, SCHEMES)}"
        )
    if presimulation is not None and not (defaults.presimulation and presimulation >= 1):
        using = ", ".join(name for name, known in METHODS.items() if known.presimulation)
        raise ConfigError(
            f"presimulation is {presimulation} for method {method!r}; it must be at least 1, and "
            f"only {using} have such steps."
        )
    if stat not in ("absolute", "signed"):
        raise ConfigError(f"stat is {stat!r}; 'absolute' or 'signed' is required.")
    if solver is not None:
        _ = SOLVERS[solver]  # an unknown name is refused before any image is read
    relu_levels = defaults.levels if levels is None else levels
    operand_levels = OPERAND_LEVELS if levels is None else levels
    relu = SiteRule(
        neuron=neuron_at(neuron or defaults.neuron(relu_levels), gated=True),
        solver=solver or "optimal",
        granularity=granularity or defaults.granularity,
        quantisation_levels=quantisation_levels or decodable_levels(timesteps, relu_levels),
        scale=1.0 if scale is None else scale,
        values="rectified",
        signed=False,
    )
    signed = neuron or (MultiThreshold(operand_levels, gated=False) if method == "dcgs" else None)
    operand = SiteRule(
        neuron=None if signed is None else neuron_at(signed, gated=False),
        solver=solver or "percentile",
        granularity=granularity or "layer",
        quantisation_levels=quantisation_levels or decodable_levels(timesteps, operand_levels),
        scale=OPERAND_SCALE if scale is None else scale,
        values="absolute" if stat == "absolute" else "signed",
        signed=True,
    )
    chosen = scheme
    if operand.neuron is None:
        if scheme == "operand":
            raise ConversionError(
                f"scheme 'operand' needs neurons with spikes of both signs; method {method!r} has "
                "none. Use method='dcgs'."
            )
        chosen = "relu"
    steps = presimulation or defaults.presimulation
    return Plan(defaults, steps, chosen, CODINGS[coding or defaults.coding], relu, operand)


def neuron_at(neuron: Neuron, *, gated: bool) -> Neuron | None:
    """Return the neuron as it must be at a ReLU site (gated) or an operand site.

    ``None`` for a neuron that cannot emit spikes of both signs freely.
    """
    if isinstance(neuron, MultiThreshold | Identity):
        return replace(neuron, gated=gated)
    return neuron if gated else None
