"""Fold evaluation-mode batch norms into the layer before them, on the captured graph.

In evaluation mode a batch norm is one factor and one shift per output channel, so it can be
absorbed: ``W' = W g / sqrt(var + eps)``, ``b' = (b - mean) g / sqrt(var + eps) + shift``. A factor
per output channel cannot turn a zero weight into a link, so the topology is untouched. Without
folding the result is the same to rounding; folding saves one pass over each activation a step.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

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
    statistics = norm.args[1:5]
    if not all(is_attribute(value) or value is None for value in statistics):
        return False
    return is_used_once(layer.args[1], graph) and all(
        is_used_once(bias, graph) for bias in layer.args[2:3] if bias is not None
    )


def is_attribute(value: object) -> bool:
    """Tell whether a node argument is a plain parameter or buffer."""
    return isinstance(value, fx.Node) and value.op == "get_attr"


def is_used_once(value: object, graph: fx.Graph) -> bool:
    """Tell whether a parameter is read at one place of the graph."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return False
    aliases = [n for n in graph.nodes if n.op == "get_attr" and n.target == value.target]
    return sum(len(alias.users) for alias in aliases) == 1


@torch.no_grad()
def fold(norm: fx.Node, network: fx.GraphModule) -> str:
    """Rewrite one layer and remove the batch norm behind it; return the norm's module path."""
    layer = norm.args[0]
    if not isinstance(layer, fx.Node):
        raise TypeError(f"batch norm {norm.name} has no layer before it")
    gain, shift, mean, variance = (
        None if value is None else attribute(network, value) for value in norm.args[1:5]
    )
    epsilon = float(norm.args[6])  # pyright: ignore[reportArgumentType]
    if mean is None or variance is None:
        raise TypeError(f"batch norm {norm.name} has no running statistics")
    factor = torch.rsqrt(variance + epsilon) * (1.0 if gain is None else gain)
    weight_node = layer.args[1]
    weight = attribute(network, weight_node)
    old_bias = layer.args[2] if len(layer.args) > 2 else None
    bias = torch.zeros_like(mean) if old_bias is None else attribute(network, old_bias)
    shape = [-1] + [1] * (weight.ndim - 1)
    new_weight = torch.where(weight == 0, weight, weight * factor.view(shape))
    new_bias = (bias - mean) * factor + (0.0 if shift is None else shift)

    weight_name = target_of(weight_node)
    bias_name = free_bias_name(network, weight_name) if old_bias is None else target_of(old_bias)
    set_parameter(network, weight_name, new_weight)
    set_parameter(network, bias_name, new_bias)
    with network.graph.inserting_before(layer):
        bias_node = network.graph.get_attr(bias_name)
    layer.args = (*layer.args[:2], bias_node, *layer.args[3:])
    for item in list(norm.users):  # the operator returns (output, mean, rstd)
        item.replace_all_uses_with(layer)
        network.graph.erase_node(item)
    running_mean = target_of(norm.args[3])
    network.graph.erase_node(norm)
    return running_mean.removesuffix(".running_mean")


def free_bias_name(network: fx.GraphModule, weight_name: str) -> str:
    """Return a name for a bias that a layer did not have: one that nothing else goes by."""
    owner, _, last = weight_name.rpartition(".")
    name = last.removesuffix("weight") + "bias"
    module = submodule(network, owner)
    while module is not None and hasattr(module, name):
        name = f"folded_{name}"
    return f"{owner}.{name}" if owner else name


def submodule(network: nn.Module, path: str) -> nn.Module | None:
    """Return a module by its path, ``None`` if there is none."""
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def target_of(node: object) -> str:
    """Return the dotted name a ``get_attr`` node reads."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        raise TypeError(f"{node} is not a parameter or buffer of the network")
    return str(node.target)


def attribute(network: nn.Module, node: object) -> Tensor:
    """Return the tensor a ``get_attr`` node reads."""
    path, _, name = target_of(node).rpartition(".")
    return getattr(network.get_submodule(path), name)


def set_parameter(network: nn.Module, target: str, value: Tensor) -> None:
    """Put a parameter at a dotted name, creating the modules on the way."""
    path, _, name = target.rpartition(".")
    module = network
    for part in path.split(".") if path else []:
        if not hasattr(module, part):
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if name in module._buffers:
        del module._buffers[name]
    setattr(module, name, nn.Parameter(value, requires_grad=False))
