"""Questions about a captured graph: which nodes are sites, which depend on the image or on a site.

The graph of a captured model is functional and calls no modules, so those it calls once sites are
placed are the sites: nothing more is known of them here.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn


def is_site(node: fx.Node) -> bool:
    """Tell whether a graph node calls a site."""
    return node.op == "call_module"


def site_calls(network: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that call a site, in execution order."""
    return list(network.graph.find_nodes(op="call_module"))


def result_of(network: fx.GraphModule) -> fx.Node:
    """Return the node of the logits."""
    output = next(node for node in network.graph.nodes if node.op == "output")
    return output.args[0]  # pyright: ignore[reportReturnType]


def timeless_nodes(network: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes whose value no site can change, parameters included."""
    timeless: set[fx.Node] = set()
    for node in network.graph.nodes:
        depends = is_site(node) or node.op == "output"
        if not depends and all(parent in timeless for parent in node.all_input_nodes):
            timeless.add(node)
    return timeless


def changing_nodes(network: fx.GraphModule) -> list[fx.Node]:
    """Return the nodes that are evaluated once a step."""
    timeless = timeless_nodes(network)
    return [node for node in network.graph.nodes if node not in timeless]


def nodes_downstream_of_input(graph: fx.Graph) -> dict[fx.Node, None]:
    """Return the nodes that depend on the image, in execution order; parameters do not."""
    found: dict[fx.Node, None] = {}
    for node in graph.nodes:
        if node.op == "placeholder" or any(p in found for p in node.all_input_nodes):
            found[node] = None
    return found


def upstream_of_sites(network: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes that some site depends on."""
    found: set[fx.Node] = set()
    for node in reversed(network.graph.nodes):
        if node in found or is_site(node):
            found.update(node.all_input_nodes)
    return found


def fetch(network: nn.Module, node: Any) -> Tensor:
    """Return the parameter or buffer that a ``get_attr`` node reads."""
    path, _, name = str(node.target).rpartition(".")
    return getattr(network.get_submodule(path), name)
