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
from topospike.wiring.graph import nodes_downstream_of_input, timeless_nodes
from topospike.wiring.layers import MAX_POOLS, PRODUCTS, WEIGHT_OPS, Walk, weight_name
from topospike.wiring.linear_maps import is_linear

aten = torch.ops.aten
SITES = "spiking_sites"

COMMON_NAMES = {
    "leaky_relu": "leaky ReLU", "prelu": "PReLU", "elu": "ELU", "celu": "CELU", "selu": "SELU",
    "gelu": "GELU", "silu": "SiLU", "hardtanh": "hardtanh",
}  # fmt: skip
UNCOUNTED = frozenset(
    {aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input}
    | {aten.addmm.default, aten.baddbmm.default, aten.addbmm.default, aten.bilinear.default}
    | {aten.einsum.default, aten.addmv.default, aten.mv.default, aten.dot.default}
)


@dataclass(frozen=True)
class Rectifier:
    """A ReLU-like node: where it is and its ceiling, if any."""

    node: fx.Node
    ceiling: float | None


def find_rectifiers(network: fx.GraphModule) -> list[Rectifier]:
    """Return every ReLU-like operation on the image, in execution order.

    One of parameters alone (a learnt gate) is a constant, which no spikes have to carry.
    """
    from_image = nodes_downstream_of_input(network.graph)
    found = []
    for node in network.graph.nodes:
        ceiling = ceiling_of(node)
        if ceiling is not False and node in from_image:
            found.append(Rectifier(node, ceiling))
    return found


def ceiling_of(node: fx.Node) -> float | bool | None:
    """Return the ceiling of a ReLU-like node, ``None`` for none, ``False`` for other nodes."""
    if node.target in (aten.relu.default, aten.relu_.default):
        return None
    if node.target is aten.relu6.default:
        return 6.0
    if node.target is aten.threshold.default and node.args[1:] == (0, 0):
        return None
    low, high = bounds_of(node)
    if low != 0:
        return False
    return None if high is None else float(high)


def bounds_of(node: fx.Node) -> tuple[float | None, float | None]:
    """Return (lowest, highest) of a clamp-like node, ``(None, None)`` for other nodes."""
    arguments = [a for a in node.args[1:] if isinstance(a, int | float) or a is None]
    if node.target is aten.clamp_min.default and arguments:
        return arguments[0], None
    if node.target is aten.clamp.default:
        low = arguments[0] if arguments else node.kwargs.get("min")
        high = arguments[1] if len(arguments) > 1 else node.kwargs.get("max")
        return low, high  # pyright: ignore[reportReturnType]
    if node.target is aten.hardtanh.default:
        low, high = (*arguments, *(-1.0, 1.0)[len(arguments) :])
        return low, high
    return None, None


def place_sites(
    network: fx.GraphModule, make_site: Callable[[str, bool], Site]
) -> list[tuple[Site, fx.Node]]:
    """Replace every ReLU-like node by a site; return each site with its node.

    Parameters
    ----------
    network
        The captured graph; edited in place.
    make_site
        ``make_site(name, gated)`` builds the site.

    Raises
    ------
    ConversionError
        If there is no ReLU-like operation; the message lists the activations that are there.
    """
    graph = network.graph
    rectifiers = find_rectifiers(network)
    if not rectifiers:
        raise ConversionError(nothing_to_replace(network))
    move_behind_max_pools(graph, rectifiers)
    network.add_submodule(SITES, torch.nn.Module())
    placed, names = [], SiteNames()
    for rectifier in rectifiers:
        name = unique_name(rectifier.node, names)
        site, target = make_site(name, True), target_of(name)
        network.add_submodule(target, site)
        placed.append((site, substitute(rectifier, target, graph)))
    graph.lint()
    network.recompile()
    return placed


def substitute(rectifier: Rectifier, target: str, graph: fx.Graph) -> fx.Node:
    """Put the site's call (behind a ceiling, if there is one) where the rectifier is."""
    old = rectifier.node
    source = old.args[0]
    with graph.inserting_before(old):
        if rectifier.ceiling is not None:
            clamped = graph.call_function(aten.clamp.default, (source, None, rectifier.ceiling))
            clamped.meta.update(old.meta)
            source = clamped
        new = graph.call_module(target, (source,))
    new.meta.update(old.meta)
    old.replace_all_uses_with(new)
    graph.erase_node(old)
    return new


def move_behind_max_pools(graph: fx.Graph, rectifiers: list[Rectifier]) -> None:
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


