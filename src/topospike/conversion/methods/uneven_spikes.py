"""Two codings against uneven spike trains: SRP and offset-spike calibration (COS).

SRP runs tau steps first. A neuron that ends them with (almost) no membrane left was driven by less
than it has emitted; it is silenced. Then everything starts again at theta / 2, and only the other
neurons' spikes are sent on. All sites change phase in the same step. Time is counted through: at
t <= tau the network is the ordinary one, at t > tau its decoded values are means over steps
tau + 1 .. t. So accuracy and energy at t include both phases.

COS watches every neuron for rho steps before a batch is simulated. One that ends below 0 has fired
once too often, one that ends at theta or above once too rarely; its membrane then starts so much
lower or higher that this spike goes or comes. Sites follow one another: each is watched on the
calibrated spikes of those before it. On decoded values all rho steps of a site can be done at once,
so the whole calibration is one evaluation of the network on rho times the batch. The network's time
steps are those after it; its spikes are those of steps 1..rho once more, and are not in the counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.conversion.methods.method import whole
from topospike.snn.coding import Rate, SiteState
from topospike.snn.site import Rule, Site, decoded_of, site_step

MEMBRANE_LEFT = 1e-3
"""Share of theta that must be left in the membrane of a neuron that goes on."""
SLACK = 1e-3
"""Share of theta by which a shifted membrane clears the threshold."""


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
        whole(1)("presimulation", self.first_phase)

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
        left = (
            (r_in - decoded_of(state))
            .detach()
            .mul_(self.first_phase)
            .div_(site.threshold)
            .add_(share)
        )
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


def offset_membrane(currents: Float[Tensor, "time ..."], *, initial: float = 0.5) -> Tensor:
    """Return the membrane to start from, in units of theta, given the inputs of rho steps.

    Parameters
    ----------
    currents
        Input of each step divided by theta.
    initial
        Membrane the watched run starts from.

    Notes
    -----
    Hao et al. (ICLR 2023), single pass. With m the membrane before and v after a spike::

        v(rho) < 0 and a spike was emitted   v0 - max(1, min over firing steps of m - 0.999)
        v(rho) >= 1                          v0 + max(1, 1.001 - max over silent steps of v)
        otherwise                            v0

    The authors repeat this for errors of several spikes in experiments; once is their default.

    Examples
    --------
    The current comes first and is taken back: one spike too many.

    >>> offset_membrane(torch.tensor([[0.7], [-1.5]]))
    tensor([-0.5000])
    """
    v = torch.full_like(currents[0], initial)
    count = torch.zeros_like(v)
    least_fired, most_silent = torch.full_like(v, torch.inf), torch.full_like(v, -torch.inf)
    for current in currents:
        m = v + current
        fired = m >= 1.0
        v = m - fired.to(m.dtype)
        count += fired
        least_fired = torch.where(fired, torch.minimum(least_fired, m), least_fired)
        most_silent = torch.where(fired, most_silent, torch.maximum(most_silent, v))
    down = (least_fired - (1.0 - SLACK)).clamp_min(1.0)
    up = ((1.0 + SLACK) - most_silent).clamp_min(1.0)
    start = torch.full_like(v, initial)
    start = torch.where((v < 0) & (count > 0), start - down, start)
    # a neuron that fired at every step cannot fire more often: most_silent is then -inf
    return torch.where((v >= 1) & up.isfinite(), start + up, start)


@dataclass(frozen=True)
class OffsetSpike(Rate):
    """Rate coding whose initial membranes are calibrated image by image before a run.

    Parameters
    ----------
    presimulation
        rho, the steps of the calibration; at least 1.
    """

    name = "offset-spike"
    presimulation: int = 4  # pyright: ignore[reportIncompatibleMethodOverride]

    def __post_init__(self) -> None:
        whole(1)("presimulation", self.presimulation)

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Take one step; ``state.extra`` is by how much the membrane started higher."""
        # t (r_in + offset / t) is the drive of a membrane that starts higher by the offset
        return rule(t, r_in if state.extra is None else r_in + state.extra / t, state)

    def presimulate(self, site: Site, r_in: Tensor) -> tuple[Tensor, SiteState]:
        """Choose the offset from decoded inputs of all steps; return the calibrated outputs."""
        steps, initial = self.presimulation, site.neuron.initial_membrane
        time = torch.arange(1, steps + 1, device=r_in.device, dtype=r_in.dtype)
        decoded = r_in.unflatten(0, (steps, -1))
        total = decoded * time.reshape(-1, *(1 for _ in r_in.shape))
        currents = total.diff(dim=0, prepend=torch.zeros_like(total[:1])) / site.threshold
        offset = (offset_membrane(currents, initial=initial) - initial) * site.threshold
        start = state = SiteState(extra=offset)
        outputs = torch.empty_like(decoded)
        for t, (now, after) in enumerate(zip(decoded, outputs, strict=True), start=1):
            state = site_step(site, t, now, state, record=False)
            after.copy_(decoded_of(state))
        return outputs.flatten(0, 1), start
