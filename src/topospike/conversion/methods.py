"""The conversion methods by name, and what each of them means when nothing else is said.

All methods of the QCFS family decode the mean of integrate-and-fire spikes; they differ in how the
thresholds came about and in what is done against uneven spike trains:

``qcfs``, ``cs-qcfs``   one threshold a layer, or one a channel; calibrated on a ReLU network or
                        learnt with quantised activations
``slip-relu``           the same neuron, for networks trained with SlipReLU
``signed-if``           a neuron may take back spikes it has emitted (needs no training)
``srp``                 silences neurons that fired too often in a first phase
``offset-spike``        starts each neuron's membrane where its spike count is right
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from topospike.conversion.offset_spikes import OffsetSpike
from topospike.conversion.qcfs import QCFS
from topospike.conversion.residual_membrane import ResidualMembrane
from topospike.conversion.slip_relu import SlipReLU
from topospike.conversion.statistics import Granularity
from topospike.registry import Registry
from topospike.snn.coding import Coding
from topospike.snn.neurons import IntegrateAndFire, MultiThreshold, Neuron, SignedIntegrateAndFire
from topospike.snn.site import Site

SiteBuilder = Callable[[str, bool, Neuron, Coding, int], Site]


def plain_site(name: str, gated: bool, neuron: Neuron, coding: Coding, presimulation: int) -> Site:
    """Build the site of a method without presimulation."""
    return Site(name, gated=gated, neuron=neuron, coding=coding)


def residual_membrane_site(
    name: str, gated: bool, neuron: Neuron, coding: Coding, presimulation: int
) -> Site:
    """Build the site of SRP."""
    return Site(name, gated=gated, neuron=neuron, coding=ResidualMembrane(presimulation))


def offset_spike_site(
    name: str, gated: bool, neuron: Neuron, coding: Coding, presimulation: int
) -> Site:
    """Build the site of offset-spike calibration."""
    return Site(name, gated=gated, neuron=neuron, coding=OffsetSpike(presimulation))


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
    activations
        Kind of `topospike.conversion.quantise_activations` whose training the method makes use of.
    requires
        The activation the network must have been trained with; ``None``: a ReLU network will do.
    site
        Builds a site from its name, whether it is gated, neuron, coding and presimulation steps.
    presimulation
        Steps simulated before, or in front of, the run proper; 0 for methods without.
    remark
        What a reader of the results must know about those steps (``{}`` is their number).
    """

    coding: str
    neuron: Callable[[int | None], Neuron]
    levels: int | None
    granularity: Granularity
    source: str
    activations: str | None = None
    requires: type[QCFS] | None = None
    site: SiteBuilder = plain_site
    presimulation: int = 0
    remark: str = ""


def multi_threshold(levels: int | None) -> Neuron:
    """Build the neuron of DCGS at a ReLU site."""
    return MultiThreshold(4 if levels is None else levels, gated=True)


def integrate_and_fire(levels: int | None) -> Neuron:
    """Build the neuron of the QCFS family; it has one threshold whatever ``levels`` says."""
    return IntegrateAndFire()


def signed_integrate_and_fire(levels: int | None) -> Neuron:
    """Build the neuron that may take back its spikes; one threshold whatever ``levels`` says."""
    return SignedIntegrateAndFire()


METHODS: Registry[Method] = Registry(
    "conversion method",
    {
        "dcgs": Method("differential", multi_threshold, 4, "channel", "Huang et al., ICML 2025"),
        "qcfs": Method("rate", integrate_and_fire, None, "layer", "Bu et al., ICLR 2022", "s-qcfs"),
        "cs-qcfs": Method(
            "rate",
            integrate_and_fire,
            None,
            "channel",
            "Yang et al., Neural Networks 2025",
            "cs-qcfs",
        ),
        "slip-relu": Method(
            "rate",
            integrate_and_fire,
            None,
            "layer",
            "Jiang et al., ICML 2023",
            "slip-relu",
            requires=SlipReLU,
        ),
        "signed-if": Method(
            "rate", signed_integrate_and_fire, None, "layer", "Hu et al., TPAMI 2023", "s-qcfs"
        ),
        "srp": Method(
            "rate",
            integrate_and_fire,
            None,
            "layer",
            "Hao et al., AAAI 2023",
            "s-qcfs",
            requires=QCFS,
            site=residual_membrane_site,
            presimulation=4,
            remark=(
                "Time steps 1 to {0} are the first phase of srp; later ones count both phases, so "
                "the published T is t - {0}."
            ),
        ),
        "offset-spike": Method(
            "rate",
            integrate_and_fire,
            None,
            "layer",
            "Hao et al., ICLR 2023",
            "s-qcfs",
            requires=QCFS,
            site=offset_spike_site,
            presimulation=4,
            remark=(
                "The calibration before each batch is not in the time steps and operations: add "
                "those of steps 1 to {0} once more to count it."
            ),
        ),
    },
)
