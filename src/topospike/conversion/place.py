"""Find the places for spiking sites in a captured graph and put them there.

Scheme ``relu``: a site takes the place of every ReLU-like operation, however it was written:
``relu``, ``clamp(min=0)``, ``hardtanh(0, c)``, ``relu6``. A ceiling c stays in the graph as
``clamp(max=c)`` in front of the site, so the decoded output still tends to the ANN's value.

A ReLU whose only reader is a max-pool changes places with it first. Both are monotone, so the
value is the same, and the layer behind the pool then receives spikes instead of graded numbers.

Scheme ``operand``: an identity site before every operand of a convolution, linear layer or product
of activations, the image included; rectifiers stay graded operations. Scheme ``auto``: ReLU sites
first, then operand sites only where a layer would otherwise be fed graded numbers; a network
without any rectifier gets them everywhere. Softmax, layer norm, GELU and the like stay what they
are: evaluated on decoded values they need no rule of their own (Huang et al., ICML 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import fx
from torch._ops import OpOverload

from topospike.errors import ConversionError
from topospike.models.capture import node_module
from topospike.snn.site import Site
from topospike.wiring.graph import nodes_downstream_of_input, site_calls, timeless_nodes
from topospike.wiring.layers import MAX_POOLS, PRODUCTS, WEIGHT_OPS, Walk, weight_name
from topospike.wiring.linear_maps import bound, is_linear

aten = torch.ops.aten
SITES = "spiking_sites"

COMMON_NAMES = {
    "leaky_relu": "leaky ReLU", "prelu": "PReLU", "elu": "ELU", "celu": "CELU", "selu": "SELU",
    "gelu": "GELU", "silu": "SiLU", "hardtanh": "hardtanh",
}  # fmt: skip
CLAMPS = (aten.clamp.default, aten.clamp_min.default, aten.hardtanh.default)
UNCOUNTED = frozenset(
    {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
    | {aten.addmm.default, aten.baddbmm.default, aten.addbmm.default, aten.bilinear.default}
    | {aten.einsum.default, aten.addmv.default, aten.mv.default, aten.dot.default}
)

Placed = list[tuple[Site, fx.Node]]
"""Sites, each with the node that calls it."""

SiteMaker = Callable[[str, bool], Site]
"""``make_site(name, gated)`` builds a site."""


class SiteNames:
    """Gives every site a name, and so a submodule, of its own, whatever the modules are called.

    Examples
    --------
    >>> names = SiteNames()
    >>> [names.new(name) for name in ("act", "act", "act_2", "a.ct", "a_ct")]
    ['act', 'act_2', 'act_2_2', 'a.ct', 'a_ct_2']
    """

    def __init__(self, calls: Iterable[fx.Node] = ()) -> None:
        self.targets = {str(call.target) for call in calls}

    def new(self, name: str) -> str:
        """Return a name that no other site has: this one, or this one with a number."""
        number, unique = 1, name
        while target_of(unique) in self.targets:
            number += 1
            unique = f"{name}_{number}"
        self.targets.add(target_of(unique))
        return unique


def target_of(name: str) -> str:
    """Return where the module of a site lies in the network."""
    return f"{SITES}.{name.replace('.', '_')}"


class Placement:
    """Puts sites into a captured graph, which is edited in place."""

    def __init__(self, network: fx.GraphModule, make_site: SiteMaker) -> None:
        self.network = network
        self.make_site = make_site
        self.placed: Placed = []

    def call(self, name: str, source: fx.Node, like: fx.Node, *, gated: bool) -> fx.Node:
        """Write the call of a new site on ``source``, whose value is as that of ``like``."""
        site = self.make_site(name, gated)
        self.network.add_submodule(target_of(name), site)
        call = self.network.graph.call_module(target_of(name), (source,))
        call.meta.update(like.meta)
        self.placed.append((site, call))
        return call

    def finish(self) -> Placed:
        """Make the network run its new graph; return the sites."""
        self.network.graph.lint()
        self.network.recompile()
        return self.placed


@dataclass(frozen=True)
class Rectifier:
    """A ReLU-like node: where it is, its ceiling, if any, and the name of its site."""

    node: fx.Node
    ceiling: float | None
    name: str


def find_rectifiers(network: fx.GraphModule) -> list[Rectifier]:
    """Return every ReLU-like operation on the image, in execution order.

    One of parameters alone (a learnt gate) is a constant, which no spikes have to carry.
    """
    names = SiteNames(site_calls(network))
    found = []
    for node in nodes_downstream_of_input(network.graph):
        low, high = bounds_of(node)
        if isinstance(low, int | float) and low == 0 and not isinstance(high, fx.Node):
            ceiling = float(high) if isinstance(high, int | float) else None
            found.append(Rectifier(node, ceiling, names.new(activation_name(node))))
    return found


def bounds_of(node: fx.Node) -> tuple[object, object]:
    """Return (lowest, highest) of a clamp-like node, ``(None, None)`` for other nodes."""
    zeros = node.target is aten.threshold.default and node.args[1:] == (0, 0)
    if zeros or node.target in (aten.relu.default, aten.relu_.default):
        return 0.0, None
    if node.target is aten.relu6.default:
        return 0.0, 6.0
    given = bound(node) if node.target in CLAMPS else {}
    return given.get("min", given.get("min_val")), given.get("max", given.get("max_val"))


def activation_name(node: fx.Node) -> str:
    """Return the path of an activation module, or else the path of the caller plus ``relu``."""
    path = node_module(node)
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    is_module = bool(stack) and "activation" in str(stack[-1][1])
    return path if is_module and path else joined(path, "relu")


def joined(*parts: str) -> str:
    """Return a dotted path of the parts that are not empty."""
    return ".".join(part for part in parts if part)


def place_sites(network: fx.GraphModule, make_site: SiteMaker) -> Placed:
    """Replace every ReLU-like node by a site; return each site with its node.

    A ceiling becomes a ``clamp`` in front of the site.

    Raises
    ------
    ConversionError
        If there is no ReLU-like operation; the message lists the activations that are there.
    """
    graph, placement = network.graph, Placement(network, make_site)
    rectifiers = required_rectifiers(network)
    move_behind_max_pools(rectifiers)
    for rectifier in rectifiers:
        old = rectifier.node
        source = old.all_input_nodes[0]
        with graph.inserting_before(old):
            if rectifier.ceiling is not None:
                source = graph.call_function(aten.clamp.default, (source, None, rectifier.ceiling))
                source.meta.update(old.meta)
            new = placement.call(rectifier.name, source, old, gated=True)
        old.replace_all_uses_with(new)
        graph.erase_node(old)
    return placement.finish()


def move_behind_max_pools(rectifiers: list[Rectifier]) -> None:
    """Let each rectifier that is read by one max-pool alone follow that pool."""
    for rectifier in rectifiers:
        relu = rectifier.node
        readers = list(relu.users)
        if len(readers) != 1 or readers[0].target not in MAX_POOLS:
            continue
        pool = end = readers[0]
        if not is_tensor(pool):  # values and indices: the values alone may be read
            if [item.args[1] for item in pool.users] != [0]:
                continue
            end = next(iter(pool.users))
        pool.replace_input_with(relu, relu.args[0])  # pyright: ignore[reportArgumentType]
        end.replace_all_uses_with(relu, delete_user_cb=lambda user, keep=relu: user is not keep)
        relu.replace_input_with(relu.args[0], end)  # pyright: ignore[reportArgumentType]
        end.append(relu)
        relu.meta["val"] = end.meta["val"]


def is_tensor(node: fx.Node) -> bool:
    """Tell whether a node yields a tensor, not a size."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def refuse_uncounted_layers(graph: fx.Graph) -> None:
    """Raise `ConversionError` if a layer has weights that no rule here covers.

    It would keep its graded input and its operations would be missing from every count.
    """
    for node in nodes_downstream_of_input(graph):
        if node.target in UNCOUNTED:
            place = node_module(node) or "the model itself"
            raise ConversionError(
                f"{place} runs {node.target}, a weighted operation without a spiking counterpart "
                "here; convolutions, linear layers and matmul are known. Rewrite it with these, or "
                "convert the part of the model without it."
            )


