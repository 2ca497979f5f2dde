"""Which site feeds which weight layer, and through what.

For every convolution, linear layer and product of two activations, walk from its operand back to
the sites. Five answers are possible:

``image``   the operand depends on the image alone (the first layer): constant in time;
``spikes``  only event-preserving operations (reshapes, concatenation, channel scaling, residual
            adds) and average pooling lie between: an event arrives as an event;
``maxpool`` as ``spikes``, with a max-pool on the way: an event may be swallowed, so arriving
            changes have to be looked at;
``product`` both operands of a product of activations are fed by spikes;
``graded``  anything else: the operand is a real number at every step, hence a MAC.

Nothing is counted here; `topospike.measure` does that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import fx

from topospike.models.capture import node_module
from topospike.snn.split import is_site, timeless_nodes

aten = torch.ops.aten

CONVOLUTIONS = frozenset(
    {aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.convolution.default}
    | {aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding}
    | {aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input}
)
LINEARS = frozenset({aten.linear.default})
PRODUCTS = frozenset({aten.matmul.default, aten.mm.default, aten.bmm.default})
WEIGHT_OPS = CONVOLUTIONS | LINEARS | PRODUCTS

# Operations that move values about or rescale them one by one: an event stays one event.
EVENT_PRESERVING = frozenset(
    {
        aten.view.default, aten.reshape.default, aten._unsafe_view.default,
        aten.flatten.using_ints, aten.unflatten.int, aten.permute.default,
        aten.transpose.int, aten.t.default, aten.squeeze.default, aten.squeeze.dim,
        aten.squeeze.dims, aten.unsqueeze.default, aten.expand.default, aten.clone.default,
        aten.contiguous.default, aten.alias.default, aten.detach.default, aten.slice.Tensor,
        aten.select.int, aten.cat.default, aten.constant_pad_nd.default, aten.pad.default,
        aten.dropout.default, aten._to_copy.default, aten.to.dtype, aten.chunk.default,
        aten.split.Tensor, aten.split_with_sizes.default, aten.channel_shuffle.default,
    }
)  # fmt: skip
# A factor or a shift per channel changes the size of an event, never their number.
RESCALING = frozenset(
    {aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default}
    | {aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar, aten.neg.default}
)
ADDITIONS = frozenset({aten.add.Tensor, aten.sub.Tensor})
AVERAGE_POOLS = frozenset(
    {aten.avg_pool1d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool1d.default}
    | {aten.adaptive_avg_pool2d.default, aten._adaptive_avg_pool2d.default, aten.mean.dim}
)
MAX_POOLS = frozenset(
    {aten.max_pool1d.default, aten.max_pool2d.default, aten.adaptive_max_pool2d.default}
)


@dataclass(frozen=True)
class WeightLayerInput:
    """One weight layer of the graph and what feeds it.

    ``operands`` are the inputs that change with the image: one, or two of a product. ``path``
    lists the nodes between the sites and the operands, in execution order, ``sites`` the nodes
    that call those sites. ``pooled`` tells whether an average pool lies on the way.
    """

    name: str
    kind: str
    node: fx.Node
    operands: tuple[fx.Node, ...]
    fed_by: str
    reason: str
    pooled: bool
    sites: tuple[fx.Node, ...]
    path: tuple[fx.Node, ...]

    @property
    def operand(self) -> fx.Node:
        """The operand of a layer that has one."""
        return self.operands[0]


def find_weight_layers(network: fx.GraphModule) -> list[WeightLayerInput]:
    """Describe every weight layer of a network with sites, in execution order."""
    timeless = timeless_nodes(network)
    image_nodes = nodes_downstream_of_input(network)
    order = {node: position for position, node in enumerate(network.graph.nodes)}
    layers: list[WeightLayerInput] = []
    seen: dict[str, int] = {}
    for node in network.graph.nodes:
        if node.target not in WEIGHT_OPS:
            continue
        if not any(parent in image_nodes for parent in node.all_input_nodes):
            continue  # a product of parameters alone: part of the constants
        layer = describe(node, network, timeless, image_nodes, order)
        seen[layer.name] = seen.get(layer.name, 0) + 1
        if seen[layer.name] > 1:  # one layer called twice: two entries, told apart by number
            layer = replace(layer, name=f"{layer.name}#{seen[layer.name]}")
        layers.append(layer)
    return layers


def nodes_downstream_of_input(network: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes that depend on the image (parameters and constants do not)."""
    found: set[fx.Node] = set()
    for node in network.graph.nodes:
        if node.op == "placeholder" or any(p in found for p in node.all_input_nodes):
            found.add(node)
    return found


