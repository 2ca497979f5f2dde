"""Convert: SRP, which silences neurons whose membrane shows that they fired too often.

Phase 1 runs tau steps. A neuron that ends it with (almost) no membrane left was driven by less
than it has emitted; it is silenced. Then everything starts again at theta / 2, and in phase 2 only
the other neurons' spikes are sent on. All sites change phase in the same step.

Time is counted through: at t <= tau the network is the ordinary one, at t > tau its decoded values
are means over steps tau + 1 .. t. So accuracy and energy at t include both phases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from topospike.contracts import LayerInput
from topospike.errors import ConfigError, ConversionError
from topospike.snn.coding import Coding
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron
from topospike.snn.site import Site

MEMBRANE_LEFT = 1e-3
"""Share of theta that must be left in the membrane of a neuron that goes on."""


class ResidualMembraneSite(Site):
    """A rate-coded integrate-and-fire site with the two phases of SRP.

    Parameters
    ----------
    name, gated, neuron, coding
        As in `topospike.snn.site.Site`.
    first_phase
        tau, at least 1.

    Notes
    -----
    Hao et al. (AAAI 2023): goes on if ``v(tau) > 1e-3 theta``. In decoded values
    ``v(tau) = v0 + tau (r_in - r_out)``. Silenced neurons go on integrating in the authors' code
    as here; what they would emit is dropped.

    Examples
    --------
    >>> from topospike.snn.coding import Rate
    >>> from topospike.snn.neurons import IntegrateAndFire
    >>> site = ResidualMembraneSite(
    ...     "a", gated=True, neuron=IntegrateAndFire(), coding=Rate(), first_phase=1
    ... )
    >>> site.threshold = torch.tensor(1.0)
    >>> for site.time_step, drive in ((1, [0.6, 0.5]), (2, [0.9, 0.9])):
    ...     print(site(torch.tensor(drive)))
    tensor([1., 1.])
    tensor([1., 0.])
    """

    def __init__(
        self, name: str, *, gated: bool, neuron: Neuron, coding: Coding, first_phase: int
    ) -> None:
        super().__init__(name, gated=gated, neuron=neuron, coding=coding)
        if first_phase < 1:
            raise ConfigError(f"presimulation is {first_phase}; srp needs at least one step.")
        if coding.name != "rate":
            raise ConfigError(f"coding is {coding.name!r}; srp is defined for rate coding only.")
        self.first_phase = first_phase

    def reset(self) -> None:
        """Forget the run and who was silenced."""
        super().reset()
        self.going_on: Tensor | None = None

    def forward(self, r_in: Tensor) -> Tensor:
        """Return the activation (time step 0) or the decoded output of the present phase."""
        t = self.time_step
        if t <= self.first_phase:
            decoded = super().forward(r_in)
            if t == self.first_phase:
                share = self.neuron.initial_membrane
                left = (r_in - decoded).mul_(t).div_(self.threshold).add_(share)
                self.going_on = torch.gt(left, MEMBRANE_LEFT, out=torch.empty_like(left))
                self.decoded = None  # phase 2 starts from nothing
            return decoded
        self.time_step = t - self.first_phase
        decoded = super().forward(r_in)
        self.time_step = t
        if self.going_on is not None:
            decoded.mul_(self.going_on)
            self.fired = None  # the compiled loop has counted the silenced neurons too
            if self.spikes is not None:
                self.spikes.mul_(self.going_on)
        return decoded


class ResidualMembraneNetwork(SpikingNetwork):
    """A spiking network of SRP: its decoded values start anew in phase 2."""

    def watch(
        self,
        x: Tensor,
        timesteps: int,
        nodes: Sequence[fx.Node],
        *,
        executor: str | None = None,
        record: bool = True,
    ) -> Iterator[tuple[int, Tensor, tuple[Any, ...]]]:
        """Simulate as any network, with an executor that evaluates layers densely.

        The event executor keeps means over all steps.
        """
        name = self.executor if executor is None else executor
        if name == "event":
            raise ConfigError(
                f"executor is {name!r}; a network of srp starts its means anew in its second "
                "phase, which it cannot follow. Use executor='decoded'."
            )
        return super().watch(x, timesteps, nodes, executor=executor, record=record)


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
