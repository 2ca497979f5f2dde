"""Stage prune: walk the calibration images through a model, block by block.

A block is a repeated part of the model (two or more modules of one class in a list or a sequence)
with two or more layers to prune: a transformer block, a residual block. Every other layer is a
block of its own. Nothing depends on names. The graph is cut between blocks, where the fewest values
cross: only these are kept for all images, everything else exists for a few images at a time.

At each block the inputs of its layers are collected while the block is still dense; then its layers
are pruned; then (sequential) the images pass through the pruned block to the next one, or (dense)
they go on as they came out of the dense block.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, fx, nn

Values = dict[fx.Node, Any]
Observer = Callable[[fx.Node, Tensor], None]


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the graph: what is computed, and which of it runs a layer to prune.

    ``given`` and ``kept`` are the values of earlier segments, and those that later ones need.
    """

    nodes: tuple[fx.Node, ...]
    calls: tuple[fx.Node, ...]
    given: tuple[fx.Node, ...]
    kept: tuple[fx.Node, ...]

    @property
    def nodes_to_last_call(self) -> tuple[fx.Node, ...]:
        """What must be computed to see the input of every layer of the segment."""
        return self.nodes[: self.nodes.index(self.calls[-1]) + 1] if self.calls else ()


def find_blocks(model: nn.Module, layers: Iterable[str]) -> dict[str, str]:
    """Name the block of every layer: the innermost repeated module around it with two or more.

    Where there is none, a layer is a block of its own.

    Examples
    --------
    >>> def block():
    ...     return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([block(), block()]))
    >>> find_blocks(model, ["0", "1.0.0", "1.0.2", "1.1.0"])
    {'0': '0', '1.0.0': '1.0', '1.0.2': '1.0', '1.1.0': '1.1.0'}
    """
    layers = list(layers)
    repeated = repeated_modules(model)
    inside = Counter(path for name in layers for path in parents(name) if path in repeated)
    return {
        name: next((path for path in parents(name) if inside[path] > 1), name) for name in layers
    }


def repeated_modules(model: nn.Module) -> set[str]:
    """Return the paths of modules that stand in a list beside another one of their class."""
    found: set[str] = set()
    for path, module in model.named_modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential, nn.ModuleDict)):
            classes = Counter(type(child) for child in module.children())
            found |= {
                f"{path}.{name}" if path else name
                for name, child in module.named_children()
                if classes[type(child)] > 1
            }
    return found


def parents(name: str) -> list[str]:
    """Return the paths of the modules around a layer, innermost first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def cut_into_segments(graph: fx.Graph, blocks: Mapping[fx.Node, str]) -> list[Segment]:
    """Cut a captured graph between the blocks of its layers, up to the last one.

    ``blocks`` names the block of each node that runs a layer to prune, in execution order. The
    first segment has no layers: it is what lies before the first one. Consecutive layers of one
    block share a segment, and so do consecutive layers with one input.
    """
    nodes = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    place = {node: position for position, node in enumerate(nodes)}
    last_use = {
        node: max((place.get(user, len(nodes)) for user in node.users), default=-1)
        for node in nodes
    }
    size = {node: values_per_image(node) for node in nodes}
    crossing = [
        sum(size[node] for node in nodes[:cut] if last_use[node] >= cut)
        for cut in range(len(nodes) + 1)
    ]
    cuts, before = [], 0
    previous: str | None = None
    operand: object = None
    for call, block in blocks.items():
        if block != previous and call.args[0] is not operand:
            first = before if previous is not None else 1
            options = range(first, place[call] + 1)
            cuts.append(min(options, key=lambda cut: crossing[cut]))
        previous, operand, before = block, call.args[0], place[call] + 1
    edges = [0, *cuts, before]
    return [segment(nodes, start, stop, blocks, place, last_use) for start, stop in pairwise(edges)]


def values_per_image(node: fx.Node) -> int:
    """Return the size of a node's value without its free axes."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return 0
    return math.prod(size for size in value.shape if isinstance(size, int))


def segment(
    nodes: Sequence[fx.Node],
    start: int,
    stop: int,
    blocks: Mapping[fx.Node, str],
    place: Mapping[fx.Node, int],
    last_use: Mapping[fx.Node, int],
) -> Segment:
    """Describe the nodes from ``start`` to before ``stop``."""
    inside = tuple(nodes[start:stop])
    read = dict.fromkeys(parent for node in inside for parent in node.all_input_nodes)
    return Segment(
        nodes=inside,
        calls=tuple(node for node in inside if node in blocks),
        given=tuple(n for n in read if n in place and place[n] < start),
        kept=tuple(n for n in nodes[:stop] if last_use[n] >= stop),
    )


@torch.no_grad()
def walk(
    network: fx.GraphModule,
    segments: Sequence[Segment],
    images: Iterable[Tensor],
    *,
    observe: Observer,
    prune: Callable[[Segment], None],
    inputs: str = "sequential",
    advance: Callable[[], None] = lambda: None,
) -> None:
    """Let every segment of a captured graph see its inputs, and prune it.

    ``observe`` gets each layer's node and input, ``prune`` each segment once all its inputs were
    observed; it changes the weights of ``network`` in place. ``inputs`` is ``sequential`` (a block
    sees what the pruned blocks before it make) or ``dense``.
    """
    placeholder = next(node for node in network.graph.nodes if node.op == "placeholder")
    states: list[Values] = [{placeholder: batch} for batch in images]
    for position, segment in enumerate(segments):
        goes_on = position < len(segments) - 1
        in_one_pass = goes_on and (inputs == "dense" or not segment.calls)
        seen = segment.nodes if in_one_pass else segment.nodes_to_last_call
        after = [run_nodes(network, seen, state, segment, observe) for state in states]
        if segment.calls:
            prune(segment)
        if goes_on and not in_one_pass:
            after = [run_nodes(network, segment.nodes, state, segment, None) for state in states]
        states = after
        advance()


def run_nodes(
    network: fx.GraphModule,
    nodes: Sequence[fx.Node],
    state: Mapping[fx.Node, Any],
    segment: Segment,
    observe: Observer | None,
) -> Values:
    """Evaluate nodes of a segment on one batch; return what later segments need."""
    # of the interpreter only the evaluation of one node is wanted
    machine = fx.Interpreter(network, garbage_collect_values=False)
    values = machine.env = dict(state)
    kept = set(segment.kept)
    remaining = Counter(parent for node in nodes for parent in node.all_input_nodes)
    calls = set(segment.calls)
    for node in nodes:
        if node.op == "placeholder":
            continue
        if observe is not None and node in calls:
            observe(node, values[node.args[0]])  # pyright: ignore[reportArgumentType]
        # parameters are read at this moment, and not kept
        read = [parent for parent in node.all_input_nodes if parent.op == "get_attr"]
        values |= {parent: machine.run_node(parent) for parent in read}
        values[node] = machine.run_node(node)
        for parent in node.all_input_nodes:
            remaining[parent] -= 1
            if parent in read or (not remaining[parent] and parent not in kept):
                values.pop(parent, None)
    return {node: values[node] for node in segment.kept if node in values}
