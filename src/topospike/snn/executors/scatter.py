"""Simulate: weights laid out for events, and y += W s over the events of a batch.

The loops are in `topospike.snn.executors.event_kernels`; here tensors become arrays and images are
shared among threads. A linear layer is a convolution of 1 x 1 maps, one for each row of its
operand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.snn.batches import in_shares

SORT_ABOVE = 1 << 20
"""Weights above which events are sorted by channel: the rows no longer fit the cache together."""

POINT = (1, 1, 0, 0, 1, 1)
"""Geometry of a linear layer: stride, padding and dilation, down and across."""

Geometry = tuple[int, int, int, int, int, int]


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A weight as events need it: by input channel, then tap, then output channel.

    Either ``rows`` (in, down, across reversed, out per group), or the existing links alone in
    compressed rows ``start``, ``target``, ``weight``, one row for each (in, down, across).
    """

    taps: tuple[int, int]
    channels: int
    groups: int
    rows: Any = None
    start: Any = None
    target: Any = None
    weight: Any = None

    @classmethod
    def of(cls, weight: Tensor, *, groups: int, links: bool) -> PackedWeight:
        """Lay out the weight (out, in per group, down, across) or (out, in)."""
        weight = weight.detach()
        weight = weight[:, :, None, None] if weight.ndim == 2 else weight
        out, inputs, high, wide = weight.shape
        grouped = weight.reshape(groups, out // groups, inputs, high, wide)
        by_input = grouped.permute(0, 2, 3, 4, 1).reshape(-1, high, wide, out // groups)
        channels = by_input.shape[0]
        if not links:
            rows = by_input.flip(2).contiguous().numpy()
            return cls((high, wide), channels, groups, rows=rows)
        exists = by_input != 0
        counts = exists.flatten(0, 2).sum(1).numpy()
        source, _, _, target = exists.nonzero().T
        target = target + source // inputs * (out // groups)
        return cls(
            (high, wide),
            channels,
            groups,
            start=np.concatenate([[0], counts.cumsum()]),
            target=target.to(torch.int32).numpy(),
            weight=by_input[exists].numpy(),
        )


def event_form(
    events: Tensor,
    y: Tensor,
    weight: PackedWeight,
    geometry: Geometry,
    at_most: int,
    factor: float,
) -> None:
    """Add ``factor`` W ``events`` to ``y`` in place, at the cost of the non-zero events.

    Parameters
    ----------
    events
        (images, in, height, width), or (..., in) of a linear layer; mostly zero.
    y
        Output of the layer: channels last in memory, or (..., out) and contiguous.
    at_most
        Upper bound of the number of events: room for so many is set aside.
    """
    from topospike.snn.executors import event_kernels

    if events.ndim == 4 and y.ndim == 4 and geometry is not POINT:
        high, wide = events.shape[2:]
        source = events.permute(0, 2, 3, 1).reshape(-1, events.shape[1]).numpy()
        out = y.permute(0, 2, 3, 1).numpy()
    else:
        high = wide = 1
        source = events.reshape(-1, events.shape[-1]).numpy()
        out = y.view(-1, 1, 1, y.shape[-1]).numpy()
    per_image = high * wide
    sort = weight.rows is not None and weight.rows.size > SORT_ABOVE

    def share(begin: int, end: int) -> int:
        part = source[begin * per_image : end * per_image]
        room = min(at_most, part.size) + 1
        lists = np.empty(room, np.int64), np.empty(room, np.int32), np.empty(room, part.dtype)
        flat = part.reshape(-1)
        bits = flat.view(np.int32 if part.itemsize == 4 else np.int64)
        found = event_kernels.collect(flat, bits, part.shape[1], *lists)
        lists[2][:found] *= part.dtype.type(factor)
        if sort:
            lists = event_kernels.by_channel(*lists, found, weight.channels)
        shape = (high, wide), geometry
        if weight.rows is None:
            links = weight.start, weight.target, weight.weight
            event_kernels.scatter_links(*lists, found, out[begin:end], *links, *shape, weight.taps)
        else:
            event_kernels.scatter_rows(
                *lists, found, out[begin:end], weight.rows, *shape, weight.groups
            )
        return found

    in_shares(share, len(out), events.numel())


@dataclass(frozen=True, eq=False)
class CompressedLinear:
    """The links of a linear layer in compressed rows, one row for each output.

    ``y = x W' + b`` then costs what the links cost: each adds a stretch of the batch at a time.
    """

    start: Any
    source: Any
    weight: Any

    @classmethod
    def of(cls, weight: Tensor) -> CompressedLinear:
        """Compress a weight (out, in)."""
        weight = weight.detach()
        exists = weight != 0
        start = np.concatenate([[0], exists.sum(1).numpy().cumsum()])
        return cls(start, exists.nonzero()[:, 1].to(torch.int32).numpy(), weight[exists].numpy())

    def __call__(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return the layer's output (..., out) for x (..., in)."""
        from topospike.snn.executors import event_kernels

        across = x.reshape(-1, x.shape[-1]).t().contiguous()
        outputs = len(self.start) - 1
        y = across.new_zeros(outputs, across.shape[1])
        source, out = across.numpy(), y.numpy()

        def share(begin: int, end: int) -> int:
            event_kernels.add_links(
                self.start[begin : end + 1], self.source, self.weight, source, out[begin:end]
            )
            return 0

        in_shares(share, outputs, self.weight.size * across.shape[1])
        result = y.t().reshape(*x.shape[:-1], outputs)
        return result if bias is None else result.add_(bias)
