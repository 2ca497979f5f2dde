"""Simulate: what a step of a layer is expected to cost in its dense and its event form.

    dense   multiply-accumulates x dense_mac + weight bytes x byte
    events  call + elements x scan + events x links of an event x (row_mac or link)
            + weight bytes of the channels with events x byte

The event executor takes the cheaper form, layer by layer and step by step. The constants are
fixed, so that the same network and images take the same course on every machine and day;
`CostModel.measured` replaces them by what this machine needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class LayerSize:
    """What the cost of a layer depends on: all per image, borders counted as if inside.

    ``elements`` of the operand, ``channels`` among them, ``macs`` with every link present,
    ``weight_bytes``, and the share of links that exist.
    """

    elements: int
    channels: int
    macs: int
    weight_bytes: int
    density: float


@dataclass(frozen=True)
class CostModel:
    """Nanoseconds of one thread: for a dense MAC, an event's MAC in rows, a single link, ...

    The defaults were measured on an AMD EPYC of the fourth generation (AVX-512, float32).
    ``links_below`` is the density under which single links beat whole rows.

    Examples
    --------
    >>> size = LayerSize(4096, 256, 37_748_736, 2_359_296, density=0.22)
    >>> model = CostModel()
    >>> [model.prefers_events(size, images=64, events=64 * n) for n in (100, 2000)]
    [True, False]
    """

    dense_mac: float = 0.02
    row_mac: float = 0.075
    link: float = 0.9
    scan: float = 0.6
    byte: float = 0.08
    call: float = 30_000.0
    links_below: float = 0.08

    def dense(self, size: LayerSize, images: int) -> float:
        """Return the expected nanoseconds of the dense form."""
        return images * size.macs * self.dense_mac + size.weight_bytes * self.byte

    def events(self, size: LayerSize, images: int, events: int) -> float:
        """Return the expected nanoseconds of the event form."""
        per_event = size.macs / size.elements
        if size.density < self.links_below:
            work = per_event * size.density * self.link
        else:
            work = per_event * self.row_mac
        touched = min(1.0, events / size.channels) * size.weight_bytes * min(1.0, 2 * size.density)
        scanned = images * size.elements * self.scan
        return self.call + scanned + events * work + touched * self.byte

    def prefers_events(self, size: LayerSize, images: int, events: int) -> bool:
        """Tell whether the event form is expected to be the faster one."""
        return self.events(size, images, events) < self.dense(size, images)

    @classmethod
    def measured(cls) -> CostModel:
        """Return a model with this machine's own cost of a dense and an event MAC (1 s)."""
        from topospike.snn.executors.scatter import PackedWeight, event_form

        x = torch.randn(8, 128, 16, 16, generator=torch.Generator().manual_seed(0))
        x = x.to(memory_format=torch.channels_last)
        weight, y = torch.randn(128, 128, 3, 3), torch.zeros_like(x)
        sparse = torch.where(x.abs() > 1.9, x, 0.0)  # 6 % of the elements
        found = int(sparse.count_nonzero())
        packed = PackedWeight.of(weight, groups=1, links=False)
        macs = weight[0].numel() * x.numel()
        geometry = (1, 1, 1, 1, 1, 1)
        dense = fastest(lambda: torch.conv2d(x, weight, padding=1))
        empty = fastest(lambda: event_form(torch.zeros_like(x), y, packed, geometry, 0, 1.0))
        full = fastest(lambda: event_form(sparse, y, packed, geometry, found, 1.0))
        return cls(
            dense_mac=dense / macs,
            row_mac=max(full - empty, 0.0) / (found * macs / x.numel()),
            scan=empty / x.numel(),
        )


def fastest(action: Callable[[], object], repetitions: int = 7) -> float:
    """Return the least processor time of an action in nanoseconds, after one warm-up."""
    action()
    times = []
    for _ in range(repetitions):
        begin = time.process_time_ns()
        action()
        times.append(time.process_time_ns() - begin)
    return float(min(times))