def nonlinear_nodes(network: fx.GraphModule) -> list[fx.Node]:
    """Return the tensor operations on the image that are not known to be linear."""
    from_image = nodes_downstream_of_input(network.graph)
    return [
        node
        for node in from_image
        if isinstance(node.target, OpOverload)
        and is_tensor(node)
        and not is_linear(node, from_image.__contains__)
        # a weight layer with one input that depends on the image
        and not (
            node.target in WEIGHT_OPS and sum(p in from_image for p in node.all_input_nodes) == 1
        )
    ]


def required_rectifiers(network: fx.GraphModule) -> list[Rectifier]:
    """Return every rectifier; `ConversionError`, with the other activations, if there is none."""
    found = find_rectifiers(network)
    if found:
        return found
    others = list(dict.fromkeys(describe(node) for node in nonlinear_nodes(network)))
    seen = f"it uses {', '.join(others)}" if others else "it has no activation at all"
    raise ConversionError(
        f"no ReLU-like operation was found in the graph: {seen}. The scheme 'relu' replaces relu, "
        "relu6, clamp(min=0) and hardtanh(0, c), as modules or functions. Use one of these "
        "activations (and train it), take method='dcgs' with scheme='operand', or simulate the "
        "network as the ANN it is."
    )


def describe(node: fx.Node) -> str:
    """Name an operation and the module that runs it."""
    name = str(node.target).split(".")[1].strip("_")
    place = node_module(node)
    return COMMON_NAMES.get(name, name) + (f" (in {place})" if place else "")


