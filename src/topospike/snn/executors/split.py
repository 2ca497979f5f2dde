"""Split a network with sites into what depends on the image alone and what changes in time.

Everything upstream of the first spiking sites (the first convolution, its batch norm, batch sizes,
position embeddings) has the same value at every time step, so it is computed once an image. The
rest is evaluated once a step. Both halves are plain generated Python over the same module, so they
share its parameters; nothing is copied. Single nodes of the step, the sites first of all, are
handed to an object that knows the run.
"""

from __future__ import annotations

import itertools
import linecache
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx

from topospike.wiring.graph import is_site, result_of, timeless_nodes


@dataclass(frozen=True)
class Substitute:
    """Instead of a node, call ``run.method(index, *values of inputs)``."""

    method: str
    index: int
    inputs: tuple[fx.Node, ...]


NUMBERS = itertools.count(1)
"""Tell one generated source from another."""

Substitutes = Mapping[fx.Node, Substitute]
NOTHING: Substitutes = MappingProxyType({})

# A view asks for one memory format; the same reshape takes any, and copies only if it must.
SAME_FOR_ANY_LAYOUT = {torch.ops.aten.view.default: torch.ops.aten.reshape.default}


def split_in_time(
    network: fx.GraphModule,
    watched: tuple[fx.Node, ...] = (),
    substitutes: Substitutes = NOTHING,
) -> tuple[Callable[..., tuple[Any, ...]], Callable[..., tuple[Any, ...]], list[fx.Node]]:
    """Return ``image_part(network, x)``, ``step_part(network, run, *cached)``, and what is cached.

    The first returns the values ``cached``, of the nodes in the list, the second the logits, then
    the values of the ``watched`` nodes; ``run`` is the object that ``substitutes`` call.

    Raises
    ------
    ValueError
        If no site lies between the input and the output: there would be nothing to simulate.
    """
    graph = network.graph
    timeless = timeless_nodes(network)
    result = result_of(network)
    if not isinstance(result, fx.Node) or result in timeless:
        raise ValueError("the output does not depend on any site")
    changing = [n for n in graph.nodes if n not in timeless and n.op != "output"]
    sites = tuple(node for node in changing if is_site(node))
    wanted = reached_from((result, *watched, *sites), substitutes)
    changing = [node for node in changing if node in wanted]
    read = [parent for node in changing for parent in inputs_of(node, substitutes)]
    # computed once an image; a parameter is just read where it is needed
    boundary = [n for n in dict.fromkeys([*read, *watched]) if n in timeless and n.op != "get_attr"]
    image_part = image_half(graph, timeless, boundary)
    step_part = step_half(changing, boundary, (result, *watched), substitutes)
    return image_part, step_part, boundary


def reached_from(results: tuple[fx.Node, ...], substitutes: Substitutes) -> set[fx.Node]:
    """Return the nodes that some result needs; a substitute needs its own inputs only."""
    found: set[fx.Node] = set()
    waiting = list(results)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting.extend(inputs_of(node, substitutes))
    return found


def inputs_of(node: fx.Node, substitutes: Substitutes) -> Sequence[fx.Node]:
    """Return the nodes that a node, or what stands for it, reads."""
    other = substitutes.get(node)
    return node.all_input_nodes if other is None else other.inputs


def image_half(
    graph: fx.Graph, timeless: set[fx.Node], boundary: list[fx.Node]
) -> Callable[..., Any]:
    """Generate the function that computes what is needed of an image once."""
    half = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in graph.nodes:
        if node in timeless:
            copies[node] = copy_into(half, node, copies)
    half.output(tuple(copies[node] for node in boundary))
    half.eliminate_dead_code()
    return generated_function(half)


def step_half(
    changing: list[fx.Node],
    boundary: list[fx.Node],
    results: tuple[fx.Node, ...],
    substitutes: Substitutes,
) -> Callable[..., Any]:
    """Generate the function that computes one time step."""
    half = fx.Graph()
    run = half.placeholder("run")
    copies = {node: half.placeholder(node.name) for node in boundary}
    for node in changing:
        other = substitutes.get(node)
        if other is not None:
            values = tuple(copies[value] for value in other.inputs)
            copies[node] = half.call_method(other.method, (run, other.index, *values))
            continue
        for parent in node.all_input_nodes:
            if parent not in copies:  # a parameter, fetched where it is used
                copies[parent] = half.node_copy(parent)
        copies[node] = copy_into(half, node, copies)
    half.output(tuple(copies[node] for node in results))
    return generated_function(half)


def copy_into(graph: fx.Graph, node: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    """Copy a node whose inputs have been copied."""
    copy = graph.node_copy(node, lambda parent: copies[parent])
    copy.target = SAME_FOR_ANY_LAYOUT.get(copy.target, copy.target)  # pyright: ignore[reportArgumentType, reportCallIssue]
    return copy


def generated_function(graph: fx.Graph) -> Callable[..., Any]:
    """Turn a graph into the Python function ``forward(self, *inputs)`` that runs it.

    `fx.GraphModule` would do the same, but it copies references to parameters and buffers into a
    module of its own, which then miss ``.to(device)``. The source is kept as long as the function,
    so that an error inside it shows the line.
    """
    code = graph.python_code(root_module="self")
    name = f"<topospike graph {next(NUMBERS)}>"
    namespace: dict[str, Any] = dict(code.globals)
    exec(compile(code.src, name, "exec"), namespace)
    function = namespace["forward"]
    linecache.cache[name] = len(code.src), None, code.src.splitlines(keepends=True), name
    weakref.finalize(function, linecache.cache.pop, name, None)
    return function


def grows(two: Any, three: Any) -> bool | None:
    """Tell whether a value of two and three images has a row for each; ``None`` if otherwise."""
    if not isinstance(two, Tensor):
        return False if two == three else True if (two, three) == (2, 3) else None
    if two.shape == three.shape:
        return False
    as_rows = two.shape[0] == 2 and three.shape == (3, *two.shape[1:])
    return True if as_rows else None


def repeated(x: Any, times: int) -> Any:
    """Return a batch several times over, one after the other; so many times a number of images."""
    return x.repeat(times, *(1 for _ in x.shape[1:])) if isinstance(x, Tensor) else x * times


def divided(x: Any, times: int) -> tuple[Any, ...]:
    """Undo `repeated`."""
    return x.chunk(times) if isinstance(x, Tensor) else (x // times,) * times


def by_step(
    values: Sequence[Any], rows: Sequence[bool | None], steps: int
) -> list[tuple[Any, ...]]:
    """Divide values of some steps one after the other, those with a row for each image."""
    each = (
        divided(value, steps) if grown else (value,) * steps
        for value, grown in zip(values, rows, strict=True)
    )
    return list(zip(*each, strict=True)) or [()] * steps


@torch.no_grad()
def growing(
    function: Callable[[list[Tensor]], Iterable[Any]], inputs: tuple[Tensor, ...]
) -> list[bool | None]:
    """Tell `grows` of each result of a function, by sending two and three blank images through."""
    blank = ([x.new_zeros(images, *x.shape[1:]) for x in inputs] for images in (2, 3))
    return [grows(two, three) for two, three in zip(*map(function, blank), strict=True)]


def values_of(
    network: fx.GraphModule, nodes: tuple[fx.Node, ...], inputs: list[Tensor]
) -> list[Any]:
    """Return what some nodes are in the ANN."""
    if not nodes:
        return []
    runner = fx.Interpreter(network, garbage_collect_values=False)
    runner.run(*inputs)
    return [runner.env[node] for node in nodes]
