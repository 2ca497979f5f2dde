"""Simulate: one step of a site in one pass over memory, where there is a compiled loop for it.

`topospike.snn.site` asks for a `SiteLoop` at the first step of a run. There is one for
multi-threshold and integrate-and-fire neurons under every coding of formulas, in float32 and
float64 on a CPU, whatever the shape of the threshold and the memory format of the activation.
Everything else is evaluated by the rules of `topospike.snn.neurons` themselves. The results are
equal bit for bit.
"""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.snn.batches import in_shares
from topospike.snn.coding import Coding
from topospike.snn.neurons import (
    GATE_TOLERANCE,
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
    at_step,
    largest_code,
)
from topospike.wiring.images import memory_order

WORTHWHILE = 1 << 10
"""Elements below which loading the compiled loops (0.7 s) is not worth it."""

WORTH_A_CALL = 1 << 6
"""Elements below which formulas are as fast as loops that are loaded."""

SHORT_ROW = 128
"""Elements of an innermost loop below which starting it costs as much as running it."""

LONG_ROW = 1024
"""Elements to which short rows of thresholds are repeated."""

DTYPES = {torch.float32: np.float32, torch.float64: np.float64}
Layout = tuple[int, int, int]
Along = Callable[[Any], Any]
NOTHING = {kind: np.empty((0, 0, 0, 0), kind) for kind in (np.float32, np.float64, np.uint8)}
"""Where what is not wanted is written."""
RULES = (MultiThreshold, IntegrateAndFire, SignedIntegrateAndFire)


@dataclass(frozen=True, slots=True)
class Kept:
    """What some steps of a site leave, one after the other along the first axis, if wanted.

    Codes are spikes in units of the smallest one, without sign: ``shift`` is added.
    """

    decoded: Tensor | None = None
    spikes: Tensor | None = None
    codes: Tensor | None = None
    shift: int = 0


