"""Simulate: from the sums of whole numbers of some steps to the outputs of a layer.

    S_t = S_(t-1) + a_t scale (sums_t - offset)            y_t = m_t S_t + bias

with a_t = 1/g_t and m_t = 1 for held values, a_t = 1 and m_t = 1/g_t for means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor

from topospike.snn.fused import DTYPES, LONG_ROW, WORTHWHILE, power_of_two_below
from topospike.snn.scatter import in_shares


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
    >>> import torch
    >>> of_layer = torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([10.0])
    >>> outputs_of(torch.tensor([[5.0], [3.0]]), torch.zeros(1, 1), of_layer, (1, 0.5), (1, 1))
    tensor([[12.0000],
            [12.5000]])
    """
    if total.device.type == "cpu" and total.dtype in DTYPES and total.numel() >= WORTHWHILE:
        compiled(sums, total, of_layer, shares, means, maps)
        return sums
    offset, scale, bias = (over(values, maps) for values in of_layer)
    for now, share, mean in zip(sums.chunk(len(shares)), shares, means, strict=True):
        total.add_(now.sub_(offset).mul_(scale), alpha=share)
        now.copy_(total).mul_(mean).add_(bias)
    return sums


def over(values: Tensor, maps: bool) -> Tensor:
    """Return one number a row so that it broadcasts over outputs."""
    return values[:, None, None] if maps and values.ndim == 1 else values


def compiled(
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