class SiteNames:
    """Gives every site a name, and so a submodule, of its own, whatever the modules are called.

    Examples
    --------
    >>> names = SiteNames()
    >>> [names.new(name) for name in ("act", "act", "act_2", "a.ct", "a_ct")]
    ['act', 'act_2', 'act_2_2', 'a.ct', 'a_ct_2']
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        self.targets = {target_of(name) for name in taken}

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


def unique_name(
    node: fx.Node, names: SiteNames, *, base: str | None = None, suffix: str = "relu"
) -> str:
    """Return the path of an activation module, or else the path of the caller plus a suffix."""
    path = node_module(node) if base is None else base
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    owner = stack[-1][1] if stack else ""
    is_module = base is None and suffix == "relu" and "activation" in str(owner)
    return names.new(
        path if is_module and path else ".".join(part for part in (path, suffix) if part)
    )


def refuse_uncounted_layers(graph: fx.Graph) -> None:
    """Raise `ConversionError` if a layer has weights that no rule here covers.

    It would keep its graded input and its operations would be missing from every count.
    """
    from_image = nodes_downstream_of_input(graph)
    for node in graph.nodes:
        if node.target in UNCOUNTED and node in from_image:
            place = node_module(node) or "the model itself"
            raise ConversionError(
                f"{place} runs {node.target}, a weighted operation without a spiking counterpart "
                "here; convolutions, linear layers and matmul are known. Rewrite it with these, or "
                "convert the part of the model without it."
            )


def has_nonlinearity(network: fx.GraphModule) -> bool:
    """Tell whether the graph is more than one linear map of its input."""
    return bool(nonlinear_nodes(network))


def nonlinear_nodes(network: fx.GraphModule) -> list[fx.Node]:
    """Return the tensor operations on the image that are not known to be linear."""
    from_image = nodes_downstream_of_input(network.graph)
    return [
        node
        for node in network.graph.nodes
        if node in from_image
        and isinstance(node.target, OpOverload)
        and isinstance(node.meta.get("val"), torch.Tensor)
        and not is_linear(node, from_image.__contains__)
        and not is_layer_of_one(node, from_image)
    ]


def is_layer_of_one(node: fx.Node, from_image: set[fx.Node]) -> bool:
    """Tell whether a node is a weight layer with one input that depends on the image."""
    return node.target in WEIGHT_OPS and sum(p in from_image for p in node.all_input_nodes) == 1


def is_tensor(node: fx.Node) -> bool:
    """Tell whether a node yields a tensor, not a size."""
    return isinstance(node.meta.get("val"), torch.Tensor)


def nothing_to_replace(network: fx.GraphModule) -> str:
    """Say which activations are there instead, and what to do."""
    others = list(dict.fromkeys(describe(node) for node in nonlinear_nodes(network)))
    seen = f"it uses {', '.join(others)}" if others else "it has no activation at all"
    return (
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
    network: fx.GraphModule, make_site: Callable[[str, bool], Site], *, everywhere: bool
) -> list[tuple[Site, fx.Node]]:
    """Insert identity sites; return each with the node that calls it, in execution order.

    Parameters
    ----------
    network
        Captured graph, edited in place; may hold ReLU sites already.
    make_site
        ``make_site(name, gated)`` builds the site.
    everywhere
        ``True``: before every operand. ``False``: only before graded ones.

    Raises
    ------
    ConversionError
        If ``everywhere`` and there is no weight layer at all.
    """
    graph = network.graph
    from_image = nodes_downstream_of_input(network.graph)
    needed: dict[fx.Node, list[fx.Node]] = {}
    for node in graph.nodes:
        if node.target in WEIGHT_OPS:
            for operand in dict.fromkeys(operands_of(node, from_image)):
                if everywhere or is_graded(operand, network, from_image):
                    needed.setdefault(operand, []).append(node)
    if everywhere and not needed:
        raise ConversionError(
            "the graph has no convolution, linear layer or product, so there is no operand to put "
            "a spiking site in front of. Simulate the network as the ANN it is."
        )
    if needed and not hasattr(network, SITES):
        network.add_submodule(SITES, torch.nn.Module())
    placed, names = [], SiteNames(site.name for site in existing_sites(network))
    for operand, readers in needed.items():
        name = operand_name(operand, readers[0], names)
        site, target = make_site(name, False), target_of(name)
        network.add_submodule(target, site)
        with graph.inserting_before(readers[0]):
            call = graph.call_module(target, (operand,))
        call.meta.update(operand.meta)
        for reader in readers:
            reader.replace_input_with(operand, call)
        placed.append((site, call))
    graph.lint()
    network.recompile()
    return placed


def place_input_sites(
    network: fx.GraphModule, make_site: Callable[[str, bool], Site]
) -> list[tuple[Site, fx.Node]]:
    """Put an identity site on every input of real numbers; return each with the node that calls it.

    Batch sizes are still read from the input itself, so that they do not change in time.
    """
    graph = network.graph
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if not hasattr(network, SITES):
        network.add_submodule(SITES, torch.nn.Module())
    placed, names = [], SiteNames(site.name for site in existing_sites(network))
    for node in inputs:
        if not node.meta["val"].is_floating_point():
            continue
        name = names.new(node.name)
        site, target = make_site(name, False), target_of(name)
        network.add_submodule(target, site)
        with graph.inserting_after(inputs[-1]):
            call = graph.call_module(target, (node,))
        call.meta.update(node.meta)
        node.replace_all_uses_with(
            call,
            delete_user_cb=lambda user, call=call: (
                user is not call and isinstance(user.meta.get("val"), torch.Tensor)
            ),
        )
        placed.append((site, call))
    graph.lint()
    network.recompile()
    return placed


def operands_of(node: fx.Node, from_image: set[fx.Node]) -> list[fx.Node]:
    """Return the inputs of a weight layer that change with the image, weights excluded."""
    sides = node.args[:2] if node.target in PRODUCTS else node.args[:1]
    return [side for side in sides if isinstance(side, fx.Node) and side in from_image]


def is_graded(operand: fx.Node, network: fx.GraphModule, from_image: set[fx.Node]) -> bool:
    """Tell whether an operand that changes in time arrives as graded numbers."""
    walk = Walk(network, timeless_nodes(network), from_image)
    walk.back_from(operand)
    return walk.verdict()[0] == "graded"


def existing_sites(network: fx.GraphModule) -> list[Site]:
    """Return the sites that are there already."""
    return [module for module in network.modules() if isinstance(module, Site)]


def operand_name(operand: fx.Node, reader: fx.Node, names: SiteNames) -> str:
    """Name a site after the layer it feeds, and the side of a product it is on."""
    if reader.target in PRODUCTS:
        side = "left" if operand is reader.all_input_nodes[0] else "right"
        return unique_name(reader, names, suffix=f"{reader.name}.{side}")
    return unique_name(reader, names, base=weight_name(reader), suffix="input")