class SiteLoop:
    """The compiled steps of one site, for the length of a run.

    Parameters
    ----------
    neuron, coding
        The site's rules; must satisfy `has_loop`.
    theta
        Threshold, broadcastable to ``state``.
    state
        The site's decoded output; its shape and memory layout are those of all later calls.
    """

    def __init__(self, neuron: Neuron, coding: Coding, theta: Tensor, state: Tensor) -> None:
        self.neuron, self.coding = neuron, coding
        self.dtype = DTYPES[state.dtype]
        values = theta.detach().to(state.dtype).numpy()
        most, signed = largest_code(neuron)
        self.shift = most if signed else 0
        unit = inverse(values, self.dtype(most))
        self.order, self.layout, along = laid_out(values.shape, state)
        of_rule = *of_thresholds(neuron, values, self.dtype), values, unit
        self.of_rule = tuple(along(np.stack(of_rule)))
        from topospike.snn.kernels import site_loop  # imports numba: 0.7 s the first time

        self.run = site_loop

    def __call__(self, t: int, r_in: Tensor, r_out: Tensor, spikes: Tensor | None) -> int:
        """Write r_out[t] over ``r_out`` and the spikes into ``spikes``; return how many fired."""
        return self.steps(t, 1, r_in, r_out, Kept(spikes=spikes))

    def steps(self, t: int, steps: int, r_in: Tensor, r_out: Tensor, kept: Kept) -> int:
        """Take the steps from t on, which follow one another along the first axis of ``r_in``.

        If that holds one step, it is the input of all. Returns how many fired at the last of them.
        """
        x, r = self.rows(r_in.detach(), len(r_in) // len(r_out)), self.rows(r_out, 1)[0]
        outputs = (
            self.kept_rows(kept.decoded, steps, self.dtype),
            self.kept_rows(kept.spikes, steps, self.dtype),
            self.kept_rows(kept.codes, steps, np.uint8),
        )
        gains, numbers = of_steps(self.neuron, self.coding, t, steps, self.dtype)
        half = self.dtype(self.shift + 0.5)  # rounds what is then cut off
        kind = self.neuron.gated, self.coding.averages

        def share(begin: int, end: int) -> int:
            return self.run(x, r, outputs, self.of_rule, gains, numbers, half, kind, begin, end)

        return in_shares(share, self.layout[0], x.size)

    def rows(self, tensor: Tensor, steps: int) -> Any:
        """Return a tensor as (steps, outer, middle, inner); a copy only if laid out otherwise."""
        return tensor.permute(self.order).reshape(steps, *self.layout).numpy()

    def kept_rows(self, tensor: Tensor | None, steps: int, dtype: Any) -> Any:
        """Return where something is to be kept, of no steps if it is not."""
        return NOTHING[dtype] if tensor is None else self.rows(tensor, steps)


def laid_out(sizes: Sequence[int], state: Tensor) -> tuple[list[int], Layout, Along]:
    """Return the axes of a state from outer to inner in memory, and `matching_layout` for them.

    ``sizes`` are those of the thresholds, which broadcast to the state; several arrays of these
    sizes are laid out at once.
    """
    order = memory_order(state)
    aligned = (1,) * (state.ndim - len(sizes)) + tuple(sizes)
    layout, along = matching_layout(
        [aligned[axis] for axis in order], [state.shape[axis] for axis in order]
    )
    axes = (0, *(1 + axis for axis in order))
    return order, layout, lambda values: along(values.reshape(-1, *aligned).transpose(axes))


def matching_layout(sizes: list[int], shape: list[int]) -> tuple[Layout, Along]:
    """Return (outer, middle, inner), and what lays thresholds out as (middle, 1) or (1, inner).

    They vary along some of the axes of ``shape``. The axes before the first of them are ``outer``
    and those after the last are ``inner``; where little is left after the last, the thresholds
    themselves lie along ``inner``, so that the innermost loop is always long.
    """
    varying = [axis for axis, size in enumerate(sizes) if size != 1]
    if not varying:
        rows, each = (shape[0] if shape else 1), math.prod(shape[1:])
        parts = math.gcd(each, power_of_two_below(each // LONG_ROW))  # rows that stay in cache
        return (rows * parts, 1, each // parts), lambda values: values.reshape(-1, 1, 1)
    first, last = varying[0], varying[-1] + 1
    outer, middle, inner = (math.prod(s) for s in (shape[:first], shape[first:last], shape[last:]))
    is_short = inner < SHORT_ROW
    together = math.gcd(outer, power_of_two_below(LONG_ROW // (middle * inner))) if is_short else 1

    def along(values: Any) -> Any:
        if sizes[first:last] != shape[first:last]:
            full = (len(values), *sizes[:first], *shape[first:last], *sizes[last:])
            values = np.broadcast_to(values, full)
        if not is_short:
            return values.reshape(-1, middle, 1)
        rows = values.reshape(-1, 1, middle, 1)
        return np.broadcast_to(rows, (len(rows), together, middle, inner)).reshape(len(rows), 1, -1)

    layout = (
        (outer // together, 1, middle * inner * together) if is_short else (outer, middle, inner)
    )
    return layout, along


def power_of_two_below(number: int) -> int:
    """Return the largest power of two that is at most a number, at least 1."""
    return 1 << max(0, number.bit_length() - 1)


def of_thresholds(neuron: Neuron, theta: Any, dtype: type[np.floating]) -> tuple[Any, Any]:
    """Return what depends on the thresholds alone, with the roundings of the tensor form."""
    if isinstance(neuron, MultiThreshold):
        divisor = np.where(theta <= 0, dtype(np.inf), dtype(0.75) * theta)
        return divisor, inverse(theta, dtype(-1))
    return theta * dtype(neuron.initial_membrane), theta * dtype(1.0 - GATE_TOLERANCE)


def inverse(theta: Any, of: np.floating) -> Any:
    """Return a number over each threshold, 0 for one at which nothing fires."""
    fires = theta > 0
    return np.where(fires, of / np.where(fires, theta, of.dtype.type(1)), of.dtype.type(0))


@functools.lru_cache(maxsize=1024)
def of_steps(
    neuron: Neuron, coding: Coding, t: int, steps: int, dtype: type[np.floating]
) -> tuple[Any, tuple[Any, ...]]:
    """Return the gains of some steps, (steps, 4), and each of the rule's constants, (steps,)."""
    taken = range(t, t + steps)
    g = [coding.gain(now) for now in taken]
    gains = np.array([(now, now - 1, 1.0 / now, 1.0) for now in g], dtype)
    rows = [numbers_of(at_step(neuron, now)) for now in taken]
    return gains, tuple(np.array(column, dtype) for column in zip(*rows, strict=True))


def numbers_of(neuron: Neuron) -> tuple[float, ...]:
    """Return the constants of a rule; their number tells the loop which rule it is."""
    if isinstance(neuron, MultiThreshold):
        return 0.0, 1.0, GATE_TOLERANCE, 0.75 * 2.0 ** (1 - neuron.levels)
    return 0.0, 1.0


def has_loop(neuron: Neuron, coding: Coding, state: Tensor) -> bool:
    """Tell whether there is a compiled step for this site, and whether it would pay."""
    kind = type(coding)
    return (
        type(neuron) in RULES
        and kind.drive is Coding.drive
        and kind.decode is Coding.decode
        and kind.available is Coding.available
        and state.dtype in DTYPES
        and state.device.type == "cpu"
        and worth_a_loop(state)
    )


def worth_a_loop(tensor: Tensor) -> bool:
    """Tell whether a compiled loop over a tensor pays, which depends on whether it is loaded.

    Loops and formulas give the same bits, so it does not matter to a result what was run before.
    """
    loaded = "topospike.snn.kernels" in sys.modules
    return tensor.numel() >= (WORTH_A_CALL if loaded else WORTHWHILE)
