"""Split a network with sites into what depends on the image alone and what changes in time.

Everything upstream of the first spiking sites (the first convolution, its batch norm, batch sizes,
position embeddings) has the same value at every time step, so it is computed once an image. The
rest is evaluated once a step. Both halves are plain generated Python over the same module, so they
share its parameters; nothing is copied.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import fx, nn

from topospike.snn.site import Site


def is_site(node: fx.Node, network: nn.Module) -> bool:
    """Tell whether a graph node calls a `Site`."""
    return node.op == "call_module" and isinstance(network.get_submodule(str(node.target)), Site)


def timeless_nodes(network: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes whose value no site can change, parameters included."""
    timeless: set[fx.Node] = set()
    for node in network.graph.nodes:
        depends = is_site(node, network) or node.op == "output"
        if not depends and all(parent in timeless for parent in node.all_input_nodes):
            timeless.add(node)
    return timeless


TimeParts = tuple[Callable[..., tuple[Any, ...]], Callable[..., tuple[Any, ...]]]


def split_in_time(network: fx.GraphModule, watched: tuple[fx.Node, ...] = ()) -> TimeParts:
    """Return ``image_part(network, x) -> cached`` and ``step_part(network, *cached) -> outputs``.

    The outputs of a step are the logits, then the values of the ``watched`` nodes.

    Raises
    ------
    ValueError
        If no site lies between the input and the output: there would be nothing to simulate.
    """
    graph = network.graph
    timeless = timeless_nodes(network)
    output = next(node for node in graph.nodes if node.op == "output")
    result = output.args[0]
    if not isinstance(result, fx.Node) or result in timeless:
        raise ValueError("the output does not depend on any site")
    changing = [n for n in graph.nodes if n not in timeless and n.op != "output"]
    read = [parent for node in changing for parent in node.all_input_nodes]
    boundary = [n for n in dict.fromkeys([*read, *watched]) if is_cached(n, timeless)]
    image_part = image_half(graph, timeless, boundary)
    return image_part, step_half(changing, boundary, (result, *watched))


def is_cached(node: fx.Node, timeless: set[fx.Node]) -> bool:
    """Tell whether a node is computed once an image (a parameter is just read where needed)."""
    return node in timeless and node.op != "get_attr"


def image_half(
    graph: fx.Graph, timeless: set[fx.Node], boundary: list[fx.Node]
) -> Callable[..., Any]:
    """Generate the function that computes what is needed of an image once."""
    half = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in timeless:
            copies[node] = half.node_copy(node, lambda parent: copies[parent])
    half.output(tuple(copies[node] for node in boundary))
    half.eliminate_dead_code()
    return generated_function(half)


def step_half(
    changing: list[fx.Node], boundary: list[fx.Node], results: tuple[fx.Node, ...]
) -> Callable[..., Any]:
    """Generate the function that computes one time step."""
    half = fx.Graph()
    copies = {node: half.placeholder(node.name) for node in boundary}
    for node in changing:
        for parent in node.all_input_nodes:
            if parent not in copies:  # a parameter, fetched where it is used
                copies[parent] = half.node_copy(parent)
        copies[node] = half.node_copy(node, lambda parent: copies[parent])
    half.output(tuple(copies[node] for node in results))
    return generated_function(half)


def generated_function(graph: fx.Graph) -> Callable[..., Any]:
    """Turn a graph into the Python function ``forward(self, *inputs)`` that runs it.

    `fx.GraphModule` would do the same, but it copies references to parameters and buffers into a
    module of its own, which then miss ``.to(device)``.
    """
    code = graph.python_code(root_module="self")
    namespace: dict[str, Any] = dict(code.globals)
    exec(code.src, namespace)
    return namespace["forward"]
