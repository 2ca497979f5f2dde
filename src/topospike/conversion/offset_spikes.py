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

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx

from topospike.errors import ConfigError
from topospike.models.inputs import Inputs
from topospike.snn.coding import Coding
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron
from topospike.snn.site import Site

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


class OffsetSpikeSite(Site):
    """A rate-coded integrate-and-fire site whose initial membrane is calibrated image by image.

    Parameters
    ----------
    name, gated, neuron, coding
        As in `topospike.snn.site.Site`.

    Attributes
    ----------
    watched_steps : int
        0, or the steps that are folded into the batch axis (time-major) while it is calibrated.
    """

    def __init__(self, name: str, *, gated: bool, neuron: Neuron, coding: Coding) -> None:
        super().__init__(name, gated=gated, neuron=neuron, coding=coding)
        if coding.name != "rate":
            raise ConfigError(
                f"coding is {coding.name!r}; offset-spike is defined for rate coding only."
            )

    def reset(self) -> None:
        """Forget the run and its calibration."""
        super().reset()
        self.watched_steps = 0
        self.offset: Tensor | None = None

    def forward(self, r_in: Tensor) -> Tensor:
        """Return the activation (time step 0), or the decoded output r_out."""
        if self.watched_steps:
            return self.calibrate(r_in)
        if self.time_step and self.offset is not None:
            # t (r_in + offset / t) is the drive of a membrane that starts higher by the offset
            r_in = r_in + self.offset / self.time_step
        return super().forward(r_in)

    def calibrate(self, r_in: Tensor) -> Tensor:
        """Choose the offset from decoded inputs of all watched steps; return decoded outputs."""
        steps, initial = self.watched_steps, self.neuron.initial_membrane
        time = torch.arange(1, steps + 1, device=r_in.device, dtype=r_in.dtype)
        time = time.reshape(-1, *(1 for _ in r_in.shape))
        total = r_in.unflatten(0, (steps, -1)) * time
        currents = total.diff(dim=0, prepend=torch.zeros_like(total[:1])) / self.threshold
        start = offset_membrane(currents, initial=initial)
        self.offset = (start - initial) * self.threshold
        v, outputs = start * self.threshold, []
        for current in currents * self.threshold:
            v = v + current
            outputs.append(self.neuron.fire(v, self.threshold))
            v = v - outputs[-1]
        return (torch.stack(outputs).cumsum(0) / time).flatten(0, 1)


class OffsetSpikeNetwork(SpikingNetwork):
    """A spiking network that calibrates the membranes of its sites before each batch.

    Attributes
    ----------
    presimulation : int
        rho, the steps of the calibration.
    """

    presimulation: int = 4

    @torch.no_grad()
    def watch(
        self,
        x: Inputs,
        timesteps: int,
        nodes: Sequence[fx.Node],
        *,
        executor: str | None = None,
        record: bool = True,
    ) -> Iterator[tuple[int, Tensor, tuple[Any, ...]]]:
        """Calibrate on the batch, then simulate it as any network."""
        x = self._checked(x, timesteps)
        sites = [site for site in self.sites.values() if isinstance(site, OffsetSpikeSite)]
        for site in sites:
            site.watched_steps = self.presimulation
        try:
            self.ann(*(t.repeat(self.presimulation, *(1 for _ in t.shape[1:])) for t in x))
            for site in sites:
                site.watched_steps = 0
            yield from super().watch(x, timesteps, nodes, executor=executor, record=record)
        finally:
            self.reset()
