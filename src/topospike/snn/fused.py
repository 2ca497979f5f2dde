"""Simulate: one step of a site in one pass over memory, where there is a compiled loop for it.

`topospike.snn.site` asks for a `FusedSite` at the first step of a run. There is one for
multi-threshold and integrate-and-fire neurons under both codings, in float32 and float64 on a CPU,
whatever the shape of the threshold and the memory format of the activation. Everything else is
evaluated by the rules of `topospike.snn.neurons` themselves. The results are equal bit for bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.snn.coding import Coding, Differential, Rate
from topospike.snn.neurons import (
    GATE_TOLERANCE,
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
)
from topospike.snn.threads import in_shares

WORTHWHILE = 1 << 10
"""Neurons of a batch below which loading the compiled loops (0.7 s) is not worth it."""

SHORT_ROW = 128
"""Elements of an innermost loop below which starting it costs as much as running it."""

LONG_ROW = 1024
"""Elements to which short rows of thresholds are repeated."""

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
RULES = (MultiThreshold, IntegrateAndFire, SignedIntegrateAndFire)


class FusedSite:
    """The compiled step of one site, for the length of a run.

    Parameters
    ----------
    neuron, coding
        The site's rules; must satisfy `has_kernel`.
    theta
        Threshold, broadcastable to ``state``.
    state
        The site's decoded output; its shape and memory layout are those of all later calls.
    """

    def __init__(self, neuron: Neuron, coding: Coding, theta: Tensor, state: Tensor) -> None:
        self.dtype = DTYPES[state.dtype]
        self.differential = isinstance(coding, Differential)
        self.order, self.layout, flat = laid_out(theta, state)
        flat = flat.numpy()
        self.scratch = np.empty((1, 1, self.layout[2]), self.dtype)
        self.step = rule_of(neuron, flat, self.dtype)

    def __call__(self, t: int, r_in: Tensor, r_out: Tensor, spikes: Tensor | None) -> int:
        """Write r_out[t] over ``r_out`` and the spikes into ``spikes``; return how many fired."""
        x, r = self.rows(r_in.detach()), self.rows(r_out)
        s = self.scratch if spikes is None else self.rows(spikes)
        times = tuple(self.dtype(value) for value in (t, t - 1, 1.0 / t, 1.0))

        def share(begin: int, end: int) -> int:
            kept = np.empty_like(s) if spikes is None else s[begin:end]
            return self.step(x[begin:end], r[begin:end], kept, times, self.differential)

        return in_shares(share, self.layout[0], x.size)

    def rows(self, tensor: Tensor) -> Any:
        """Return a tensor as an array (outer, middle, inner); a copy only if laid out otherwise."""
        return tensor.permute(self.order).reshape(self.layout).numpy()


def laid_out(theta: Tensor, state: Tensor) -> tuple[list[int], tuple[int, int, int], Tensor]:
    """Return the axes of a state from outer to inner in memory, and `matching_layout` for them."""
    order = sorted(range(state.ndim), key=state.stride, reverse=True)
    theta = theta.detach().to(state.dtype)
    theta = theta.reshape((1,) * (state.ndim - theta.ndim) + tuple(theta.shape))
    return order, *matching_layout(theta.permute(order), [state.shape[axis] for axis in order])


def matching_layout(theta: Tensor, shape: list[int]) -> tuple[tuple[int, int, int], Tensor]:
    """Return (outer, middle, inner) and the thresholds as (middle, 1) or (1, inner).

    ``theta`` varies along some of the axes of ``shape``. The axes before the first of them are
    ``outer`` and those after the last are ``inner``; where little is left after the last, the
    thresholds themselves lie along ``inner``, so that the innermost loop is always long.
    """
    varying = [axis for axis, size in enumerate(theta.shape) if size != 1]
    if not varying:
        rows = shape[0] if shape else 1
        return (rows, 1, math.prod(shape[1:])), theta.reshape(1, 1)
    first, last = varying[0], varying[-1] + 1
    outer, middle, inner = (math.prod(s) for s in (shape[:first], shape[first:last], shape[last:]))
    flat = theta.expand(*theta.shape[:first], *shape[first:last], *theta.shape[last:])
    flat = flat.reshape(middle)
    if inner >= SHORT_ROW:
        return (outer, middle, inner), flat.reshape(middle, 1)
    flat = flat.repeat_interleave(inner)
    together = math.gcd(outer, 1 << max(0, (LONG_ROW // len(flat)).bit_length() - 1))
    row = flat.repeat(together)
    return (outer // together, 1, len(row)), row.reshape(1, -1)


def rule_of(neuron: Neuron, theta: Any, dtype: type[np.floating]) -> Callable[..., int]:
    """Return ``step(r_in, r_out, spikes, times, differential)`` of a neuron.

    What depends on the thresholds alone is computed here, with the roundings of the tensor form.
    """
    kernels = loaded_kernels()
    if isinstance(neuron, MultiThreshold):
        silent = theta <= 0
        divisor = np.where(silent, dtype(np.inf), dtype(0.75) * theta)
        per_theta = np.where(silent, dtype(0), dtype(-1) / np.where(silent, dtype(1), theta))
        lowest = 0.75 * 2.0 ** (1 - neuron.levels)
        rule = tuple(dtype(value) for value in (0, 1, GATE_TOLERANCE, lowest))

        def fire(x: Any, r: Any, s: Any, times: Any, differential: bool) -> int:
            return kernels.multi_threshold(
                x, r, s, divisor, per_theta, theta, times, rule, neuron.gated, differential
            )

        return fire
    initial = theta * dtype(neuron.initial_membrane)
    bounds = tuple(dtype(value) for value in (0, 1))
    afford = theta * dtype(1.0 - GATE_TOLERANCE)

    def fire_single(x: Any, r: Any, s: Any, times: Any, differential: bool) -> int:
        return kernels.integrate_and_fire(
            x, r, s, initial, theta, afford, times, bounds, neuron.gated, differential
        )

    return fire_single


def has_kernel(neuron: Neuron, coding: Coding, state: Tensor) -> bool:
    """Tell whether there is a compiled step for this site, and whether it would pay."""
    return (
        type(neuron) in RULES
        and type(coding) in (Differential, Rate)
        and state.dtype in DTYPES
        and state.device.type == "cpu"
        and state.numel() >= WORTHWHILE
        and kernels_work()
    )


@cache
def kernels_work() -> bool:
    """Tell whether numba is there; warn once if it is not."""
    try:
        loaded_kernels()
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}); sites run as separate tensor operations, with "
            "the same results but several times slower. Install it: pip install numba",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True


def loaded_kernels() -> ModuleType:
    """Import the compiled loops (0.7 s the first time)."""
    from topospike.snn import kernels

    return kernels
