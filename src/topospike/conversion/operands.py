"""Put identity sites in front of operands that are graded numbers.

Scheme ``operand``: a site before every operand of a convolution, linear layer or product of
activations, the image included; rectifiers stay graded operations. Scheme ``auto``: ReLU sites
first, then operand sites only where a layer would otherwise be fed graded numbers; a network
without any rectifier gets them everywhere. Softmax, layer norm, GELU and the like stay what they
are: evaluated on decoded values they need no rule of their own (Huang et al., ICML 2025).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import fx

from topospike.conversion.place import SITES, SiteNames, target_of, unique_name
from topospike.errors import ConversionError
from topospike.snn.site import Site
from topospike.snn.split import timeless_nodes
from topospike.snn.wiring import (
    PRODUCTS,
    WEIGHT_OPS,
    Walk,
    nodes_downstream_of_input,
    weight_name,
)


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
