"""Simulate: the form that follows events. A layer's output is kept, and a step's spikes change it.

    held    y += W s / g            mean    y = ((g-1) y + b + W s) / g

with the gain g of the coding; both equal ``W r_out + b`` up to rounding. The cost follows the
neurons that fired and, in very sparse layers, the links that exist. Whenever events are many the
dense form is taken instead (`topospike.snn.executors.forms`); it is also taken every `REFRESH`
steps, so that rounding errors of at most ``REFRESH`` steps add up. The first step is dense. Sites
are unaffected.

A layer can follow events if only maps that are linear and free of constants lie between it and the
sites that feed it: then what the spikes of a step change in its output is W times that map of the
spikes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from topospike.snn.coding import Coding, SiteState
from topospike.snn.executors.forms import (
    CostModel,
    Form,
    LaidOut,
    LayerSize,
    bias_of,
    density,
    memory_format_of,
    weight_of,
)
from topospike.snn.executors.paths import geometry_of, path_function, way_of
from topospike.snn.executors.scatter import POINT, Geometry, PackedWeight, event_form
from topospike.wiring.graph import fetch
from topospike.wiring.layers import Layer

if TYPE_CHECKING:
    from topospike.snn.executors.steps import Step
    from topospike.snn.network import SpikingNetwork

aten = torch.ops.aten

REFRESH = 16
"""Steps after which a layer is evaluated densely again."""


@dataclass(frozen=True)
class EventState:
    """What a layer that follows events holds between two steps of a run.

    ``weight`` and ``bias`` are those of the start of the run, ``output`` is y, ``refreshed`` the
    step at which it was last evaluated densely, ``form`` what was done at the present step
    (``dense`` or ``events``), ``packed`` the weight as events need it.
    """

    weight: Tensor
    bias: Tensor | None
    output: Tensor | None = None
    refreshed: int = 0
    form: str = ""
    packed: PackedWeight | None = None


@dataclass(frozen=True, eq=False)
class EventForm:
    """A layer that can follow events.

    ``path`` maps the values of the nodes that call ``sites`` (decoded outputs or spikes), followed
    by those of ``numbers`` (sizes of the batch that reshapes ask for), to the layer's operand.
    """

    name: str
    node: fx.Node
    sites: tuple[fx.Node, ...]
    numbers: tuple[fx.Node, ...]
    coding: Coding
    costs: CostModel
    path: Callable[..., Tensor] | None
    geometry: Geometry
    groups: int
    size: LayerSize
    laid: LaidOut = field(default_factory=LaidOut, repr=False)

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """The nodes whose values `step` is given."""
        return (*self.sites, *self.numbers)

    def start(self, network: nn.Module) -> EventState:
        """Begin with the layer's parameters and nothing else."""
        return EventState(fetch(network, self.node.args[1]), bias_of(self.node, network))

    def step(
        self, held: EventState, run: Step, values: tuple[Any, ...]
    ) -> tuple[Tensor, EventState]:
        """Return the layer's output at this step, in the cheaper form."""
        y, sites = held.output, [run.state_of(node) for node in self.sites]
        images = len(values[0])
        events = min(sum(site.events for site in sites), images * self.size.elements)
        stale = y is None or run.t - held.refreshed >= REFRESH
        if y is None or stale or not self.costs.prefers_events(self.size, images, events):
            y = self._dense(held, run.ann, values)
            return y, EventState(held.weight, held.bias, y, run.t, "dense", held.packed)
        packed = held.packed or self._packed(held.weight)
        self._add_events(y, packed, held.bias, sites, values[len(sites) :], events, run)
        return y, EventState(held.weight, held.bias, y, held.refreshed, "events", packed)

    def operand(self, network: nn.Module, values: tuple[Any, ...]) -> Tensor:
        """Return what arrives at the layer from values of its sites and the numbers."""
        return values[0] if self.path is None else self.path(network, *values)

    def _dense(self, held: EventState, network: nn.Module, values: tuple[Any, ...]) -> Tensor:
        operand, point = self.operand(network, values), self.geometry is POINT
        if not point:
            operand = operand.contiguous(memory_format=memory_format_of(self.node))
        y = self.node.target(operand, held.weight, held.bias, *self.node.args[3:])  # pyright: ignore[reportCallIssue]
        return y.contiguous() if point else y.contiguous(memory_format=torch.channels_last)

    def _packed(self, weight: Tensor) -> PackedWeight:
        links = self.size.density < self.costs.links_below
        pack = partial(PackedWeight.of, groups=self.groups, links=links)
        return self.laid.out("links" if links else "rows", weight, pack)

    def _add_events(
        self,
        y: Tensor,
        packed: PackedWeight,
        bias: Tensor | None,
        sites: list[SiteState],
        numbers: tuple[Any, ...],
        fired_at_most: int,
        run: Step,
    ) -> None:
        spikes = tuple(site.spikes for site in sites)
        if any(s is None for s in spikes):
            raise RuntimeError(f"{self.name}: the spikes of its sites were not recorded")
        g = self.coding.gain(run.t)
        if self.coding.averages:
            y.mul_((g - 1) / g)
            if bias is not None:
                y.add_((bias if self.geometry is POINT else bias[:, None, None]) / g)
        events = self.operand(run.ann, (*spikes, *numbers))
        # where pools overlap, one spike arrives several times
        room = fired_at_most if self.path is None else events.numel()
        event_form(events, y, packed, self.geometry, room, 1.0 / g)


def event_forms(snn: SpikingNetwork) -> list[Form]:
    """Return the layers of a network that can follow events, each step in the form of less cost."""
    found = (event_form_of(layer, snn.ann, snn.costs) for layer in snn.wiring)
    return [form for form in found if form is not None]


def event_form_of(layer: Layer, network: fx.GraphModule, costs: CostModel) -> EventForm | None:
    """Return how a layer follows events, or ``None`` if it cannot."""
    node = layer.node
    if node.target not in (aten.linear.default, aten.conv2d.default) or layer.fed_by != "spikes":
        return None
    weight = weight_of(node, network)
    found = way_of(layer, network)
    if weight is None or found is None:
        return None
    coding, numbers = found
    geometry, groups = geometry_of(node)
    operand, output = (list(n.meta["val"].shape[1:]) for n in (layer.operand, node))
    size = LayerSize(
        elements=math.prod(map(int, operand)),
        channels=int(weight.shape[1]) * groups,
        macs=math.prod(map(int, output)) * weight[0].numel(),
        weight_bytes=weight.nbytes,
        density=density(weight),
    )
    path = path_function(layer, numbers) if layer.path else None
    return EventForm(
        layer.name, node, layer.sites, numbers, coding, costs, path, geometry, groups, size
    )