def place_operand_sites(
    network: fx.GraphModule, make_site: SiteMaker, *, everywhere: bool
) -> Placed:
    """Insert identity sites before operands; return each with the node that calls it.

    ``everywhere``: before every operand, else only before graded ones. ReLU sites may be there.

    Raises
    ------
    ConversionError
        If ``everywhere`` and there is no weight layer at all.
    """
    graph, placement = network.graph, Placement(network, make_site)
    names = SiteNames(site_calls(network))
    from_image = nodes_downstream_of_input(graph)
    needed: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target in WEIGHT_OPS:
            sides = node.args[:2] if node.target in PRODUCTS else node.args[:1]  # no weights
            for operand in dict.fromkeys(sides):
                if operand in from_image and (everywhere or is_graded(operand, network)):
                    needed.setdefault(operand, []).append(node)
    if everywhere and not needed:
        raise ConversionError(
            "the graph has no convolution, linear layer or product, so there is no operand to put "
            "a spiking site in front of. Simulate the network as the ANN it is."
        )
    for operand, readers in needed.items():
        name = names.new(operand_name(operand, readers[0]))
        with graph.inserting_before(readers[0]):
            call = placement.call(name, operand, operand, gated=False)
        for reader in readers:
            reader.replace_input_with(operand, call)
    return placement.finish()


def is_graded(operand: fx.Node, network: fx.GraphModule) -> bool:
    """Tell whether an operand that changes in time arrives as graded numbers."""
    walk = Walk(timeless_nodes(network), nodes_downstream_of_input(network.graph))
    walk.back_from(operand)
    return walk.verdict()[0] == "graded"


def operand_name(operand: fx.Node, reader: fx.Node) -> str:
    """Name a site after the layer it feeds, and the side of a product it is on."""
    if reader.target not in PRODUCTS:
        return joined(weight_name(reader), "input")
    side = "left" if operand is reader.all_input_nodes[0] else "right"
    return joined(node_module(reader), reader.name, side)


def place_input_sites(network: fx.GraphModule, make_site: SiteMaker) -> Placed:
    """Put an identity site on every input of real numbers; return each with the node that calls it.

    Batch sizes are still read from the input itself, so that they do not change in time.
    """
    graph, placement = network.graph, Placement(network, make_site)
    names = SiteNames(site_calls(network))
    inputs = list(graph.find_nodes(op="placeholder"))
    for node in inputs:
        if not node.meta["val"].is_floating_point():
            continue
        with graph.inserting_after(inputs[-1]):
            call = placement.call(names.new(node.name), node, node, gated=False)
        node.replace_all_uses_with(
            call, delete_user_cb=lambda user, call=call: user is not call and is_tensor(user)
        )
    return placement.finish()
