"""Convert: offset-spike calibration (COS), which starts neurons where their error is least.

Before a batch is simulated, every neuron is watched for rho steps. One that ends below 0 has fired
once too often, one that ends at theta or above once too rarely; its membrane then starts so much
lower or higher that this spike goes or comes. Sites follow one another: each is watched on the
calibrated spikes of those before it. On decoded values all rho steps of a site can be done at once,
so the whole calibration is one evaluation of the network on rho times the batch.

The network's time steps are those after the calibration. The spikes of the calibration are not in
the operation counts: they are those of steps 1..rho once more.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.errors import ConfigError
from topospike.snn.coding import Rate, SiteState
from topospike.snn.site import Rule, Site, site_step

SLACK = 1e-3
"""Share of theta by which a shifted membrane clears the threshold."""


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
        if self.presimulation < 1:
            raise ConfigError(
                f"presimulation is {self.presimulation}; offset-spike needs at least one step."
            )

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
            after.copy_(state.decoded)  # pyright: ignore[reportArgumentType]
        return outputs.flatten(0, 1), start
