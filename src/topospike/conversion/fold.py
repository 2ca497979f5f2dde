"""Fold evaluation-mode batch norms into the layer before them, on the captured graph.

In evaluation mode a batch norm is one factor and one shift per output channel, so it can be
absorbed: ``W' = W g / sqrt(var + eps)``, ``b' = (b - mean) g / sqrt(var + eps) + shift``. A factor
per output channel cannot turn a zero weight into a link, so the topology is untouched. Without
folding the result is the same to rounding; folding saves one pass over each activation a step.
"""

from __future__ import annotations

from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, fx, nn

from topospike.wiring.graph import fetch
from topospike.wiring.layers import CONVOLUTIONS, LINEARS

aten = torch.ops.aten
BATCH_NORM = aten._native_batch_norm_legit_no_training.default


def fold_batch_norms(network: fx.GraphModule) -> list[str]:
    """Absorb every batch norm that directly follows a layer of its own; return their names.

    A batch norm stays where it is when its input is used elsewhere too, when the layer before it
    is not a convolution or a linear layer with its own plain weight, or when that weight is used
    at a second place. In all those cases folding would change another value.
    """
    folded = []
    for node in list(network.graph.nodes):
        if node.target is BATCH_NORM and is_foldable(node, network.graph):
            folded.append(fold(node, network))
    network.graph.eliminate_dead_code()
    network.recompile()
    return folded


def is_foldable(norm: fx.Node, graph: fx.Graph) -> bool:
    """Tell whether folding this batch norm changes nothing but the layer before it."""
    layer = norm.args[0]
    if not isinstance(layer, fx.Node) or layer.target not in CONVOLUTIONS | LINEARS:
        return False
    transposed = layer.target is aten.convolution.default and bool(layer.args[6])
    if transposed or "transpose" in str(layer.target):
        return False  # the weight's output channels are not on its first axis
    if len(layer.users) != 1 or layer.meta["val"].ndim < 2:
        return False
    if layer.target in LINEARS and layer.meta["val"].ndim != 2:
        return False  # the norm's channel axis is not the layer's output axis
    gain_and_shift = [value for value in norm.args[1:3] if value is not None]
    if not all(is_attribute(value) for value in (*gain_and_shift, *norm.args[3:5])):
        return False
    return is_used_once(layer.args[1], graph) and all(
        is_used_once(bias, graph) for bias in layer.args[2:3] if bias is not None
    )


def is_attribute(value: object) -> TypeGuard[fx.Node]:
    """Tell whether a node argument is a plain parameter or buffer."""
    return isinstance(value, fx.Node) and value.op == "get_attr"


def is_used_once(value: object, graph: fx.Graph) -> bool:
    """Tell whether a parameter is read at one place of the graph."""
    if not is_attribute(value):
        return False
    aliases = [n for n in graph.nodes if n.op == "get_attr" and n.target == value.target]
    return sum(len(alias.users) for alias in aliases) == 1


@torch.no_grad()
def fold(norm: fx.Node, network: fx.GraphModule) -> str:
    """Rewrite one layer and remove the batch norm behind it; return the norm's module path."""
    layer, *statistics = cast("tuple[Any, ...]", norm.args[:5])
    gain, shift = (None if node is None else fetch(network, node) for node in statistics[:2])
    mean, variance = (fetch(network, node) for node in statistics[2:])
    factor = torch.rsqrt(variance + cast("float", norm.args[6])) * (1.0 if gain is None else gain)
    old_bias = layer.args[2] if len(layer.args) > 2 else None
    weight, weight_name = fetch(network, layer.args[1]), str(layer.args[1].target)
    bias = torch.zeros_like(mean) if old_bias is None else fetch(network, old_bias)
    bias_name = free_bias_name(network, weight_name) if old_bias is None else str(old_bias.target)
    by_channel = factor.view([-1] + [1] * (weight.ndim - 1))
    set_parameter(network, weight_name, torch.where(weight == 0, weight, weight * by_channel))
    set_parameter(network, bias_name, (bias - mean) * factor + (0.0 if shift is None else shift))
    with network.graph.inserting_before(layer):
        layer.args = (*layer.args[:2], network.graph.get_attr(bias_name), *layer.args[3:])
    for item in list(norm.users):  # the operator returns (output, mean, rstd)
        item.replace_all_uses_with(layer)
        network.graph.erase_node(item)
    network.graph.erase_node(norm)
    return str(statistics[2].target).removesuffix(".running_mean")


def free_bias_name(network: fx.GraphModule, weight_name: str) -> str:
    """Return a name for a bias that a layer did not have: one that nothing else goes by."""
    owner, dot, last = weight_name.rpartition(".")
    name = f"{last.removesuffix('weight')}bias"
    while hasattr(network.get_submodule(owner), name):
        name = f"folded_{name}"
    return owner + dot + name


def set_parameter(network: nn.Module, target: str, value: Tensor) -> None:
    """Put a parameter at a dotted name."""
    path, _, name = target.rpartition(".")
    module = network.get_submodule(path)
    module._buffers.pop(name, None)
    setattr(module, name, nn.Parameter(value, requires_grad=False))
