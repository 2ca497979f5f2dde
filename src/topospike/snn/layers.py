"""Simulate: which weight layers of a network can follow events or links, found once in its graph.

A layer can follow events if only maps that are linear and free of constants lie between it and the
sites that feed it: then what the spikes of a step change in its output is W times that map of the
spikes. A linear layer with few links can be evaluated on those alone whatever feeds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.snn.coding import Differential, Rate
from topospike.snn.cost import LayerSize
from topospike.snn.dense import DenseLayer, bf16_layers, fetch, formatted_layers
from topospike.snn.scatter import POINT, Geometry
from topospike.snn.site import Site
from topospike.snn.split import (
    Substitute,
    TimeParts,
    copy_into,
    generated_function,
    split_in_time,
    timeless_nodes,
)
from topospike.snn.wiring import Layer, find_weight_layers

aten = torch.ops.aten

FEW_LINKS = 0.05
"""Density below which a linear layer is evaluated on its links alone."""

LARGE = 1 << 16
"""Weights from which on that is worth it."""

LINEAR_MAPS = {
    aten.avg_pool1d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.mean.dim,
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
    aten.unflatten.int, aten.permute.default, aten.transpose.int, aten.squeeze.dim,
    aten.squeeze.dims, aten.unsqueeze.default, aten.clone.default, aten.contiguous.default,
    aten.alias.default, aten.detach.default, aten.slice.Tensor, aten.select.int,
    aten.cat.default, aten.add.Tensor, aten.sub.Tensor,
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class EventLayer:
    """A layer that can follow events.

    ``path`` maps the values of ``sites`` (decoded outputs or spikes), followed by those of
    ``numbers`` (sizes of the batch that reshapes ask for), to the layer's operand.
    """

    name: str
    node: fx.Node
    sites: tuple[Site, ...]
    numbers: tuple[fx.Node, ...]
    path: Callable[..., Tensor] | None
    geometry: Geometry
    groups: int
    size: LayerSize

    @property
    def differential(self) -> bool:
        """Whether an event corrects a held value (else it enters a mean)."""
        return isinstance(self.sites[0].coding, Differential)

    def operand(self, network: nn.Module, values: tuple[Any, ...]) -> Tensor:
        """Return what arrives at the layer from values of its sites and the numbers."""
        return values[0] if self.path is None else self.path(network, *values)


@dataclass(frozen=True)
class Program:
    """The generated halves of a run, and the layers that its steps hand to the run."""

    parts: TimeParts
    event_layers: tuple[EventLayer, ...]
    compressed: tuple[fx.Node, ...]
    dense: tuple[DenseLayer, ...]

    @property
    def channels_last(self) -> bool:
        """Whether images are best handed over with their channels last in memory."""
        formats = {layer.memory_format for layer in self.dense}
        return bool(self.event_layers) or torch.channels_last in formats


def program(network: fx.GraphModule, watched: tuple[fx.Node, ...], *, executor: str) -> Program:
    """Return how a network is simulated: which layers follow events or links, which are dense."""
    substitutes: dict[fx.Node, Substitute] = {}
    following: list[EventLayer] = []
    compressed: list[fx.Node] = []
    for wiring in find_weight_layers(network):
        layer = event_layer(wiring, network) if executor == "event" else None
        if layer is not None:
            inputs = (*wiring.sites, *layer.numbers)
            substitutes[wiring.node] = Substitute("follow", len(following), inputs)
            following.append(layer)
        elif has_few_links(wiring, network):
            substitutes[wiring.node] = Substitute("compressed", len(compressed), wiring.operands)
            compressed.append(wiring.node)
    dense = dense_layers(network, executor)
    dense = tuple(layer for layer in dense if layer.node not in substitutes)
    for index, layer in enumerate(dense):
        substitutes[layer.node] = Substitute("dense", index, layer.inputs)
    parts = split_in_time(network, watched, substitutes)
    return Program(parts, tuple(following), tuple(compressed), dense)


def dense_layers(network: fx.GraphModule, executor: str) -> list[DenseLayer]:
    """Return the products of a step that are not evaluated just as the graph has them."""
    timeless = timeless_nodes(network)
    changing = [node for node in network.graph.nodes if node not in timeless]
    if executor == "bf16":
        return bf16_layers(network, changing)
    return formatted_layers(network, changing) if executor == "decoded" else []


def has_few_links(wiring: Layer, network: nn.Module) -> bool:
    """Tell whether a layer that runs every step is cheaper on its links alone."""
    if wiring.node.target is not aten.linear.default or wiring.fed_by == "image":
        return False
    weight = weight_of(wiring.node, network)
    if weight is None or weight.device.type != "cpu" or weight.numel() < LARGE:
        return False
    return weight.dtype in (torch.float32, torch.float64) and density(weight) < FEW_LINKS


def density(weight: Tensor) -> float:
    """Return the share of weights that are not zero."""
    return int(weight.count_nonzero()) / max(weight.numel(), 1)


def weight_of(node: fx.Node, network: nn.Module) -> Tensor | None:
    """Return the weight of a layer that reads it directly, or ``None``."""
    weight = node.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    return fetch(network, weight)


def event_layer(wiring: Layer, network: fx.GraphModule) -> EventLayer | None:
    """Return how a layer follows events, or ``None`` if it cannot."""
    node = wiring.node
    if node.target not in (aten.linear.default, aten.conv2d.default) or wiring.fed_by != "spikes":
        return None
    weight = weight_of(node, network)
    sites = tuple(network.get_submodule(str(site.target)) for site in wiring.sites)
    codings = {type(site.coding) for site in sites if isinstance(site, Site)}
    if weight is None or len(codings) != 1 or not codings <= {Differential, Rate}:
        return None
    if not is_linear_map(wiring):
        return None
    geometry, groups = geometry_of(node)
    operand, output = (list(n.meta["val"].shape[1:]) for n in (wiring.operand, node))
    size = LayerSize(
        elements=math.prod(map(int, operand)),
        channels=int(weight.shape[1]) * groups,
        macs=math.prod(map(int, output)) * weight[0].numel(),
        weight_bytes=weight.nbytes,
        density=density(weight),
    )
    numbers = numbers_of(wiring)
    path = path_function(wiring, numbers) if wiring.path else None
    return EventLayer(wiring.name, node, sites, numbers, path, geometry, groups, size)  # pyright: ignore[reportArgumentType]


def is_linear_map(wiring: Layer) -> bool:
    """Tell whether the way from the sites maps zero to zero and sums to sums."""
    inside = {*wiring.path, *wiring.sites, *numbers_of(wiring)}
    return all(
        node.target in LINEAR_MAPS and all(parent in inside for parent in node.all_input_nodes)
        for node in wiring.path
    ) and all(isinstance(node.args[1], fx.Node) for node in wiring.path if is_sum(node))


def numbers_of(wiring: Layer) -> tuple[fx.Node, ...]:
    """Return the nodes on the way whose values are plain numbers: sizes of the batch."""
    parents = [parent for node in wiring.path for parent in node.all_input_nodes]
    inside = {*wiring.path, *wiring.sites}
    outside = [parent for parent in dict.fromkeys(parents) if parent not in inside]
    return tuple(node for node in outside if not isinstance(node.meta.get("val", Tensor()), Tensor))


def is_sum(node: fx.Node) -> bool:
    """Tell whether a node adds two things (the second may be a number, which is no linear map)."""
    return node.target in (aten.add.Tensor, aten.sub.Tensor)


def geometry_of(node: fx.Node) -> tuple[Geometry, int]:
    """Return stride, padding, dilation (down and across) and the groups of a layer."""
    if node.target is aten.linear.default:
        return POINT, 1
    stride, padding, dilation, groups = (
        node.args[place] if len(node.args) > place else default
        for place, default in ((3, 1), (4, 0), (5, 1), (6, 1))
    )
    return (*pair(stride), *pair(padding), *pair(dilation)), int(groups)  # pyright: ignore[reportArgumentType, reportReturnType]


def pair(value: Any) -> tuple[int, int]:
    """Return (down, across) of a setting given once or twice."""
    down, across = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return int(down), int(across)


def path_function(wiring: Layer, numbers: tuple[fx.Node, ...]) -> Callable[..., Tensor]:
    """Generate ``path(network, *values of the sites, *numbers) -> operand``."""
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in (*wiring.sites, *numbers)}
    for node in wiring.path:
        copies[node] = copy_into(graph, node, copies)
    graph.output(copies[wiring.operand])
    graph.eliminate_dead_code()
    return generated_function(graph)
