"""Stage prune: walk the calibration images through a model, block by block.

At each block the inputs of its layers are collected while the block is still dense; then its
layers are pruned; then (sequential) the images pass through the pruned block to the next one, or
(dense) they go on as they came out of the dense block. Only what crosses from block to block is
kept for all images; everything else exists for a few images at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from topospike.errors import ConfigError
from topospike.pruning.blocks import Segment
from topospike.registry import suggestion

Inputs = Literal["sequential", "dense"]
Values = dict[fx.Node, Any]
Observer = Callable[[fx.Node, Tensor], None]


def check_inputs(inputs: str) -> None:
    """Raise `ConfigError` unless the way of walking is known."""
    known = get_args(Inputs)
    if inputs not in known:
        raise ConfigError(
            f"unknown inputs {inputs!r}. Known: {', '.join(known)}.{suggestion(inputs, known)}"
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
    """Let every segment see its inputs, and prune it.

    Parameters
    ----------
    network
        Captured graph whose weights ``prune`` changes in place.
    segments
        Its segments in order (`topospike.pruning.blocks.cut_into_segments`).
    images
        Calibration images, a few at a time; gone through once.
    observe
        Called with each layer's node and its input.
    prune
        Called with each segment once all its inputs were observed.
    inputs
        ``sequential`` (a block sees what the pruned blocks before it make) or ``dense``.
    advance
        Called after every segment.
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
    values: Values = dict(state)
    kept = set(segment.kept)
    remaining = Counter(parent for node in nodes for parent in node.all_input_nodes)
    calls = set(segment.calls)
    for node in nodes:
        if node.op == "placeholder":
            continue
        if observe is not None and node in calls:
            observe(node, values[node.args[0]])  # pyright: ignore[reportArgumentType]
        values[node] = evaluate_node(network, node, values)
        for parent in node.all_input_nodes:
            remaining[parent] -= 1
            if not remaining[parent] and parent not in kept:
                values.pop(parent, None)
    return {node: values[node] for node in segment.kept if node in values}


def evaluate_node(network: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """Evaluate one node; parameters are read from the network at that moment."""

    def value_of(parent: fx.Node) -> Any:
        return attribute(network, parent) if parent.op == "get_attr" else values[parent]

    arguments, options = map_arg(node.args, value_of), map_arg(node.kwargs, value_of)
    return node.target(*arguments, **options)  # pyright: ignore[reportCallIssue]


def attribute(network: fx.GraphModule, node: fx.Node) -> Tensor:
    """Return the tensor a ``get_attr`` node reads."""
    path, _, name = str(node.target).rpartition(".")
    return getattr(network.get_submodule(path), name)
