"""Convert: SRP, which silences neurons whose membrane shows that they fired too often.

Phase 1 runs tau steps. A neuron that ends it with (almost) no membrane left was driven by less
than it has emitted; it is silenced. Then everything starts again at theta / 2, and in phase 2 only
the other neurons' spikes are sent on. All sites change phase in the same step.

Time is counted through: at t <= tau the network is the ordinary one, at t > tau its decoded values
are means over steps tau + 1 .. t. So accuracy and energy at t include both phases.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from topospike.contracts import LayerInput
from topospike.errors import ConfigError, ConversionError
from topospike.snn.coding import Rate, SiteState
from topospike.snn.site import Rule, Site, decoded_of

MEMBRANE_LEFT = 1e-3
"""Share of theta that must be left in the membrane of a neuron that goes on."""


@dataclass(frozen=True)
class ResidualMembrane(Rate):
    """Rate coding in the two phases of SRP.

    Parameters
    ----------
    first_phase
        tau, at least 1.

    Notes
    -----
    Hao et al. (AAAI 2023): goes on if ``v(tau) > 1e-3 theta``. In decoded values
    ``v(tau) = v0 + tau (r_in - r_out)``. Silenced neurons go on integrating in the authors' code
    as here; what they would emit is dropped. ``state.extra`` is 1 where a neuron goes on, else 0.

    Examples
    --------
    >>> from topospike.snn.neurons import IntegrateAndFire
    >>> from topospike.snn.site import site_step
    >>> site = Site("a", gated=True, neuron=IntegrateAndFire(), coding=ResidualMembrane(1))
    >>> site.threshold = torch.tensor(1.0)
    >>> state = site_step(site, 1, torch.tensor([0.6, 0.5]))
    >>> state.decoded
    tensor([1., 1.])
    >>> site_step(site, 2, torch.tensor([0.9, 0.9]), state).decoded
    tensor([1., 0.])
    """

    name = "srp"
    by_formula = False
    first_phase: int = 4

    def __post_init__(self) -> None:
        if self.first_phase < 1:
            raise ConfigError(f"presimulation is {self.first_phase}; srp needs at least one step.")

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take one step of the present phase."""
        tau, decoded = self.first_phase, state.decoded
        if t <= tau:
            state = rule(t, r_in, state)
            last = t == tau
            return replace(state, extra=self.going_on(rule.site, r_in, state)) if last else state
        if t == tau + 1 and decoded is not None:  # phase 2 starts from nothing
            state = replace(state, decoded=torch.zeros_like(decoded))
        state = rule(t - tau, r_in, state)
        return silenced(state)

    def going_on(self, site: Site, r_in: Tensor, state: SiteState) -> Tensor:
        """Tell whose membrane holds something at the end of phase 1."""
        share = site.neuron.initial_membrane
        left = (r_in - decoded_of(state)).mul_(self.first_phase).div_(site.threshold).add_(share)
        return torch.gt(left, MEMBRANE_LEFT, out=torch.empty_like(left))


def silenced(state: SiteState) -> SiteState:
    """Drop what the neurons that do not go on have emitted."""
    going_on, spikes = state.extra, state.spikes
    return replace(
        state,
        decoded=decoded_of(state) * going_on,
        spikes=None if spikes is None else spikes * going_on,
        fired=None,  # the compiled loop has counted the silenced neurons too
    )


def refuse_max_pools(layers: tuple[LayerInput, ...]) -> None:
    """Raise `ConversionError` if a layer is fed through a max-pool that changes in time.

    What arrives there is counted from changes of the decoded mean, which starts anew in phase 2.
    """
    for layer in layers:
        if layer.input == "maxpool":
            raise ConversionError(
                f"{layer.name} is fed through a max-pool ({layer.reason}), whose events cannot be "
                "counted over the two phases of srp. Use average pools, or method='qcfs'."
            )
