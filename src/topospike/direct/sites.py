"""Stage direct: a population of a trained network as a site of the simulation engine.

Its coding passes on the spikes of the step as they are. The membrane is the site's own state,
forgotten with the run; `topospike.direct.neurons` has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.direct.neurons import SpikingNeuron, after_reset, charge, fires
from topospike.recipe import NeuronSettings
from topospike.snn.site import Site


@dataclass(frozen=True, slots=True)
class SpikeCoding:
    """The value of a step is its spike: nothing is averaged, nothing is kept.

    Examples
    --------
    >>> SPIKES.decode(5, torch.tensor(0.25), torch.tensor(1.0))
    tensor(1.)
    """

    @property
    def name(self) -> str:
        """Name used in reports, and by the counter of operations."""
        return "spikes"

    def drive(
        self,
        t: int,
        r_in: Float[Tensor, "*shape"],
        r_out: Float[Tensor, "*shape"],
        v0: Float[Tensor, "*#shape"] | None = None,
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return the input as it is; integrating it is the membrane's business."""
        return r_in if out is None else out.copy_(r_in)

    def decode(
        self,
        t: int,
        r_out: Float[Tensor, "*shape"],
        s: Float[Tensor, "*shape"],
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return the spike."""
        return s if out is None else out.copy_(s)

    def available(
        self, t: int, r_out: Float[Tensor, "*shape"], *, out: Tensor | None = None
    ) -> Float[Tensor, "*shape"]:
        """Return 0: no spike is ever taken back."""
        return torch.zeros_like(r_out) if out is None else out.zero_()


SPIKES = SpikeCoding()


@dataclass(frozen=True)
class Population:
    """What reports say of a site's neurons; `MembraneSite` keeps their state itself."""

    settings: NeuronSettings
    levels: int = field(default=1, init=False)
    gated: bool = field(default=False, init=False)
    initial_membrane: float = field(default=0.0, init=False)

    @property
    def name(self) -> str:
        """Kind of neuron."""
        return self.settings.kind

    def fire(
        self,
        u: Float[Tensor, "*shape"],
        theta: Float[Tensor, "*#shape"],
        available: Float[Tensor, "*#shape"] | None = None,
        *,
        out: Tensor | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Return 1 where the membrane fires; the threshold is the settings' own."""
        fired = fires(u, self.settings).to(u.dtype)
        return fired if out is None else out.copy_(fired)


class MembraneSite(Site):
    """A site whose neurons keep a membrane from step to step and pass on their spikes.

    Parameters
    ----------
    name
        Where it sits.
    neuron
        The trained population; its leak and threshold are copied.
    """

    gain: Tensor | None

    def __init__(self, name: str, neuron: SpikingNeuron) -> None:
        super().__init__(name, gated=False, neuron=Population(neuron.settings), coding=SPIKES)
        self.settings = neuron.settings
        self.threshold = neuron.width.new_tensor(neuron.settings.threshold)
        self.register_buffer("gain", None if neuron.gain is None else neuron.gain.detach().clone())

    def reset(self) -> None:
        """Forget the run: membranes are at rest again."""
        super().reset()
        self.membrane: Tensor | None = None

    def forward(self, r_in: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Take one step; at time step 0, where only shapes matter, one step from rest."""
        before = self.membrane if self.time_step else None
        m = charge(r_in, before, self.settings, self.gain)
        fired = fires(m, self.settings)
        spikes = fired.to(r_in.dtype)
        if self.time_step:
            self.membrane = after_reset(m, fired, self.settings)
            self.spikes = self.decoded = spikes
        return spikes


class MeanSite(Site):
    """Passes on the mean of what has reached it so far: the answer of the network."""

    def __init__(self, name: str) -> None:
        silent = Population(NeuronSettings(kind="if"))
        super().__init__(name, gated=False, neuron=silent, coding=SPIKES)

    def forward(self, r_in: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
        """Take up an output and return the mean; it fires nothing."""
        if self.time_step == 0:
            return r_in
        before = self.decoded
        self.decoded = r_in.clone() if before is None else before.lerp(r_in, 1 / self.time_step)
        return self.decoded
