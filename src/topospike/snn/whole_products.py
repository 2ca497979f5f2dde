"""Simulate: products of whole numbers, by the processor's 8-bit instructions where they are exact.

A weight is whole numbers of at most 8 bits with one scale a row; an operand is codes of 8 bits.
oneDNN multiplies unsigned codes by signed weights and adds in 32 bits; signed codes are shifted by
128, which it takes back, borders included. Whether this machine does so exactly is tried once:
without VNNI instructions the sums of pairs may saturate. Elsewhere the same numbers are multiplied
in floating point, wide enough that every sum is exact: slower, and the same result.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from topospike.snn.fused import WORTHWHILE, laid_out
from topospike.snn.scatter import in_shares

SHIFT = 128
"""What is added to a signed code so that it is unsigned."""

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
        """What codes are shifted by."""
        return SHIFT if self.signed else 0


@runtime_checkable
class Product(Protocol):
    """A product with one weight, for the length of a run."""

    def __call__(self, codes: Tensor, factor: float, onto: Tensor | None = None) -> Tensor:
        """Return ``factor * scale * (whole @ codes)``, added to ``onto`` (in place) if given."""
        ...


class EightBit:
    """The product by oneDNN, in float32 on a CPU."""

    def __init__(self, weight: WholeWeight) -> None:
        self.shift, self.settings = weight.shift, weight.settings
        self.scale = weight.scale.float()
        self.zeros = torch.zeros(len(self.scale), dtype=torch.int32)
        ops = torch.ops.onednn
        if self.settings:
            given = weight.whole, self.scale, 1.0, self.shift, *self.settings
            self.packed = ops.qconv_prepack(*given, None)
        else:
            self.packed = ops.qlinear_prepack(weight.whole, None)

    def __call__(self, codes: Tensor, factor: float, onto: Tensor | None = None) -> Tensor:
        """Multiply, and add in the same pass."""
        ops, result = torch.ops.onednn, (1.0, 0, torch.float32)
        given = codes, factor, self.shift, self.packed, self.scale, self.zeros
        product = ops.qconv2d_pointwise if self.settings else ops.qlinear_pointwise
        if onto is None:
            return product(*given, None, *self.settings, *result, "none", [], "")
        adding = (1.0, 0, "sum", 1.0, "none", [], "")
        if self.settings:
            product.binary(*given, onto, None, *self.settings, *result, *adding)
        else:
            product.binary(*given, onto, None, *result, *adding)
        return onto


class Floating:
    """The product in floating point, exact because no sum outgrows the format."""

    def __init__(self, weight: WholeWeight, like: Tensor) -> None:
        self.shift, self.settings, self.like = weight.shift, weight.settings, like.dtype
        most = 127 * weight.largest * weight.whole[0].numel()
        self.dtype = next(d for d, bound in EXACT.items() if most < bound or d is torch.float64)
        if like.dtype is torch.float64:
            self.dtype = torch.float64
        self.whole = weight.whole.to(like.device, self.dtype)
        scale = weight.scale.to(like.device, like.dtype)
        self.scale = scale[:, None, None] if self.settings else scale

    def __call__(self, codes: Tensor, factor: float, onto: Tensor | None = None) -> Tensor:
        """Multiply, then add."""
        signed = codes.to(self.dtype).sub_(self.shift)
        if self.settings:
            sums = functional.conv2d(signed, self.whole, None, *self.settings)
        else:
            sums = functional.linear(signed, self.whole)
        result = sums.to(self.like).mul_(self.scale)
        return result.mul_(factor) if onto is None else onto.add_(result, alpha=factor)


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
            codes = torch.full(rows, 255, dtype=torch.uint8)
            codes[1].random_(0, 256, generator=drawn)
            weight = WholeWeight(whole, torch.ones(9).double(), settings, 255, signed)
            exact = Floating(weight, torch.zeros((), dtype=torch.float64))(codes, 1.0)
            try:
                product = EightBit(weight)
                found = product(in_format(codes), 1.0)
                added = product(in_format(codes), 1.0, in_format(torch.zeros_like(found)))
            except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
                return f"this torch has no such product ({error})".splitlines()[0]
            if not (torch.equal(found.double(), exact) and torch.equal(added.double(), exact)):
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
    if operand.device.type != "cpu" or operand.numel() < WORTHWHILE:
        return (operand * unit).add_(shift + 0.5).to(torch.uint8)
    codes = torch.empty_like(operand, dtype=torch.uint8)
    order, layout, flat = laid_out(unit, operand)
    rows, out = (t.permute(order).reshape(layout).numpy() for t in (operand, codes))
    from topospike.snn.kernels import codes_loop  # imports numba

    factors, half = flat.numpy(), rows.dtype.type(shift + 0.5)

    def share(begin: int, end: int) -> int:
        codes_loop(rows[begin:end], factors, half, out[begin:end])
        return 0

    in_shares(share, layout[0], operand.numel())
    return codes


def in_format(tensor: Tensor) -> Tensor:
    """Return an operand with its channels last in memory, if it has maps."""
    return (
        tensor.contiguous(memory_format=torch.channels_last)
        if tensor.ndim == 4
        else tensor.contiguous()
    )
