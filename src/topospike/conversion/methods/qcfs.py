"""Convert: the QCFS family.

All methods of the QCFS family decode the mean of integrate-and-fire spikes; they differ in how the
thresholds came about and in what is done against uneven spike trains.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from topospike.conversion.methods.method import (
    Method,
    whole,
)
from topospike.conversion.methods.uneven_spikes import OffsetSpike, ResidualMembrane
from topospike.errors import ConfigError, ConversionError
from topospike.models.qcfs import QCFS, SlipReLU
from topospike.snn.coding import Coding
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import (
    Neuron,
    SignedIntegrateAndFire,
)
from topospike.thresholds.statistics import Granularity


@dataclass(frozen=True, kw_only=True)
class QCFSMethod(Method):
    """Integrate-and-fire neurons, one threshold a layer.

    Calibrated on a ReLU network, or learnt with quantised activations.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    readout_delay
        Steps whose outputs the answer leaves out (`topospike.snn.records`); those steps have none.
    """

    name = "qcfs"
    source = "Bu et al., ICLR 2022"
    activations = "s-qcfs"
    ranges = Method.ranges | {"readout_delay": whole(0)}

    readout_delay: int | None = 0

    def finish(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> SpikingNetwork:
        """Let the answer be read out when it is asked for."""
        snn.report = replace(snn.report, readout_delay=self.readout_delay or 0)
        return snn


@dataclass(frozen=True, kw_only=True)
class CSQCFSMethod(QCFSMethod):
    """Integrate-and-fire neurons, one threshold a channel."""

    name = "cs-qcfs"
    source = "Yang et al., Neural Networks 2025"
    activations = "cs-qcfs"

    granularity: Granularity | None = "channel"


@dataclass(frozen=True, kw_only=True)
class SlipReLUMethod(QCFSMethod):
    """Integrate-and-fire neurons in a network trained with SlipReLU, started where it says."""

    name = "slip-relu"
    source = "Jiang et al., ICML 2023"
    activations = "slip-relu"
    requires = SlipReLU


@dataclass(frozen=True, kw_only=True)
class SignedIFMethod(QCFSMethod):
    """Neurons that may take back spikes they have emitted; needs no training."""

    name = "signed-if"
    source = "Hu et al., TPAMI 2023"

    def site_neuron(self, gated: bool) -> Neuron | None:
        """Return the signed integrate-and-fire neuron."""
        return SignedIntegrateAndFire() if gated else None


@dataclass(frozen=True, kw_only=True)
class PresimulatedMethod(QCFSMethod):
    """What looks at some steps beforehand: the runs are more than neurons that fire."""

    requires = QCFS
    exports = frozenset({"csr"})
    ranges = QCFSMethod.ranges | {"presimulation": whole(1)}

    presimulation: int = 4


def no_delay(name: str, value: Any) -> None:
    """Check that an option is 0."""
    if value != 0:
        raise ConfigError(
            f"{name} is {value!r}; method 'srp' starts its means anew after the first phase, so no "
            "outputs are left out later. Choose presimulation instead."
        )


@dataclass(frozen=True, kw_only=True)
class SRPMethod(PresimulatedMethod):
    """Silences neurons that fired too often in a first phase.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    presimulation
        tau, steps of the first phase; the network's time steps count both phases.
    """

    name = "srp"
    source = "Hao et al., AAAI 2023"
    beyond = "two phases, between which neurons are silenced and means start anew"
    ranges = PresimulatedMethod.ranges | {"readout_delay": no_delay}

    def site_coding(self) -> Coding:
        """Return rate coding in two phases."""
        return ResidualMembrane(self.presimulation)

    def finish(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> SpikingNetwork:
        """Refuse a max-pool that changes in time.

        What arrives there is counted from changes of the decoded mean; phase 2 starts that anew.
        """
        for layer in snn.report.layers:
            if layer.input == "maxpool":
                raise ConversionError(
                    f"{layer.name} is fed through a max-pool ({layer.reason}), whose events cannot "
                    "be counted over the two phases of srp. Use average pools, or method='qcfs'."
                )
        return snn

    def remark(self) -> str:
        """Say how its steps compare with published ones."""
        return (
            f"Time steps 1 to {self.presimulation} are the first phase of srp; later ones count "
            f"both phases, so the published T is t - {self.presimulation}."
        )


@dataclass(frozen=True, kw_only=True)
class OffsetSpikeMethod(PresimulatedMethod):
    """Starts each neuron's membrane where its spike count is right, batch by batch.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`.
    presimulation
        rho, steps of the calibration, done before the time steps.
    """

    name = "offset-spike"
    source = "Hao et al., ICLR 2023"
    beyond = "a membrane to start from for each neuron and image, found in a first simulation"

    def site_coding(self) -> Coding:
        """Return rate coding from a membrane of its own for each neuron."""
        return OffsetSpike(self.presimulation)

    def remark(self) -> str:
        """Say what the counts leave out."""
        return (
            "The calibration before each batch is not in the time steps and operations: add those "
            f"of steps 1 to {self.presimulation} once more to count it."
        )
