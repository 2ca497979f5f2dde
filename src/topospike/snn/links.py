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

from topospike.snn.images import Probe
from topospike.snn.linear_maps import ADDITIONS, FILLING, bound, is_linear, overloads, push

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
        self.network = network
        self.probe = probe
        self.parameters = dict(network.named_parameters(remove_duplicate=False))
        self.masks = masks_by_parameter(network)
        self._found: dict[fx.Node, Tensor | None] = {}

    def of(self, node: fx.Node) -> Tensor | None:
        """Return where a constant tensor can be different from zero; ``None`` if unknown."""
        if node not in self._found:
            self._found[node] = self._evaluate(node)
        return self._found[node]

    def _evaluate(self, node: fx.Node) -> Tensor | None:
        if node.op == "get_attr" and str(node.target) in self.parameters:
            parameter = self.parameters[str(node.target)]
            mask = self.masks.get(id(parameter))
            return (
                torch.ones((), dtype=torch.bool).expand(parameter.shape) if mask is None else mask
            )
        value = self.probe.values[node]
        if not any(depends(parent, self.parameters) for parent in node.all_input_nodes):
            return value != 0
        inputs = node.args[:1] if node.target in DIVISIONS else node.all_input_nodes
        found = {
            parent: self.of(parent)
            for parent in inputs
            if isinstance(parent, fx.Node) and isinstance(self.probe.values[parent], Tensor)
        }
        known = {parent: links for parent, links in found.items() if links is not None}
        if len(known) < len(found):
            return None
        links = self._through(node, {parent: links.double() for parent, links in known.items()})
        if links is not None:
            return links
        everywhere = all(bool(links.all()) for links in known.values())
        return torch.ones(value.shape, dtype=torch.bool) if everywhere else None

    def _through(self, node: fx.Node, reached: dict[fx.Node, Tensor]) -> Tensor | None:
        """Evaluate one operation on ones and zeros; ``None`` if it is not known here."""
        target = node.target
        if target in KEEPING_ZEROS:
            return next(iter(reached.values())) != 0
        if target in WEIGHT_NORMS:
            return reached[bound(node)["v"]] != 0
        if target in PRODUCTS and all(isinstance(argument, fx.Node) for argument in node.args[:2]):
            left, right = (reached[argument] for argument in node.args[:2])  # pyright: ignore[reportArgumentType]
            return target(left, right) != 0  # pyright: ignore[reportCallIssue]
        if target in DIVISIONS:  # the divisor decides over no link
            numerator = next(iter(reached.values()), None)
            return (
                None
                if numerator is None
                else (numerator != 0).expand(self.probe.values[node].shape)
            )
        if adds_a_number(node) or not is_linear(node, reached.__contains__):
            return None
        return push(node, reached, self.probe.values, ones=True) != 0


def adds_a_number(node: fx.Node) -> bool:
    """Tell whether a node puts a number other than 0 where there may have been none."""
    if node.target not in ADDITIONS | FILLING:
        return False
    given = bound(node)
    return any(
        isinstance(value, int | float) and value != 0
        for name, value in given.items()
        if name in ("self", "other", "value")
    )


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
