"""Simulate: how the dense products of a step are evaluated, their precision and memory format.

The executor ``bf16`` takes the products of a step in bfloat16, 8 bits of mantissa: operands and
weights are rounded to it, sums are formed in float32 by the library, and the result is rounded once
more. Everything between the products stays in the network's own precision: decoded outputs,
thresholds, residual sums, normalisations. So do the products that no site reads, the logits among
them, and those of the image alone, which are formed once.

In float32 on a CPU convolutions of large maps are faster with channels last in memory, those of
small maps without. Neither choice touches a site: its state follows the format of what arrives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.snn.split import is_site
from topospike.snn.wiring import WEIGHT_OPS

aten = torch.ops.aten

LARGE_MAP = 256
"""Positions of a map from which on channels go last in memory: 16 x 16."""

CachedWeight = Callable[[str, str, Tensor, Callable[[Tensor], Tensor]], Tensor]


@dataclass(frozen=True, eq=False)
class DenseLayer:
    """A product of a step and how it is to be formed.

    ``inputs`` are the nodes whose values it is given; parameters it fetches itself.
    """

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    dtype: torch.dtype | None
    memory_format: torch.memory_format

    def evaluate(self, network: nn.Module, cached: CachedWeight, values: tuple[Any, ...]) -> Tensor:
        """Return the layer's output in the precision of its first operand."""
        given = dict(zip(self.inputs, values, strict=True))

        def argument(arg: Any) -> Any:
            if not isinstance(arg, fx.Node):
                return arg
            if arg in given:
                return self.prepared(given[arg])
            return cached(arg.name, f"dense {self.dtype}", fetch(network, arg), self.prepared)

        args = [argument(arg) for arg in self.node.args]
        result = self.node.target(*args, **self.node.kwargs)  # pyright: ignore[reportCallIssue]
        return result.to(values[0].dtype)

    def prepared(self, tensor: Tensor) -> Tensor:
        """Return an operand or a parameter in the precision and memory format of the product."""
        images = tensor.ndim == 4 and self.node.target is aten.conv2d.default
        memory_format = self.memory_format if images else torch.preserve_format
        if self.dtype is None or not tensor.is_floating_point():
            return tensor.contiguous(memory_format=self.memory_format) if images else tensor
        return tensor.to(self.dtype, memory_format=memory_format)


def fetch(network: nn.Module, node: fx.Node) -> Tensor:
    """Return the parameter or buffer that a ``get_attr`` node reads."""
    path, _, name = str(node.target).rpartition(".")
    return getattr(network.get_submodule(path), name)


def bf16_layers(network: fx.GraphModule, changing: Iterable[fx.Node]) -> list[DenseLayer]:
    """Return the products among ``changing`` nodes that some site reads, to be formed in bf16."""
    read = upstream_of_sites(network)
    return [
        DenseLayer(node, inputs_of(node), torch.bfloat16, torch.channels_last)
        for node in changing
        if node.target in WEIGHT_OPS and node in read
    ]


def formatted_layers(network: fx.GraphModule, changing: Iterable[fx.Node]) -> list[DenseLayer]:
    """Return the convolutions among ``changing`` nodes with the memory format that suits each.

    None if no format has to be changed: where all maps are small, on an accelerator, and in a
    precision that has one algorithm only.
    """
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in network.parameters()):
        return []
    layers = [
        DenseLayer(node, inputs_of(node), None, memory_format_of(node))
        for node in changing
        if node.target is aten.conv2d.default
    ]
    return layers if any(has_channels_last(layer) for layer in layers) else []


def has_channels_last(layer: DenseLayer) -> bool:
    """Tell whether a layer wants the channels of its operand last in memory."""
    return layer.memory_format is torch.channels_last


def memory_format_of(node: fx.Node) -> torch.memory_format:
    """Return the faster memory format of a convolution."""
    positions = math.prod(map(int, node.all_input_nodes[0].meta["val"].shape[2:]))
    return torch.channels_last if positions >= LARGE_MAP else torch.contiguous_format


def inputs_of(node: fx.Node) -> tuple[fx.Node, ...]:
    """Return the nodes a product reads that are no parameters of their own."""
    return tuple(parent for parent in node.all_input_nodes if parent.op != "get_attr")


def upstream_of_sites(network: fx.GraphModule) -> set[fx.Node]:
    """Return the nodes that some site depends on."""
    found: set[fx.Node] = set()
    for node in reversed(network.graph.nodes):
        if node in found or is_site(node, network):
            found.update(node.all_input_nodes)
    return found