def weight_name(node: fx.Node) -> str:
    """Return ``features.0`` for a layer whose weight is ``features.0.weight``."""
    if node.target not in PRODUCTS:
        weight = node.args[1]
        while isinstance(weight, fx.Node) and weight.op != "get_attr" and weight.all_input_nodes:
            weight = weight.all_input_nodes[0]
        if isinstance(weight, fx.Node) and weight.op == "get_attr":
            return str(weight.target).removesuffix(".weight")
    return ".".join(part for part in (node_module(node), node.name) if part)


def describe(
    node: fx.Node,
    network: fx.GraphModule,
    timeless: set[fx.Node],
    image_nodes: set[fx.Node],
    order: dict[fx.Node, int],
) -> WeightLayerInput:
    """Describe one weight layer."""
    kind = "conv" if node.target in CONVOLUTIONS else "linear"
    operands = [node.all_input_nodes[0]]
    if node.target in PRODUCTS or (len(node.args) > 1 and node.args[1] in image_nodes):
        kind = "matmul"
        operands = [parent for parent in node.all_input_nodes[:2] if parent in image_nodes]
    walk = Walk(network, timeless, image_nodes)
    for operand in operands:
        walk.back_from(operand)
    fed_by, reason = walk.verdict()
    if len(operands) == 2 and fed_by in ("spikes", "maxpool"):
        complete = all(operand not in timeless for operand in operands)
        fed_by = "product" if fed_by == "spikes" and complete else "graded"
        reason = "product of two activations"
    return WeightLayerInput(
        name=weight_name(node),
        kind=kind,
        node=node,
        operands=tuple(operands),
        fed_by=fed_by,
        reason=reason,
        pooled=walk.pooled,
        sites=tuple(sorted(walk.sites, key=order.__getitem__)),
        path=tuple(sorted(walk.path, key=order.__getitem__)),
    )


class Walk:
    """One backward walk from an operand to the sites that feed it."""

    def __init__(
        self, network: fx.GraphModule, timeless: set[fx.Node], image_nodes: set[fx.Node]
    ) -> None:
        self.network = network
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
        if node in self.path or node in self.sites:
            return
        if is_site(node, self.network):
            self.sites.add(node)
        elif node in self.timeless:
            self.sees_image |= (
                node in self.image_nodes
                and "val" in node.meta
                and isinstance(node.meta["val"], torch.Tensor)
            )
        elif self.passes_events(node):
            self.path.add(node)
            for parent in node.all_input_nodes:
                self.back_from(parent)
        else:
            self.obstacle = node

    def passes_events(self, node: fx.Node) -> bool:
        """Tell whether an event entering this node leaves it as an event."""
        target = node.target
        self.pooled |= target in AVERAGE_POOLS
        self.max_pooled |= target in MAX_POOLS
        if target in RESCALING:  # a product of two activations is not a rescaling
            changing = [p for p in node.all_input_nodes if p not in self.timeless]
            return len(changing) == 1
        is_item = getattr(target, "__name__", "") == "getitem"
        passing = EVENT_PRESERVING | ADDITIONS | AVERAGE_POOLS | MAX_POOLS
        return is_item or target in passing

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
