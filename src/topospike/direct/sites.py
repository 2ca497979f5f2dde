"""Stage direct: a population of a trained network as a site of the simulation engine.

Its coding passes on the spikes of the step as they are, and keeps the membrane in the state of the
run; `topospike.direct.neurons` has the formulas.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from topospike.direct.neurons import SpikingNeuron, after_reset, charge, fires
from topospike.errors import ConfigError
from topospike.recipe import NeuronSettings
from topospike.snn.coding import Coding, SiteState
from topospike.snn.neurons import Neuron
from topospike.snn.site import Rule, Site


@dataclass(frozen=True)
class SpikeCoding(Coding):
    """The value of a step is its spike; the membrane is kept in ``state.extra``."""

    name = "spikes"
    averages = True  # silence lets the value fall
    by_formula = False

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take one step of a `MembraneSite`."""
        site = rule.site
        if not isinstance(site, MembraneSite):
            raise ConfigError(f"{site.name}: the coding 'spikes' is for sites with a membrane.")
        m = charge(r_in, state.extra, site.settings, site.gain)
        fired = fires(m, site.settings)
        spikes = fired.to(r_in.dtype)
        return SiteState(spikes, spikes, extra=after_reset(m, fired, site.settings))


@dataclass(frozen=True)
class MeanCoding(Coding):
    """The value of a step is the mean of what has arrived so far; nothing fires."""

    name = "spikes"
    averages = True  # silence lets the value fall
    by_formula = False

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take up one input."""
        before = state.decoded
        return SiteState(r_in.clone() if before is None else before.lerp(r_in, 1 / t))


SPIKES = SpikeCoding()


@dataclass(frozen=True)
class Population(Neuron):
    """What reports say of a site's neurons; `SpikeCoding` steps them."""

    levels = 1
    gated = False
    initial_membrane = 0.0

    settings: NeuronSettings

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Kind of neuron."""
        return self.settings.kind


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

    def forward(self, r_in: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Return the spikes of one step from rest, for where only shapes matter."""
        return fires(charge(r_in, None, self.settings, self.gain), self.settings).to(r_in.dtype)


class MeanSite(Site):
    """Passes on the mean of what has reached it so far: the answer of the network."""

    def __init__(self, name: str) -> None:
        silent = Population(NeuronSettings(kind="if"))
        super().__init__(name, gated=False, neuron=silent, coding=MeanCoding())
