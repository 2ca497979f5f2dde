"""Which site feeds which weight layer, through what, over which links: found once, at conversion.

For every convolution, linear layer and product of two activations, walk from its operand back to
the sites. Five answers are possible:

``image``   the operand depends on the image alone (the first layer): constant in time;
``spikes``  only linear maps (`topospike.wiring.linear_maps`) lie between: events stay events;
``maxpool`` as ``spikes``, with a max-pool on the way: an event may be swallowed, so arriving
            changes have to be looked at;
``product`` both operands of a product of activations are fed by spikes;
``graded``  anything else: the operand is a real number at every step, hence a MAC.

`topospike.wiring.fanout` adds to each layer its links and what an event costs. Measurement, export
and reports read the result and derive nothing again.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from topospike.models.capture import node_module
from topospike.wiring.graph import is_site, nodes_downstream_of_input, timeless_nodes
from topospike.wiring.images import ImageAxis, Places, memory_order
from topospike.wiring.linear_maps import AVERAGES, is_linear, is_number
from topospike.wiring.masking import Overwriting

aten = torch.ops.aten

CONVOLUTIONS = frozenset(
    {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default}
    | {aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding}
    | {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
)
LINEARS = frozenset({aten.linear.default})
PRODUCTS = frozenset({aten.matmul.default, aten.mm.default, aten.bmm.default, aten.mv.default})
WEIGHT_OPS = CONVOLUTIONS | LINEARS | PRODUCTS
MAX_POOLS = frozenset(
    {aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default}
    | {aten.adaptive_max_pool2d.default}
)


@dataclass(frozen=True, eq=False)
class Feed:
    """What an event of one site costs in one layer.

    Attributes
    ----------
    site : str
        Name of the site.
    node
        The node that calls it.
    fan_out : Tensor, float64, shape of the site for one image
        For each neuron, how many existing links of the layer its event crosses: whole numbers.
    fan_out_dense : Tensor, float64
        The same if no link were missing.
    images
        How the images of a batch lie in the site's values.
    exact : bool
        Whether every event crosses these links, whatever else fires (not so behind a max-pool,
        which has no feeds here but is looked at while it runs).
    """

    site: str
    node: fx.Node
    fan_out: Tensor
    fan_out_dense: Tensor
    images: ImageAxis
    exact: bool = True
    _laid: dict[Any, Tensor] = field(default_factory=dict, repr=False)

    def laid_out(self, like: Tensor, *, dense: bool = False) -> Tensor:
        """Return the fan-out in one row, as a tensor for one image lies in memory, and where."""
        known = dense, *(order := memory_order(like)), like.device
        if known not in self._laid:
            links = self.fan_out_dense if dense else self.fan_out
            self._laid[known] = links.permute(order).flatten().to(like.device)
        return self._laid[known]


@dataclass(frozen=True, eq=False)
class Layer:
    """One weight layer of the graph, what feeds it, and over which links.

    Attributes
    ----------
    name : str
        ``features.0`` for a layer whose weight is ``features.0.weight``.
    kind : {"conv", "linear", "matmul"}
    node
        The node that runs it.
    operands : tuple of Node
        The inputs that change with the image: one, or two of a product.
    weight : Node or None
        The other input; ``None`` for a product of two activations.
    fed_by, reason : str
        How it is fed, and why.
    pooled : bool
        Whether an average lies on the way.
    sites, path : tuple of Node
        The calls of the sites behind it, and the nodes between them and the operands, in
        execution order.
    links : Tensor or None, bool, shape of the weight
        Existing links: the weight expression evaluated on the masks of its parameters.
    feeds : tuple of Feed
        One for each site, of a layer fed by ``spikes``; empty for the others.
    arrivals : tuple of Feed
        Of a layer that sees the input, where the input is events: one for each input tensor that
        reaches it, ``site`` its name (`topospike.wiring.arrivals`).
    leaving, leaving_dense : Tensor or None, float64, shape of the operand for one image
        Links that leave each position of the operand; how many there would be if none were missing.
    images : ImageAxis or None
        How the images of a batch lie in the operand.
    macs, macs_dense : float
        Multiplications of the ANN for one image, over existing and over all links.
    inputs, outputs : int
        Numbers read and written for one image.
    zeros : float
        Share of the links whose weight is exactly 0 now.
    places : Places or None
        Which token each position of the operand belongs to, of a product each entry of the result.
    overwritten, silent : tuple of Overwriting
        Of a product: the masks that overwrite its entries, and those that make entries of its left
        factor 0.
    """

    name: str
    kind: str
    node: fx.Node
    operands: tuple[fx.Node, ...]
    weight: fx.Node | None
    fed_by: str
    reason: str
    pooled: bool
    sites: tuple[fx.Node, ...]
    path: tuple[fx.Node, ...]
    links: Tensor | None = None
    feeds: tuple[Feed, ...] = ()
    arrivals: tuple[Feed, ...] = ()
    leaving: Tensor | None = None
    leaving_dense: Tensor | None = None
    images: ImageAxis | None = None
    macs: float = 0.0
    macs_dense: float = 0.0
    inputs: int = 0
    outputs: int = 0
    zeros: float = 0.0
    places: Places | None = None
    overwritten: tuple[Overwriting, ...] = ()
    silent: tuple[Overwriting, ...] = ()

    @property
    def operand(self) -> fx.Node:
        """The operand of a layer that has one."""
        return self.operands[0]

    @cached_property
    def existing(self) -> int:
        """How many links there are, each counted once wherever it is used."""
        return 0 if self.links is None else int(self.links.sum())

    @property
    def is_sparse(self) -> bool:
        """Whether a link is missing."""
        return self.links is not None and not bool(self.links.all())


def find_weight_layers(network: fx.GraphModule) -> list[Layer]:
    """Describe every weight layer of a network with sites, in execution order, without links."""
    timeless = timeless_nodes(network)
    image_nodes = nodes_downstream_of_input(network.graph)
    order = {node: position for position, node in enumerate(network.graph.nodes)}
    layers: list[Layer] = []
    seen: dict[str, int] = {}
    for node in network.graph.nodes:
        if node.target not in WEIGHT_OPS:
            continue
        if not any(parent in image_nodes for parent in node.all_input_nodes):
            continue  # a product of parameters alone: part of the constants
        layer = describe(node, timeless, image_nodes, order)
        seen[layer.name] = seen.get(layer.name, 0) + 1
        if seen[layer.name] > 1:  # one layer called twice: two entries, told apart by number
            layer = replace(layer, name=f"{layer.name}#{seen[layer.name]}")
        layers.append(layer)
    return layers


def nearest_layers(node: fx.Node) -> list[fx.Node]:
    """Return the weight layers nearest upstream of a node; those behind a site are its own."""
    found: dict[fx.Node, None] = {}
    seen: set[fx.Node] = set()
    queue = list(node.all_input_nodes)
    while queue:
        parent = queue.pop(0)
        if parent in seen:
            continue
        seen.add(parent)
        if parent.target in WEIGHT_OPS:
            found[parent] = None
        elif not is_site(parent):
            queue.extend(parent.all_input_nodes)
    return list(found)


def weight_name(node: fx.Node) -> str:
    """Return ``features.0`` for a layer whose weight is ``features.0.weight``, however written."""
    if node.target not in PRODUCTS:
        weight = node.args[1]
        while isinstance(weight, fx.Node) and weight.op != "get_attr" and weight.all_input_nodes:
            weight = weight.all_input_nodes[0]
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            target = str(weight.target).split(".parametrizations.")[0]
            owner, _, last = target.rpartition(".")
            # weight_v of a weight norm, weight_orig and weight_mask of torch's own pruning
            is_weight = last == "weight" or last.startswith("weight_")
            return owner if is_weight and owner else target
    return ".".join(part for part in (node_module(node), node.name) if part)


def describe(
    node: fx.Node,
    timeless: set[fx.Node],
    image_nodes: Container[fx.Node],
    order: dict[fx.Node, int],
) -> Layer:
    """Describe one weight layer."""
    sides = [side for side in node.args[:2] if isinstance(side, fx.Node)]
    operands = [side for side in sides if side in image_nodes]
    weight = next((side for side in sides if side not in image_nodes), None)
    kind = "conv" if node.target in CONVOLUTIONS else "linear"
    walk = Walk(timeless, image_nodes)
    for operand in operands:
        walk.back_from(operand)
    fed_by, reason = walk.verdict()
    if node.target in PRODUCTS or len(operands) == 2:
        kind = "matmul"
    if len(operands) == 2 and fed_by in ("spikes", "maxpool"):
        complete = all(operand not in timeless for operand in operands)
        plain = fed_by == "spikes" and complete and node.target not in CONVOLUTIONS
        fed_by, reason = "product" if plain else "graded", "product of two activations"
    if weight is not None and weight not in timeless:
        fed_by, reason = "graded", "its weight is what a site decodes"
    return Layer(
        name=weight_name(node),
        kind=kind,
        node=node,
        operands=tuple(operands),
        weight=weight,
        fed_by=fed_by,
        reason=reason,
        pooled=walk.pooled,
        sites=in_order(walk.sites, order),
        path=in_order(walk.path, order),
    )


def in_order(nodes: Iterable[fx.Node], order: dict[fx.Node, int]) -> tuple[fx.Node, ...]:
    """Return nodes in execution order."""
    return tuple(sorted(nodes, key=order.__getitem__))


class Walk:
    """One backward walk from an operand to the sites that feed it."""

    def __init__(self, timeless: set[fx.Node], image_nodes: Container[fx.Node]) -> None:
        self.timeless = timeless
        self.image_nodes = image_nodes
        self.sites: set[fx.Node] = set()
        self.path: set[fx.Node] = set()
        self.pooled = False
        self.max_pooled = False
        self.sees_image = False
        self.obstacle: fx.Node | None = None

    def back_from(self, node: fx.Node) -> None:
        """Walk from ``node`` to the sites behind it."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if node in self.path or node in self.sites or is_number(node):
                continue
            if is_site(node):
                self.sites.add(node)
            elif node in self.timeless:
                self.sees_image |= node in self.image_nodes and "val" in node.meta
            elif self.passes_events(node):
                self.path.add(node)
                waiting.extend(node.all_input_nodes)
            else:
                self.obstacle = node

    def passes_events(self, node: fx.Node) -> bool:
        """Tell whether an event entering this node leaves it as events."""
        self.pooled |= node.target in AVERAGES
        self.max_pooled |= node.target in MAX_POOLS
        return node.target in MAX_POOLS or is_linear(node, lambda p: p not in self.timeless)

    def verdict(self) -> tuple[str, str]:
        """Return how the operand is fed, and why."""
        if self.obstacle is not None:
            return "graded", f"{self.obstacle.target} lies between the sites and the layer"
        if not self.sites:
            return "image", "depends on the image alone"
        if self.sees_image:
            return "graded", "spikes are mixed with the raw image"
        if self.max_pooled:
            return "maxpool", "spikes through a max-pool"
        return "spikes", "spikes through average pooling" if self.pooled else "spikes"
