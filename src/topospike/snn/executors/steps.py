"""Simulate: a run, of which single steps are evaluated, or several of them together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from topospike.snn.coding import SiteState
from topospike.snn.frames import Shown
from topospike.snn.fused import Kept
from topospike.snn.records import Block, StepRecord
from topospike.snn.site import Site, site_steps

if TYPE_CHECKING:
    from topospike.snn.executors.program import Program, State


class Step:
    """One step of a run while it is evaluated; the generated code calls `site` and `layer`.

    Attributes
    ----------
    ann
        The network's graph.
    t : int
        The step.
    sites, layers : list
        States after this step, where it has got so far; else those before it.
    kept : list of Kept
        What the sites have left.
    """

    def __init__(
        self, program: Program, t: int, state: State, *, record: bool, together: int
    ) -> None:
        self.program = program
        self.ann = program.network
        self.t = t
        self.record = record
        self.together = together
        self.sites, self.layers = list(state.sites), list(state.layers)
        self.kept = [Kept()] * len(self.sites)
        self._modules = program.sites

    def site(self, index: int, r_in: Tensor) -> Tensor | None:
        """Take the step of a site, or several one after the other; return its decoded output."""
        wanted = self.program.wanted[index]
        if self.record and not wanted.spikes:
            wanted = replace(wanted, spikes=True)
        site, state = self._modules[index], self.sites[index]
        still = self.program.of_image[index]
        taken = site_steps(site, self.t, self.together, r_in, state, wanted, still=still)
        self.sites[index], self.kept[index] = taken
        return self.kept[index].decoded

    def layer(self, index: int, *values: Any) -> Tensor:
        """Return the output of a layer evaluated in another form."""
        form = self.program.forms[index]
        output, self.layers[index] = form.step(self.layers[index], self, values)
        return output

    def state_of(self, node: fx.Node) -> SiteState:
        """Return the state of the site that a node calls."""
        return self.sites[self.program.calls[node]]

    def spikes_of(self, node: fx.Node) -> Tensor:
        """Return what the site that a node calls has emitted, of all steps taken together."""
        spikes = self.kept[self.program.calls[node]].spikes
        if spikes is None:
            raise RuntimeError(f"the spikes of {node.target} were not recorded")
        return spikes

    def codes_of(self, node: fx.Node) -> Tensor | None:
        """Return the same as codes of 8 bits, or ``None`` where there are none."""
        return self.kept[self.program.calls[node]].codes


@torch.no_grad()
def blocks(
    program: Program,
    shown: Shown,
    timesteps: int,
    *,
    together: int = 1,
    layers: tuple[Any, ...] | None = None,
    record: bool = False,
) -> Iterator[Block]:
    """Yield the steps of one part of a batch, so many together (`division` knows how many).

    With ``record`` the sites keep their spikes; ``layers`` are what `Program.first_layers` has
    returned just now.
    """
    names = [site.name for site in program.sites]
    state = program.start(shown.first, together=together, layers=layers)
    first = max(program.silent_from, shown.length)
    first = first if record or program.sent is not None else math.inf
    moments, t, silent, logits = shown.moments(timesteps), 1, False, torch.empty(0)
    steps = together
    while now := list(itertools.islice(moments, together)):
        if t > 1 and now[0].changed:
            state = program.show(now[0].inputs, state)
        if len(now) < steps:  # fewer are left: a smaller batch
            steps = len(now)
            state = program.start(shown.first, state, together=steps)
        if not silent:  # nothing would change
            logits, state = program.step(t, state, record=record, together=steps)
            logits = logits.unflatten(0, (steps, len(logits) // steps))
            if t + steps > first and state.is_silent:  # a single step more is shown again
                silent, together = steps == 1, 1
        held = dict(zip(names, state.sites, strict=True))
        kept = dict(zip(names, state.kept, strict=False))
        values = program.values_of_steps(state.values, steps)
        each = zip(itertools.count(t), logits, values, now, strict=False)
        records = (StepRecord(k, answer, v, held, silent, m) for k, answer, v, m in each)
        yield Block(tuple(records), logits, kept)
        t += steps


class Visitor(fx.Interpreter):
    """Runs the ANN once with ``visit(site, r_in)`` in the place of every site."""

    def __init__(self, network: fx.GraphModule, visit: Callable[[Site, Tensor], Tensor]) -> None:
        super().__init__(network)
        self.visit = visit

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Hand a site's input to the visitor."""
        return self.visit(self.fetch_attr(str(target)), args[0])
