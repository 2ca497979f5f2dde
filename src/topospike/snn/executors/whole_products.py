"""Simulate: products of whole numbers, by the processor's 8-bit instructions where they are exact.

A weight is whole numbers of at most 8 bits with one scale a row; an operand is codes of 8 bits.
oneDNN multiplies unsigned codes by signed weights and adds in 32 bits; signed codes are shifted,
and what the shift adds to each output, less where maps end, is taken off the sums. Whether this
machine does so exactly is tried once: without VNNI instructions the sums of pairs may saturate.
Elsewhere the same numbers are multiplied in floating point, wide enough that every sum is exact:
slower, and the same result.

The sums of some steps become the outputs of a layer by

    S_t = S_(t-1) + a_t scale (sums_t - offset)            y_t = m_t S_t + bias

with a_t = 1/g_t and m_t = 1 for held values, a_t = 1 and m_t = 1/g_t for means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from topospike.snn.batches import in_shares
from topospike.snn.fused import DTYPES, LONG_ROW, laid_out, power_of_two_below, worth_a_loop

EXACT = {torch.float32: 1 << 24, torch.float64: 1 << 53}
"""Whole numbers up to which a float holds every one."""


@dataclass(frozen=True, eq=False)
class WholeWeight:
    """A weight of whole numbers: ``weight = scale * whole / quantum`` (one scale a row).

    ``whole`` is int8 in the weight's shape, ``scale`` float64; ``settings`` are stride, padding,
    dilation and groups of a convolution, empty for a linear layer; codes are at most ``largest``,
    and have signs if ``signed``.
    """

    whole: Tensor
    scale: Tensor
    settings: tuple[list[int], list[int], list[int], int] | tuple[()]
    largest: int
    signed: bool

    @property
    def shift(self) -> int:
        """What is added to signed codes, so that they are not."""
        return self.largest if self.signed else 0

    def largest_sum(self) -> int:
        """Return a bound of what one output adds up to, of shifted codes."""
        rows = self.whole.flatten(1).long().abs().sum(1)
        return int(rows.max()) * (self.largest + self.shift)


@runtime_checkable
class Product(Protocol):
    """A product of a whole weight and codes, for the length of a run.

    ``sums - offset``, times ``scale`` (one number a row), is what the layer adds; the sums are
    whole numbers in the network's precision, with maps' channels last in memory.
    """

    scale: Tensor

    def __call__(self, codes: Tensor) -> Tensor:
        """Return the sums."""
        ...

    def offset(self, codes: Tensor) -> Tensor:
        """Return (rows,) or, of maps, (rows, down, across): what the shift has added."""
        ...


class EightBit:
    """The product by oneDNN, in float32 on a CPU.

    oneDNN could take the shift back itself, for up to twice the time on small maps. It is left to
    do so only where float32 would not hold the sums with it.
    """

    def __init__(self, weight: WholeWeight) -> None:
        self.weight, self.settings, self.scale = weight, weight.settings, weight.scale.float()
        exact = weight.largest_sum() < EXACT[torch.float32]
        self.shift, self.zero_point = (weight.shift, 0) if exact else (0, weight.shift)
        self.ones = torch.ones(len(self.scale))
        self.zeros = torch.zeros(len(self.scale), dtype=torch.int32)
        self.known: dict[tuple[int, ...], Tensor] = {}
        ops = torch.ops.onednn
        if self.settings:
            given = weight.whole, self.ones, 1.0, self.zero_point, *self.settings
            self.packed = ops.qconv_prepack(*given, None)
        else:
            self.packed = ops.qlinear_prepack(weight.whole, None)

    def __call__(self, codes: Tensor) -> Tensor:
        """Multiply."""
        ops = torch.ops.onednn
        given = codes, 1.0, self.zero_point, self.packed, self.ones, self.zeros, None
        product = ops.qconv2d_pointwise if self.settings else ops.qlinear_pointwise
        sums = product(*given, *self.settings, 1.0, 0, torch.float32, "none", [], "")
        return in_format(sums, maps=bool(self.settings))

    def offset(self, codes: Tensor) -> Tensor:
        """Return what the shift adds: where maps end, less."""
        shape = tuple(codes.shape[1:]) if self.settings and self.shift else ()
        if shape not in self.known:
            whole = self.weight.whole.double()
            found = whole.flatten(1).sum(1) * self.shift
            if shape and self.settings:
                ones = torch.full((1, *shape), float(self.shift), dtype=torch.float64)
                found = functional.conv2d(ones, whole, None, *self.settings)[0]
            self.known[shape] = found.float()
        return self.known[shape]


class Floating:
    """The product in floating point, exact because no sum outgrows the format."""

    def __init__(self, weight: WholeWeight, like: Tensor) -> None:
        self.shift, self.settings, self.like = weight.shift, weight.settings, like.dtype
        bound = weight.largest_sum()
        self.dtype = next(d for d, most in EXACT.items() if bound < most or d is torch.float64)
        if like.dtype is torch.float64:
            self.dtype = torch.float64
        self.whole = weight.whole.to(like.device, self.dtype)
        self.scale = weight.scale.to(like.device, like.dtype)
        self.nothing = torch.zeros_like(self.scale)

    def __call__(self, codes: Tensor) -> Tensor:
        """Take the shift back, and multiply."""
        signed = codes.to(self.dtype).sub_(self.shift)
        if self.settings:
            sums = functional.conv2d(signed, self.whole, None, *self.settings)
            return in_format(sums.to(self.like), maps=True)
        return functional.linear(signed, self.whole).to(self.like)

    def offset(self, codes: Tensor) -> Tensor:
        """Return 0."""
        return self.nothing


def product_of(weight: WholeWeight, like: Tensor) -> Product:
    """Return the fastest exact product for a network of the precision and place of a tensor."""
    if like.dtype is torch.float32 and like.device.type == "cpu" and not eight_bit_obstacle():
        return EightBit(weight)
    return Floating(weight, like)


@cache
def eight_bit_obstacle() -> str:
    """Return why 8-bit products cannot be used on this processor; empty if they can.

    Examples
    --------
    >>> isinstance(eight_bit_obstacle(), str)
    True
    """
    drawn = torch.Generator().manual_seed(0)
    for shape, settings in (((9, 40, 3, 3), ([1, 1], [1, 1], [1, 1], 1)), ((9, 40), ())):
        whole = torch.randint(-127, 128, shape, dtype=torch.int8, generator=drawn)
        whole[0] = 127  # pairs of the largest numbers saturate 16 bits
        rows = (2, 40, 5, 5) if settings else (2, 40)
        for signed in (False, True):
            codes = torch.full(rows, 254, dtype=torch.uint8)
            codes[1].random_(0, 255, generator=drawn)
            codes = in_format(codes, maps=bool(settings))
            weight = WholeWeight(
                whole, torch.ones(9).double(), settings, 127 if signed else 255, signed
            )
            exact = Floating(weight, torch.zeros((), dtype=torch.float64))(codes)
            try:
                product = EightBit(weight)
                offset = product.offset(codes)
                unshifted = offset if offset.ndim == 3 or not settings else offset[:, None, None]
                found = product(codes) - unshifted
            except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
                return f"this torch has no such product ({error})".splitlines()[0]
            if not torch.equal(found.double(), exact):
                return "this processor adds pairs of 8-bit products in 16 bits"
    return ""


def coded(operand: Tensor, unit: Tensor, shift: int) -> Tensor:
    """Return ``operand * unit`` rounded to whole numbers, plus ``shift``, in 8 bits without sign.

    In one pass over memory where there are compiled loops; ``unit`` broadcasts over the operand.

    Examples
    --------
    >>> coded(torch.tensor([[0.5, -3.0]]), torch.tensor([2.0, 1.0]), 128)
    tensor([[129, 125]], dtype=torch.uint8)
    """
    unit = unit.to(operand.device, operand.dtype)
    if operand.device.type != "cpu" or not worth_a_loop(operand):
        return (operand * unit).add_(shift + 0.5).to(torch.uint8)
    codes = torch.empty_like(operand, dtype=torch.uint8)
    order, layout, along = laid_out(unit.shape, operand)
    rows, out = (t.permute(order).reshape(layout).numpy() for t in (operand, codes))
    from topospike.snn.kernels import codes_loop  # imports numba

    factors, half = along(unit.numpy())[0], rows.dtype.type(shift + 0.5)

    def share(begin: int, end: int) -> int:
        codes_loop(rows[begin:end], factors, half, out[begin:end])
        return 0

    in_shares(share, layout[0], operand.numel())
    return codes


def in_format(tensor: Tensor, *, maps: bool) -> Tensor:
    """Return an operand as a product takes it: of a convolution, channels last in memory."""
    return tensor.contiguous(memory_format=torch.channels_last if maps else torch.contiguous_format)


def outputs_of(
    sums: Tensor,
    total: Tensor,
    of_layer: tuple[Tensor, Tensor, Tensor],
    shares: Sequence[float],
    means: Sequence[float],
    *,
    maps: bool = False,
) -> Tensor:
    """Return the outputs y of some steps, in the memory of the sums; bring S up to date.

    Parameters
    ----------
    sums
        Shape (steps * images, ..., rows), the steps one after the other; of ``maps``
        (steps * images, rows, down, across), channels last in memory.
    total
        S before the first of the steps, of one step's shape and memory format.
    of_layer
        Offset (rows,) or (rows, down, across), scale (rows,) and bias (rows,).
    shares, means
        a and m of each step.

    Examples
    --------
    >>> of_layer = torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([10.0])
    >>> outputs_of(torch.tensor([[5.0], [3.0]]), torch.zeros(1, 1), of_layer, (1, 0.5), (1, 1))
    tensor([[12.0000],
            [12.5000]])
    """
    if total.device.type == "cpu" and total.dtype in DTYPES and worth_a_loop(total):
        outputs_compiled(sums, total, of_layer, shares, means, maps)
        return sums
    offset, scale, bias = (over(values, maps) for values in of_layer)
    for now, share, mean in zip(sums.chunk(len(shares)), shares, means, strict=True):
        total.add_(now.sub_(offset).mul_(scale), alpha=share)
        now.copy_(total).mul_(mean).add_(bias)
    return sums


def over(values: Tensor, maps: bool) -> Tensor:
    """Return one number a row so that it broadcasts over outputs."""
    return values[:, None, None] if maps and values.ndim == 1 else values


def outputs_compiled(
    sums: Tensor,
    total: Tensor,
    of_layer: tuple[Tensor, Tensor, Tensor],
    shares: Sequence[float],
    means: Sequence[float],
    maps: bool,
) -> None:
    """Do so in one pass over memory."""
    from topospike.snn.kernels import sums_loop  # imports numba

    dtype, channels = DTYPES[total.dtype], len(of_layer[1])
    # several places of an image, each with all channels, make a long row
    places = total[0].numel() // channels
    places = math.gcd(places, power_of_two_below(LONG_ROW // channels))
    row = places * channels

    def rows(tensor: Tensor, *shape: int) -> Any:
        last = tensor.permute(0, 2, 3, 1) if maps else tensor
        return last.view(*shape, -1, row).numpy()

    def along(values: Tensor) -> Any:
        if values.ndim == 3:
            return values.permute(1, 2, 0).reshape(-1, row).contiguous().numpy()
        return values.detach().to(total.dtype).repeat(places).numpy()

    offset, scale, bias = map(along, of_layer)
    x, held = rows(sums, len(shares)), rows(total)
    given = (offset.reshape(-1, row), scale, bias), np.array(shares, dtype), np.array(means, dtype)
    in_shares(lambda begin, end: sums_loop(x, held, *given, begin, end), len(held), x.size)
