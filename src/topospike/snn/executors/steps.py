"""Simulate: one step of a run while it is evaluated, or several steps taken together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from topospike.snn.coding import SiteState
from topospike.snn.fused import Kept
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
        self._kept: dict[int, Kept] = {}
        self._modules = program.sites

    def site(self, index: int, r_in: Tensor) -> Tensor | None:
        """Take the step of a site, or several one after the other; return its decoded output."""
        wanted = self.program.wanted[index]
        if self.record and not wanted.spikes:
            wanted = replace(wanted, spikes=True)
        site, state = self._modules[index], self.sites[index]
        still = self.program.of_image[index]
        taken = site_steps(site, self.t, self.together, r_in, state, wanted, still=still)
        self.sites[index], self._kept[index] = taken
        return self._kept[index].decoded

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
        spikes = self._kept[self.program.calls[node]].spikes
        if spikes is None:
            raise RuntimeError(f"the spikes of {node.target} were not recorded")
        return spikes

    def codes_of(self, node: fx.Node) -> Tensor | None:
        """Return the same as codes of 8 bits, or ``None`` where there are none."""
        return self._kept[self.program.calls[node]].codes


class Visitor(fx.Interpreter):
    """Runs the ANN once with ``visit(site, r_in)`` in the place of every site."""

    def __init__(self, network: fx.GraphModule, visit: Callable[[Site, Tensor], Tensor]) -> None:
        super().__init__(network)
        self.visit = visit

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
        """Hand a site's input to the visitor."""
        return self.visit(self.fetch_attr(str(target)), args[0])
