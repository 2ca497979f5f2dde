"""Stage prune: cut the graph of a model into the blocks that calibration walks through.

A block is a repeated part of the model (two or more modules of one class in a list or a
sequence) with two or more layers to prune: a transformer block, a residual block. Every other
layer is a block of its own. Nothing depends on names. The graph is cut between blocks, where the
fewest values cross, so that only these need to be kept for all images.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor, fx, nn


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the graph.

    Attributes
    ----------
    nodes
        What is computed, in order; parameters are read where they are needed.
    calls
        Those of ``nodes`` that run a layer to prune.
    given, kept
        Values taken from earlier segments, and values that later ones need.
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
    """Name the block of every layer.

    Parameters
    ----------
    model
        Any module.
    layers
        Dotted names of the layers to prune.

    Returns
    -------
    dict
        Layer name -> path of the innermost repeated module around it with two or more of the
        layers; its own name where there is none.

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
    """Cut a graph between the blocks of its layers.

    Parameters
    ----------
    graph
        Captured graph; only nodes up to the last layer to prune are used.
    blocks
        Node that runs a layer to prune -> its block, in execution order.

    Returns
    -------
    list of Segment
        The first has no layers: what lies before the first one. Consecutive layers of one block
        share a segment, and so do consecutive layers with one input.
    """
    nodes = [node for node in graph.nodes if node.op not in ("get_attr", "output")]
    place = {node: position for position, node in enumerate(nodes)}
    last_use = last_uses(nodes, place)
    crossing = crossing_values(nodes, last_use)
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


def last_uses(nodes: Sequence[fx.Node], place: Mapping[fx.Node, int]) -> dict[fx.Node, int]:
    """Return the position at which each value is read for the last time."""
    return {
        node: max((place.get(user, len(nodes)) for user in node.users), default=-1)
        for node in nodes
    }


def crossing_values(nodes: Sequence[fx.Node], last_use: Mapping[fx.Node, int]) -> list[int]:
    """Return, for a cut before each position, how many numbers an image cross it."""
    change = [0] * (len(nodes) + 2)
    for position, node in enumerate(nodes):
        if last_use[node] > position:
            change[position + 1] += values_per_image(node)
            change[last_use[node] + 1] -= values_per_image(node)
    crossing, total = [], 0
    for step in change:
        total += step
        crossing.append(total)
    return crossing


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
