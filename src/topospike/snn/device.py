"""Simulate on an accelerator: a site's step as one kernel.

`clocked_step` is the step of a site with t in device memory instead of a Python number: the
formulas of `topospike.snn.coding`, the firing rules of `topospike.snn.neurons`, the same roundings.
`torch.compile` turns it into one kernel for each rule, whatever the shapes (Triton on CUDA), which
may contract a product and a sum and so differ in the last bit. With t on the device a whole step
can be captured and replayed (`topospike.snn.graphs`).

Rules and codings of your own, half precision, and sites that look at t themselves run as separate
tensor operations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from topospike.snn.coding import Coding, Differential, Rate
from topospike.snn.fused import DTYPES, RULES, laid_out
from topospike.snn.neurons import Identity, Neuron


@cache
def times(t: int, device: torch.device) -> Tensor:
    """Return t, t - 1 and 1 / t on a device (float64)."""
    return torch.tensor([t, t - 1, 1.0 / t], dtype=torch.float64, device=device)


def clocked_step(
    neuron: Neuron,
    coding: Coding,
    r_in: Tensor,
    r_out: Tensor,
    theta: Tensor,
    clock: Tensor,
    spikes: Tensor | None,
) -> None:
    """Write r_out[t] over ``r_out`` and the spikes into ``spikes``; ``clock`` is `times` of t."""
    t, before, share = clock.to(r_out.dtype).unbind()
    differential = isinstance(coding, Differential)
    u = (r_in - r_out) * t if differential else torch.addcmul(r_in * t, r_out, before, value=-1)
    if neuron.initial_membrane:
        u = u + theta * neuron.initial_membrane
    available = r_out * (t if differential else before) if neuron.gated else None
    s = neuron.fire(u, theta, available)
    if differential:
        r_out.addcmul_(s, share)
    else:
        r_out.lerp_(s, share)
    if spikes is not None:
        spikes.copy_(s)


class CompiledStep:
    """`clocked_step` of one rule and coding, compiled; as written, with a warning, if that fails.

    Examples
    --------
    >>> from topospike.snn.neurons import IntegrateAndFire
    >>> compiled_step(IntegrateAndFire(), Rate()) is compiled_step(IntegrateAndFire(), Rate())
    True
    """

    def __init__(self, neuron: Neuron, coding: Coding) -> None:
        def step(*state: Any) -> None:
            clocked_step(neuron, coding, *state)

        self.as_written = step
        self.run: Callable[..., None] | None = None

    def __call__(self, *state: Any) -> None:
        """Take a step; the first one compiles."""
        if self.run is None:
            self.run = torch.compile(self.as_written, dynamic=True)
        try:
            self.run(*state)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if self.run is self.as_written:
                raise
            warn_once(f"a site's step cannot be compiled ({first_line(error)})")
            self.run = self.as_written
            self.run(*state)


@cache
def compiled_step(neuron: Neuron, coding: Coding) -> CompiledStep:
    """Return the step of a rule; one for all sites and networks of the process."""
    return CompiledStep(neuron, coding)


class DeviceSite:
    """The compiled step of one site, for the length of a run; as `FusedSite` on a CPU.

    Parameters
    ----------
    neuron, coding
        The site's rules; must satisfy `has_device_kernel`.
    theta
        Threshold, broadcastable to ``state``.
    state
        The site's decoded output; its shape and memory layout are those of all later calls.
    """

    def __init__(self, neuron: Neuron, coding: Coding, theta: Tensor, state: Tensor) -> None:
        self.order, self.layout, self.theta = laid_out(theta, state)
        self.step = compiled_step(neuron, coding)

    def __call__(self, t: int | Tensor, r_in: Tensor, r_out: Tensor, spikes: Tensor | None) -> None:
        """Write r_out[t] over ``r_out`` and the spikes into ``spikes``; nobody counts them.

        ``t`` is the step, or a clock in device memory.
        """
        clock = times(t, r_out.device) if isinstance(t, int) else t
        emitted = None if spikes is None else self.rows(spikes)
        self.step(self.rows(r_in.detach()), self.rows(r_out), self.theta, clock, emitted)

    def rows(self, tensor: Tensor) -> Tensor:
        """Return a tensor as (outer, middle, inner); a copy only if laid out otherwise."""
        return tensor.permute(self.order).reshape(self.layout)


def has_device_kernel(neuron: Neuron, coding: Coding, state: Tensor) -> bool:
    """Tell whether a site's step can be compiled for the accelerator it is on."""
    return state.is_cuda and state.dtype in DTYPES and clocked(neuron, coding)


def clocked(neuron: Neuron, coding: Coding) -> bool:
    """Tell whether `clocked_step` is the step of this neuron and coding."""
    return type(neuron) in (*RULES, Identity) and type(coding) in (Differential, Rate)


@cache
def warn_once(reason: str) -> None:
    """Say that simulations on this accelerator are slower than they could be."""
    warnings.warn(
        f"{reason}; it runs as separate tensor operations, with the same results but slower.",
        RuntimeWarning,
        stacklevel=3,
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return next(iter(str(error).splitlines()), type(error).__name__)
