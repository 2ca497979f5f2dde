"""Which links a layer has: its weight expression evaluated on the masks of its parameters.

A layer's weight may be a parameter, a slice or the transpose of one, a product of a stored weight
and a mask (`torch.nn.utils.prune`), a normalised weight, a product of two factors. The question is
the same: which entries can be different from zero, given that a parameter is zero off its mask and
may be anything on it? A parameter without a mask may be anything everywhere, exact zeros included;
a buffer is what it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map

from topospike.wiring.images import Probe
from topospike.wiring.linear_maps import (
    ADDITIONS,
    adds_a_number,
    bound,
    is_linear,
    is_number,
    is_real,
    overloads,
    push,
)

aten = torch.ops.aten

# f(0) = 0, entry by entry
KEEPING_ZEROS = overloads(
    "abs", "relu", "tanh", "sign", "sqrt", "square", "sin", "round", "floor", "trunc", "threshold",
    "hardtanh", "leaky_relu", "nan_to_num", "fake_quantize_per_tensor_affine",
)  # fmt: skip
PRODUCTS = overloads("matmul", "mm", "bmm", "mv", "dot", "vdot", "mul", "outer")
DIVISIONS = overloads("div")
WEIGHT_NORMS = overloads("_weight_norm", "_weight_norm_interface")


class Links:
    """Evaluates weight expressions of one network."""

    def __init__(self, network: nn.Module, probe: Probe) -> None:
        self.values = probe.values
        self.parameters = dict(network.named_parameters(remove_duplicate=False))
        self.masks = masks_by_parameter(network)
        self._support: dict[fx.Node, Any] = {}

    def of(self, weight: fx.Node) -> Tensor | None:
        """Return where a constant tensor can be different from zero; ``None`` if unknown."""
        if weight.op == "get_attr" and str(weight.target) in self.parameters:
            parameter = self.parameters[str(weight.target)]
            everywhere = torch.ones((), dtype=torch.bool).expand(parameter.shape)
            return self.masks.get(id(parameter), everywhere)
        support = self.support(weight)
        return None if support is None else support != 0

    def support(self, node: fx.Node) -> Any:
        """Return 0 where a node's value must be 0, another number elsewhere; ``None`` if unknown.

        Of a node with several results, one for each.
        """
        if node not in self._support:
            if node.op == "get_attr" and str(node.target) in self.parameters:
                links = self.of(node)
                self._support[node] = None if links is None else links.double()
            elif depends(node, self.parameters):
                self._support[node] = self._through(node)
            else:  # made of buffers and numbers: it is what it is
                self._support[node] = tree_map(is_not_zero, self.values[node])
        return self._support[node]

    def _through(self, node: fx.Node) -> Any:
        """Evaluate one operation on the supports of its inputs."""
        inputs = node.all_input_nodes
        if node.target in DIVISIONS:  # the divisor decides over no link
            inputs = [parent for parent in node.args[:1] if isinstance(parent, fx.Node)]
        inputs = [parent for parent in inputs if not is_number(parent)]
        decided = [p for p in inputs if is_real(p) or depends(p, self.parameters)]
        reached = {parent: self.support(parent) for parent in decided}
        if not reached or any(support is None for support in reached.values()):
            return None
        if all(is_real(parent) for parent in reached):
            support = self._evaluate(node, reached)
            if support is not None:
                return support
        value = self.values[node]
        full = all(bool((s != 0).all()) for s in tree_leaves(list(reached.values())))
        return tree_map(present, value) if full else None

    def _evaluate(self, node: fx.Node, reached: dict[fx.Node, Any]) -> Any:
        """Evaluate an operation that is known here; ``None`` for the others."""
        target, first = node.target, next(iter(reached.values()))
        if target in KEEPING_ZEROS:
            return first
        if target in WEIGHT_NORMS:
            return reached[bound(node)["v"]]
        if target in PRODUCTS and all(isinstance(argument, fx.Node) for argument in node.args[:2]):
            return target(*(reached[argument] for argument in node.args[:2]))  # pyright: ignore[reportArgumentType, reportCallIssue]
        if target in DIVISIONS:
            return first.expand(self.values[node].shape)
        if adds_a_number(node):
            return present(self.values[node]) if target in ADDITIONS else None
        if not is_linear(node, reached.__contains__):
            return None
        return push(node, reached, self.values, ones=True)


def present(value: Any) -> Any:
    """Return ones in the shape of a tensor; any other value as it is."""
    return torch.ones(value.shape, dtype=torch.float64) if isinstance(value, Tensor) else value


def is_not_zero(value: Any) -> Any:
    """Return 1 where a tensor is not 0; any other value as it is."""
    return (value != 0).double() if isinstance(value, Tensor) else value


def depends(node: fx.Node, parameters: dict[str, Any]) -> bool:
    """Tell whether a constant node is made from a parameter."""
    if node.op == "get_attr":
        return str(node.target) in parameters
    return any(depends(parent, parameters) for parent in node.all_input_nodes)


def masks_by_parameter(network: nn.Module) -> dict[int, Tensor]:
    """Return the mask of each parameter that has one, by identity: shared ones have several names.

    A mask is the buffer ``NAME_mask`` beside the parameter ``NAME``.
    """
    buffers = dict(network.named_buffers(remove_duplicate=False))
    found: dict[int, Tensor] = {}
    for name, parameter in network.named_parameters(remove_duplicate=False):
        mask = buffers.get(f"{name}_mask")
        if mask is not None and mask.dtype is torch.bool and mask.shape == parameter.shape:
            found[id(parameter)] = mask.cpu()
    return found
