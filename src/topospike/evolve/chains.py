"""Stage 2 (evolve): which masked layers feed which, read from the model's graph.

Percolation needs chains of consecutive layers: the outputs of one are the inputs of the next and of
nothing else. A chain is followed from weight layer to weight layer through operations that keep
neurons apart (activations, batch norm, pooling, flatten); it ends at an addition, a concatenation,
a second consumer, a normalisation across neurons, or a layer without a mask. So it stays inside a
residual block and never crosses the sum. Layer names play no part.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.models.capture import capture

aten = torch.ops.aten

CONVOLUTIONS = {
    aten.conv1d.default,
    aten.conv2d.default,
    aten.conv3d.default,
    aten.conv1d.padding,
    aten.conv2d.padding,
    aten.conv3d.padding,
}
LINEAR = {aten.linear.default}
# Each neuron of the result depends on the same neuron of the operand alone, as it does behind
# whatever torch itself tags as pointwise.
NEURON_WISE = {
    aten.prelu.default,
    aten.log_sigmoid.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.dropout.default,
    aten.feature_dropout.default,
    aten.alpha_dropout.default,
    aten.feature_alpha_dropout.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.alias.default,
    aten._to_copy.default,
}
# The same for the channels of (batch, chan, ...).
CHANNEL_WISE = {
    aten.batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.instance_norm.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.max_pool2d_with_indices.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten.adaptive_max_pool2d.default,
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
    aten.upsample_linear1d.vec,
    aten.upsample_bilinear2d.vec,
    aten.upsample_bicubic2d.vec,
    aten.upsample_trilinear3d.vec,
}
RESHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.squeeze.dim,
    aten.squeeze.dims,
}


def find_chains(
    model: nn.Module, example: Tensor, layers: Collection[str]
) -> list[tuple[str, ...]]:
    """Find the chains of consecutive layers among ``layers``.

    Parameters
    ----------
    model
        Any module `topospike.models.capture.capture` accepts; it is not changed.
    example : Tensor, shape (batch, ...)
        An input of the right shape; values do not matter.
    layers
        Names of the layers that may be part of a chain (those with a mask).

    Returns
    -------
    list of tuple of str
        Each chain with at least two layers, input side first. Every layer is in at most one.

    Raises
    ------
    ConversionError
        If the model cannot be captured as a graph.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2), nn.Linear(2, 2))
    >>> find_chains(model, torch.zeros(2, 4), ["0", "2"])
    [('0', '2')]
    """
    return chains_of(capture(model, example).graph, layers)


def chains_of(graph: fx.Graph, layers: Collection[str]) -> list[tuple[str, ...]]:
    """Find the chains in a captured graph, see `find_chains`."""
    nodes = weight_nodes(graph)
    following: dict[str, str] = {}
    for name, node in nodes.items():
        after = next_weight_node(node)
        if after is None or name not in layers:
            continue
        successor = next((other for other, found in nodes.items() if found is after), None)
        if successor in layers and successor is not None:
            following[name] = successor
    return join(following)


def weight_nodes(graph: fx.Graph) -> dict[str, fx.Node]:
    """Return layer name -> graph node, without layers that run more than once."""
    found = [
        (str(node.args[1].target).removesuffix(".weight"), node)
        for node in graph.nodes
        if node.target in CONVOLUTIONS | LINEAR
        and isinstance(node.args[1], fx.Node)
        and node.args[1].op == "get_attr"
    ]
    times = Counter(name for name, _ in found)
    return {name: node for name, node in found if times[name] == 1}


def next_weight_node(node: fx.Node) -> fx.Node | None:
    """Follow the only consumer until a weight layer; ``None`` if the neurons mix or branch."""
    axis: int | None = 1 if node.target in CONVOLUTIONS else shape_of(node)[1] - 1
    while axis is not None:
        consumers = [user for user in node.users if user.target is not aten.sym_size.int]
        if len(consumers) != 1 or consumers[0].args[:1] != (node,):
            return None
        after = consumers[0]
        if after.target in CONVOLUTIONS | LINEAR:
            return after if takes_neurons_of(after, node, axis) else None
        axis = axis_behind(after, node, axis)
        node = after
    return None


def takes_neurons_of(layer: fx.Node, operand: fx.Node, axis: int) -> bool:
    """Say whether a layer's input axis is the neuron axis of its operand."""
    if layer.target in LINEAR:
        return axis == shape_of(operand)[1] - 1
    grouped = len(layer.args) > 6 and layer.args[6] != 1
    return axis == 1 and not grouped


def is_neuron_wise(node: fx.Node, operand: fx.Node) -> bool:
    """Say whether each value depends on the same value of the operand, and on parameters."""
    known = node.target in NEURON_WISE or torch.Tag.pointwise in getattr(node.target, "tags", ())
    others = (other for other in node.all_input_nodes if other is not operand)
    return (
        known
        and all(other.op == "get_attr" for other in others)
        and shape_of(node) == shape_of(operand)
    )


def axis_behind(node: fx.Node, operand: fx.Node, axis: int) -> int | None:
    """Return the neuron axis behind one operation, or ``None`` if neurons do not stay apart."""
    if is_neuron_wise(node, operand):
        return axis
    if node.target is operator.getitem:
        return axis if node.args[1] == 0 and operand.target in CHANNEL_WISE else None
    if node.target in CHANNEL_WISE:
        return axis if axis == 1 else None
    if node.target is aten.mean.dim:
        return axis_behind_mean(node, operand, axis)
    if node.target in RESHAPES:
        return axis if keeps_leading_axes(operand, node, axis) else None
    return None


def axis_behind_mean(node: fx.Node, operand: fx.Node, axis: int) -> int | None:
    """Return the neuron axis behind a mean over other axes."""
    rank = shape_of(operand)[1]
    named: Any = node.args[1]
    dims = [dim % rank for dim in named] if named else list(range(rank))
    if axis in dims:
        return None
    keeps = bool(node.args[2]) if len(node.args) > 2 else False
    return axis if keeps else axis - sum(dim < axis for dim in dims)


def keeps_leading_axes(before: fx.Node, after: fx.Node, axis: int) -> bool:
    """Say whether a reshape leaves the neuron axis alone or joins it with all axes behind it."""
    old, (new, new_rank) = shape_of(before)[0], shape_of(after)
    if new_rank <= axis or old[:axis] != new[:axis]:
        return False
    return old[axis] == new[axis] or new_rank == axis + 1


def shape_of(node: fx.Node) -> tuple[list[str], int]:
    """Return the sizes of a node's tensor as text (the batch size is a symbol) and their number."""
    value = node.meta["val"]
    first = value[0] if isinstance(value, (tuple, list)) else value
    return [str(size) for size in first.shape], first.dim()


def join(following: dict[str, str]) -> list[tuple[str, ...]]:
    """Join layer -> next layer pairs into chains, each from its first layer on."""
    chains = []
    for first in following.keys() - set(following.values()):
        chain = [first]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        chains.append(tuple(chain))
    order = {name: position for position, name in enumerate(following)}
    return sorted(chains, key=lambda chain: order[chain[0]])
