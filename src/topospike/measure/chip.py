"""What a run on a simulated chip cost (``chip.json``); `topospike.export.chip` makes such runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from topospike.files.ranges import Amount, Count, Order


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
        As the chip counts them. Both equal ours; a difference is an error.
    neuron_updates : float
        Updates of a membrane.
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

    def text(self) -> str:
        """Return it as a table of a few lines."""
        total = self.energy_joule["total"]
        parts = ", ".join(
            f"{name} {joule * 1e6:.4g} uJ ({joule / total:.0%})"
            for name, joule in self.energy_joule.items()
            if name != "total" and total
        )
        return "\n".join(
            (
                f"{self.architecture}: {self.neurons} neurons, {self.links} links on {self.cores} "
                f"cores; {self.images} images, T = {self.timesteps}",
                f"energy an image  {total * 1e6:.4g} uJ: {parts}",
                f"latency          {self.seconds * 1e6:.4g} us, {self.chip_steps} steps "
                "(one more for each layer)",
                f"spikes           {self.spikes:.6g}, neuron updates {self.neuron_updates:.6g}",
                f"synaptic events  {self.synaptic_events:.6g}, equal to those counted here",
            )
        )
