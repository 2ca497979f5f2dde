"""Simulate: the event executor. A layer's output is kept, and the spikes of a step change it.

    differential   y += W s / t            rate   y = ((t-1) y + b + W s) / t

Both equal ``W r_out + b`` of the decoded executor up to rounding. The cost follows the neurons that
fired and, in very sparse layers, the links that exist. Whenever events are many the dense form is
taken instead (`topospike.snn.cost`); it is also taken every `REFRESH` steps, so that rounding
errors of at most ``REFRESH`` steps add up. The first step is dense. Sites are unaffected.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.errors import ConfigError
from topospike.snn.cost import CostModel
from topospike.snn.dense import fetch, memory_format_of
from topospike.snn.layers import EventLayer, Program, weight_of
from topospike.snn.scatter import POINT, CompressedLinear, PackedWeight, event_form

REFRESH = 16
"""Steps after which a layer is evaluated densely again."""

EXECUTORS = ("decoded", "bf16", "event")


def check_executor(name: str, x: Tensor) -> None:
    """Raise `ConfigError` unless the executor exists and can run on the images' device."""
    if name not in EXECUTORS:
        raise ConfigError(f"executor is {name!r}; it must be one of {', '.join(EXECUTORS)}.")
    if name == "event" and (
        x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64)
    ):
        raise ConfigError(
            f"the event executor was given {x.dtype} images on {x.device}; it runs on a CPU in "
            "float32 or float64. Move the network and the images there, or use "
            "executor='decoded'."
        )


class WeightCache:
    """Weights laid out for events and links, made once and again when a weight has changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[tuple[Any, ...], Any]] = {}

    def get(self, name: str, kind: str, weight: Tensor, make: Callable[[Tensor], Any]) -> Any:
        """Return ``make(weight)``, remembered as long as the weight is the same and untouched."""
        state = state_of(weight)
        known = self._known.get((name, kind))
        if known is None or known[0] != state:
            known = self._known[(name, kind)] = state, make(weight)
        return known[1]


def state_of(weight: Tensor) -> tuple[Any, ...]:
    """Return what changes when a weight is replaced or written to."""
    version = 0 if weight.is_inference() else weight._version
    return weight.data_ptr(), version, weight.dtype, weight.shape


class LayerRuns:
    """What the layers of one run keep from step to step; the generated step calls its methods.

    Attributes
    ----------
    time_step
        The current step, set by the network.
    forms : dict
        Layer -> which form it took at each step, ``dense`` or ``events``.
    """

    def __init__(
        self, network: nn.Module, plan: Program, cache: WeightCache, costs: CostModel
    ) -> None:
        self.network = network
        self.plan = plan
        self.cache = cache
        self.costs = costs
        self.time_step = 0
        self.forms: dict[str, list[str]] = {layer.name: [] for layer in plan.event_layers}
        self._output: dict[int, Tensor] = {}
        self._refreshed: dict[int, int] = {}

    def follow(self, index: int, *values: Any) -> Tensor:
        """Return the output of an event layer at this step, in the cheaper form.

        ``values`` are the decoded outputs of its sites, then its numbers.
        """
        layer = self.plan.event_layers[index]
        y = self._output.get(index)
        stale = y is None or self.time_step - self._refreshed[index] >= REFRESH
        images = len(values[0])
        events = min(sum(map(fired, layer.sites)), images * layer.size.elements)
        if y is None or stale or not self.costs.prefers_events(layer.size, images, events):
            self.forms[layer.name].append("dense")
            self._refreshed[index] = self.time_step
            self._output[index] = self._dense(layer, values)
            return self._output[index]
        self.forms[layer.name].append("events")
        self._add_events(layer, y, values[len(layer.sites) :], events)
        return y

    def _dense(self, layer: EventLayer, values: tuple[Any, ...]) -> Tensor:
        operand = layer.operand(self.network, values)
        if layer.geometry is POINT:
            return evaluate(layer.node, operand, self.network).contiguous()
        operand = operand.contiguous(memory_format=memory_format_of(layer.node))
        y = evaluate(layer.node, operand, self.network)
        return y.contiguous(memory_format=torch.channels_last)

    def _add_events(
        self, layer: EventLayer, y: Tensor, numbers: tuple[Any, ...], fired_at_most: int
    ) -> None:
        weight = weight_of(layer.node, self.network)
        spikes = tuple(site.spikes for site in layer.sites)
        if weight is None or any(s is None for s in spikes):
            raise RuntimeError(f"{layer.name} has no weight, or its sites have not run")
        links = layer.size.density < self.costs.links_below
        packed = self.cache.get(
            layer.name,
            "links" if links else "rows",
            weight,
            lambda w: PackedWeight.of(w, groups=layer.groups, links=links),
        )
        t = self.time_step
        if not layer.differential:
            y.mul_((t - 1) / t)
            bias = bias_of(layer.node, self.network)
            if bias is not None:
                y.add_((bias if layer.geometry is POINT else bias[:, None, None]) / t)
        events = layer.operand(self.network, (*spikes, *numbers))
        # where pools overlap, one spike arrives several times
        room = fired_at_most if layer.path is None else events.numel()
        event_form(events, y, packed, layer.geometry, room, 1.0 / t)

    def compressed(self, index: int, operand: Tensor) -> Tensor:
        """Return the output of a linear layer with few links."""
        node = self.plan.compressed[index]
        weight = weight_of(node, self.network)
        if weight is None:
            raise RuntimeError(f"{node} has no weight of its own")
        layer = self.cache.get(node.name, "linear", weight, CompressedLinear.of)
        return layer(operand, bias_of(node, self.network))

    def dense(self, index: int, *values: Any) -> Tensor:
        """Return the output of a layer evaluated in a precision or memory format of its own."""
        return self.plan.dense[index].evaluate(self.network, self.cache.get, values)


def fired(site: Any) -> int:
    """Return how many neurons of a site's batch fired at this step."""
    return int(site.spikes.count_nonzero()) if site.fired is None else site.fired


def bias_of(node: fx.Node, network: nn.Module) -> Tensor | None:
    """Return the bias of a layer."""
    bias = node.args[2] if len(node.args) > 2 else None
    return fetch(network, bias) if isinstance(bias, fx.Node) else None


def evaluate(node: fx.Node, operand: Tensor, network: nn.Module) -> Tensor:
    """Evaluate a weight layer as the graph would."""
    weight, bias = weight_of(node, network), bias_of(node, network)
    return node.target(operand, weight, bias, *node.args[3:])  # pyright: ignore[reportCallIssue]
