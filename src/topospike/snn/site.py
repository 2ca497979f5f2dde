"""A site: one place of the network where a spiking neuron sits, with its running decoded output.

A site is evaluated with the ordinary ANN value r_in that reaches it. At time step 0 it *is* the
ANN's activation; at t = 1, 2, ... it lets its neuron fire and returns the decoded output r_out
(`topospike.snn.coding` has the formulas). It knows nothing of the network around it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from topospike.snn.coding import Coding
from topospike.snn.device import DeviceSite, has_device_kernel
from topospike.snn.fused import FusedSite, has_kernel
from topospike.snn.neurons import Neuron


class Site(nn.Module):
    """A neuron population that replaces one activation (or sits before one operand).

    Parameters
    ----------
    name
        Where it sits, in the model's own module path.
    gated
        ``True`` for the place of a ReLU: the decoded output never becomes negative. ``False`` for
        an identity site, where both signs are free.
    neuron, coding
        How a drive becomes spikes, and how spikes become a value.

    Attributes
    ----------
    threshold : Tensor
        Base threshold theta, broadcastable to the activation; a buffer, empty until calibration.
    activation : Module or None
        What the site is at time step 0, where that is neither ReLU nor identity (a trained QCFS).
    time_step : int
        0 while the site acts as the ANN's activation; the current step t during simulation.
    decoded, spikes : Tensor or None
        Decoded output r_out and the signed values emitted at the current step. State of a run,
        not of the model: neither is in ``state_dict``, and both are overwritten by the next step.
    fired : int or None
        How many neurons of the batch fired at the current step, where a compiled loop has counted.
    clock : Tensor or None
        The step in device memory, while a step is captured to be replayed.
    steps_at_once : int
        How many steps r_in holds one after the other along its first axis, ``time_step`` the
        first of them; 1 unless the network evaluates several together.
    record : bool
        Whether ``spikes`` are wanted; without them a compiled loop writes less memory.
    """

    threshold: Tensor

    def __init__(self, name: str, *, gated: bool, neuron: Neuron, coding: Coding) -> None:
        super().__init__()
        self.name = name
        self.gated = gated
        self.neuron = neuron
        self.coding = coding
        self.register_buffer("threshold", torch.empty(0))
        self.activation: nn.Module | None = None
        self.observer: Callable[[Tensor], None] | None = None
        self.reset()

    def reset(self) -> None:
        """Forget the run: act as the ANN's activation until the next first step."""
        self.time_step = 0
        self.decoded: Tensor | None = None
        self.spikes: Tensor | None = None
        self.fired: int | None = None
        self.clock: Tensor | None = None
        self.steps_at_once = 1
        self.record = True
        self._fused: FusedSite | DeviceSite | None = None

    def forward(self, r_in: Tensor) -> Tensor:
        """Return the activation (time step 0) or the decoded output r_out (t >= 1)."""
        if self.time_step == 0:
            if self.observer is not None:
                self.observer(r_in)
            if self.activation is not None:
                return self.activation(r_in)
            return torch.relu(r_in) if self.gated else r_in
        if self.steps_at_once > 1:
            return self._one_after_the_other(r_in)
        if self.decoded is None:
            self.decoded = torch.zeros_like(r_in)
            if has_kernel(self.neuron, self.coding, self.decoded):
                self._fused = FusedSite(self.neuron, self.coding, self.threshold, self.decoded)
            elif has_device_kernel(self.neuron, self.coding, self.decoded):
                self._fused = DeviceSite(self.neuron, self.coding, self.threshold, self.decoded)
        if self._fused is None:
            return self._fire(r_in, self.decoded)
        if self.record and self.spikes is None:
            self.spikes = torch.empty_like(self.decoded)
        if isinstance(self._fused, FusedSite):
            self.fired = self._fused(self.time_step, r_in, self.decoded, self.spikes)
        else:
            t = self.time_step if self.clock is None else self.clock
            self._fused(t, r_in, self.decoded, self.spikes)
        return self.decoded

    def _one_after_the_other(self, r_in: Tensor) -> Tensor:
        """Take the steps that r_in holds in turn; return r_out of all of them in the same way."""
        first, steps = self.time_step, self.steps_at_once
        result = torch.empty_like(r_in)
        self.steps_at_once = 1
        for k, (now, after) in enumerate(zip(r_in.chunk(steps), result.chunk(steps), strict=True)):
            self.time_step = first + k
            after.copy_(self.forward(now))
        self.time_step, self.steps_at_once = first, steps
        return result

    def _fire(self, r_in: Tensor, decoded: Tensor) -> Tensor:
        """Take a step with the rules as they are written, operation by operation."""
        t = self.time_step
        share = self.neuron.initial_membrane
        initial = self.threshold * share if share else None
        # last step's spikes are done with: their memory serves the membrane, then the new spikes
        membrane = self.coding.drive(t, r_in, decoded, initial, out=self.spikes)
        available = self.coding.available(t, decoded) if self.neuron.gated else None
        self.spikes = self.neuron.fire(membrane, self.threshold, available, out=membrane)
        self.decoded = self.coding.decode(t, decoded, self.spikes, out=decoded)
        return self.decoded

    def extra_repr(self) -> str:
        """Name the site, its neuron and its coding when the network is printed."""
        return f"{self.name!r}, gated={self.gated}, {self.neuron}, {self.coding}"
