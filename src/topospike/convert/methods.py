"""The conversion methods by name, and what each of them means when nothing else is said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from topospike.convert.statistics import Granularity
from topospike.registry import Registry
from topospike.snn.neurons import IntegrateAndFire, MultiThreshold, Neuron


@dataclass(frozen=True)
class Method:
    """Defaults of one conversion method.

    Attributes
    ----------
    coding
        ``differential`` or ``rate``.
    neuron
        Builds the firing rule from the number of levels.
    levels
        Positive thresholds of a neuron; ``None`` for a single-threshold neuron.
    granularity
        How many thresholds a site has.
    source
        Who proposed it.
    """

    coding: str
    neuron: Callable[[int | None], Neuron]
    levels: int | None
    granularity: Granularity
    source: str


def multi_threshold(levels: int | None) -> Neuron:
    """Build the neuron of DCGS at a ReLU site."""
    return MultiThreshold(4 if levels is None else levels, gated=True)


def integrate_and_fire(levels: int | None) -> Neuron:
    """Build the neuron of the QCFS family; it has one threshold whatever ``levels`` says."""
    return IntegrateAndFire()


METHODS: Registry[Method] = Registry(
    "conversion method",
    {
        "dcgs": Method("differential", multi_threshold, 4, "channel", "Huang et al., ICML 2025"),
        "qcfs": Method("rate", integrate_and_fire, None, "layer", "Bu et al., ICLR 2022"),
        "cs-qcfs": Method(
            "rate", integrate_and_fire, None, "channel", "Yang et al., Neural Networks 2025"
        ),
    },
)
