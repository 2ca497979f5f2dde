"""Simulate on an accelerator: a time step as one launch.

A step of a small network is hundreds of short kernels, and launching them takes longer than
running them. `StepGraph` captures a step as a CUDA graph and replays it for t = 1, 2, ...: images,
state and results lie in buffers of its own, and t is read from device memory, so nothing else
changes between replays. `GraphCache` keeps the last one and notices when it no longer fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from topospike.snn.device import clocked, first_line, times, warn_once
from topospike.snn.events import LayerRuns, state_of
from topospike.snn.fused import DTYPES
from topospike.snn.site import Site

WARM_UP = 2
"""Steps before a capture: libraries choose their algorithms, kernels are compiled."""


class StepGraph:
    """A time step, captured as a CUDA graph on buffers of its own.

    Parameters
    ----------
    step
        Takes the values of the image part and returns the results of a step.
    sites
        All sites; each must be a plain `Site` with a device kernel.
    cached
        Values of the image part: their shapes are those of all later runs.
    """

    def __init__(
        self,
        step: Callable[..., tuple[Any, ...]],
        sites: Sequence[Site],
        cached: tuple[Any, ...],
        device: torch.device,
    ) -> None:
        self.cached = tuple(v.clone() if isinstance(v, Tensor) else v for v in cached)
        self.clock = times(1, device).clone()
        for site in sites:
            site.clock = self.clock
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    step(*self.cached)
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(self.graph):
                self.results = step(*self.cached)
        self.state = [(site, site.decoded, site.spikes) for site in sites]

    def begin(self, cached: tuple[Any, ...]) -> None:
        """Start a run on other images of the same shape."""
        for mine, value in zip(self.cached, cached, strict=True):
            if isinstance(mine, Tensor):
                mine.copy_(value)
        for site, decoded, spikes in self.state:
            if decoded is not None:
                decoded.zero_()
            site.decoded, site.spikes = decoded, spikes

    def __call__(self, t: int) -> tuple[Any, ...]:
        """Take step t; the results are overwritten by the next one."""
        self.clock.copy_(times(t, self.clock.device))
        self.graph.replay()
        return self.results


class GraphCache:
    """The step captured last, for as long as shapes, course and parameters stay as they were."""

    def __init__(self) -> None:
        self._known: tuple[tuple[Any, ...], StepGraph] | None = None
        self._refused = False

    def get(
        self,
        course: tuple[Any, ...],
        run: LayerRuns,
        sites: Sequence[Site],
        cached: tuple[Any, ...],
    ) -> StepGraph | None:
        """Return the captured step, ready for the images, or ``None`` where none can be had.

        ``course`` is what else decides which step is taken. A graph holds addresses, so it is made
        anew when a parameter has changed.
        """
        if self._refused or not all(is_plain(site) for site in sites):
            return None
        weights = [*run.network.parameters(), *run.network.buffers()]
        states = tuple(state_of(weight) for weight in weights)
        key = course, layout_of(cached), states, torch.is_inference_mode_enabled()
        if self._known is None or self._known[0] != key:
            self._known = None  # gives its memory back first
            graph = captured(run, sites, cached, weights[0].device)
            if graph is None:
                self._refused = True
                return None
            self._known = key, graph
        self._known[1].begin(cached)
        return self._known[1]


def captured(
    run: LayerRuns, sites: Sequence[Site], cached: tuple[Any, ...], device: torch.device
) -> StepGraph | None:
    """Capture a step; warn once and return ``None`` if that is impossible."""
    for part in (*sites, run):
        part.time_step = 1
    try:
        return StepGraph(partial(run.plan.parts[1], run.network, run), sites, cached, device)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        warn_once(f"a time step cannot be captured as a CUDA graph ({first_line(error)})")
        for site in sites:  # what the attempt has left behind
            site.decoded = site.spikes = site.clock = None
        return None


def is_plain(site: Site) -> bool:
    """Tell whether all that changes in a site's step is its state and the clock."""
    single = site.threshold.dtype in DTYPES
    return type(site) is Site and single and clocked(site.neuron, site.coding)


def layout_of(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return what a captured step depends on: shapes, strides and precision, or plain numbers."""
    return tuple(
        (tuple(v.shape), v.stride(), v.dtype, v.device) if isinstance(v, Tensor) else v
        for v in values
    )
