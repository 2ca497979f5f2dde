"""What a run on a simulated chip cost (``chip.json``); `topospike.export.chip` makes such runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from topospike.files.ranges import Amount, Count, Order
from topospike.measure.energy import energy_model


@dataclass(frozen=True, slots=True)
class ChipRun:
    """One or several images on a simulated chip; everything is per image.

    Attributes
    ----------
    architecture : str
        Name of the chip, or the file that describes it.
    timesteps, chip_steps : int
        T of the network, and the steps the chip took: T + L - 1.
    images, cores, neurons, links : int
        What was shown, and what the network occupies.
    energy_joule : mapping of str to float
        By part (``synapse``, ``dendrite``, ``soma``, ``network``), and ``total``.
    seconds : float
        Simulated time from the first step to the last.
    spikes, synaptic_events : float
        As the chip counts them. Both equal ours but for ties; a difference is an error. Spikes of
        relays are among them.
    neuron_updates : float
        Updates of a membrane.
    events_beside_layers : float
        Of the synaptic events, those of shortcuts and of the relays in which their spikes wait;
        operations of the network here are the others.
    ties : tuple of str
        Where a membrane met its threshold to rounding and fell on the other side on the chip:
        image, population, neuron, step, distance in thresholds. Spikes that follow from it differ.
    part : str
        The module that was on the chip by itself; empty for the whole network.
    """

    architecture: str
    timesteps: Order
    chip_steps: Order
    images: Order
    cores: Order
    neurons: Count
    links: Count
    energy_joule: Mapping[str, Amount]
    seconds: Amount
    spikes: Amount
    synaptic_events: Amount
    neuron_updates: Amount
    ties: tuple[str, ...] = ()
    part: str = ""
    events_beside_layers: Amount = 0.0

    @property
    def operations_joule(self) -> float:
        """What a count of operations gives: events of layers at Loihi's price, nothing else."""
        events = self.synaptic_events - self.events_beside_layers
        return events * energy_model("loihi").ac_joule

    def text(self) -> str:
        """Return it as a table of a few lines."""
        total, beside = self.energy_joule["total"], self.events_beside_layers
        parts = ", ".join(
            f"{name} {joule * 1e6:.4g} uJ ({joule / total:.0%})"
            for name, joule in self.energy_joule.items()
            if name != "total" and total
        )
        part = f"{self.part} alone, " if self.part else ""
        return "\n".join(
            (
                f"{self.architecture}: {part}{self.neurons} neurons, {self.links} links on "
                f"{self.cores} cores; {self.images} images, T = {self.timesteps}",
                f"energy an image  {total * 1e6:.4g} uJ: {parts}",
                f"operations alone {self.operations_joule * 1e6:.4g} uJ at Loihi's price",
                f"latency          {self.seconds * 1e6:.4g} us, {self.chip_steps} steps "
                "(one more for each layer)",
                f"spikes           {self.spikes:.6g}, neuron updates {self.neuron_updates:.6g}",
                f"synaptic events  {self.synaptic_events:.6g}, "
                + (f"without {beside:.6g} of shortcuts and relays " if beside else "")
                + "equal to those counted here"
                + (" but for ties:" if self.ties else ""),
                *(f"  {tie}" for tie in self.ties),
            )
        )
