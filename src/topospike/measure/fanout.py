"""How many existing links leave each neuron: the fan-out map of a weight layer, borders exact.

Replace the weights of a layer by its mask (ones and zeros) and drop the bias. The layer then adds
up, for each output, the inputs that have a link to it; the gradient of the sum of all outputs is
the number of links leaving each input position. Stride, padding, dilation and groups need no case
of their own. The same gradient, carried on through reshapes and pools, gives the fan-out of the
neurons of the *site* that feeds the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

from topospike.snn.wiring import AVERAGE_POOLS, PRODUCTS, RESCALING, WeightLayerInput

aten = torch.ops.aten


class ShapeProbe(fx.Interpreter):
    """Run the network once on one image and keep what the counting needs to know.

    ``values`` maps each node to a zero tensor of its shape, or to its number (batch sizes).
    """

    def __init__(self, network: fx.GraphModule) -> None:
        super().__init__(network)
        self.values: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and remember its shape."""
        result = super().run_node(n)
        self.values[n] = result.new_zeros(result.shape) if isinstance(result, Tensor) else result
        return result


def probe_shapes(network: fx.GraphModule, *image: Tensor) -> dict[fx.Node, Any]:
    """Return the shape (as a zero tensor) or number of every node for a batch of one image."""
    probe = ShapeProbe(network)
    with torch.no_grad():
        probe.run(*image)
    return probe.values


def link_counts(layer: WeightLayerInput, mask: Tensor, operand: Tensor) -> Tensor:
    """Return, for each position of ``operand``, how many existing links leave it.

    Parameters
    ----------
    layer
        The weight layer.
    mask : bool, shape of the weight
        Existing links.
    operand : Tensor, shape (1, ...)
        Any tensor of the operand's shape.

    Returns
    -------
    float64, shape of ``operand``
        Whole numbers.
    """
    probe = torch.zeros_like(operand, dtype=torch.float64, requires_grad=True)
    (counts,) = torch.autograd.grad(apply_mask(layer, mask, probe).sum(), probe)
    return counts


def apply_mask(layer: WeightLayerInput, mask: Tensor, operand: Tensor) -> Tensor:
    """Evaluate the layer with its mask in the place of its weights and without bias."""
    if layer.node.target in PRODUCTS:  # with a parameter, on whichever side it stands
        left = layer.node.args[0] is layer.operand
        factors = (operand, mask.double()) if left else (mask.double(), operand)
        return layer.node.target(*factors)  # pyright: ignore[reportCallIssue]
    settings = layer.node.args[3:]  # stride, padding, ... of a convolution; nothing for a linear
    return layer.node.target(operand, mask.to(torch.float64), None, *settings)  # pyright: ignore[reportCallIssue]


def counts_at_sites(
    layer: WeightLayerInput, counts: Tensor, values: Mapping[fx.Node, Any]
) -> dict[fx.Node, Tensor]:
    """Carry link counts from the operand back to the neurons of the sites that feed it.

    Average pools count as sums here: a spike reaches every pooled cell it belongs to, and from
    each of them every link that leaves it.

    Returns
    -------
    dict
        Site node -> float64 tensor of that site's shape (batch axis of one).
    """
    seeds = {
        site: torch.zeros_like(values[site], dtype=torch.float64, requires_grad=True)
        for site in layer.sites
    }
    arriving = events_at(layer, layer.operand, seeds, values)
    grads = torch.autograd.grad((arriving * counts).sum(), list(seeds.values()))
    return dict(zip(seeds, grads, strict=True))


def events_at(
    layer: WeightLayerInput,
    operand: fx.Node,
    at_sites: Mapping[fx.Node, Tensor],
    values: Mapping[fx.Node, Any],
) -> Tensor:
    """Push events from the sites to an operand; pools add up, factors and constants drop out.

    Parameters
    ----------
    layer
        The weight layer the events arrive at.
    operand
        Which of its operands.
    at_sites
        Site node -> events (numbers, or signed spike values), batch first.
    values
        Value, or a tensor of the right shape, of every other node the path reads.
    """
    reached: dict[fx.Node, Any] = dict(at_sites)
    for node in layer.path:
        reached[node] = push_events(node, reached, values)
    return reached[operand]


def push_events(
    node: fx.Node, reached: Mapping[fx.Node, Any], values: Mapping[fx.Node, Any]
) -> Any:
    """Evaluate one node of a path on numbers of events."""

    def value_of(parent: fx.Node) -> Any:
        if parent in reached:
            return reached[parent]
        constant = values[parent]  # carries no event; a batch size stays what it is
        return torch.zeros_like(constant) if isinstance(constant, Tensor) else constant

    changing = [parent for parent in node.all_input_nodes if parent in reached]
    if node.target in RESCALING:
        return reached[changing[0]]
    if getattr(node.target, "__name__", "") == "getitem" and is_normalised(changing[0]):
        return reached[changing[0]]
    arguments = map_arg(node.args, value_of)
    result = node.target(*arguments, **map_arg(node.kwargs, value_of))  # pyright: ignore[reportCallIssue]
    if node.target in AVERAGE_POOLS:
        return result * window_sizes(node, reached[changing[0]])
    return result


def is_normalised(node: fx.Node) -> bool:
    """Tell whether a node is a batch norm, whose result is the first item of a tuple."""
    return node.target is aten._native_batch_norm_legit_no_training.default


def window_sizes(node: fx.Node, pooled: Tensor) -> Tensor | float:
    """Return the divisor of each output of an average pool, so that the average can be undone."""
    ones = torch.ones_like(pooled[:1], dtype=torch.float64)
    if node.target is aten.mean.dim:
        averaged = node.target(ones, *node.args[1:])  # pyright: ignore[reportCallIssue]
        return ones.numel() / averaged.numel()
    if "adaptive" in str(node.target):
        sizes = node.args[1]
        return adaptive_window_sizes(ones.shape, tuple(sizes)).to(ones)  # pyright: ignore[reportArgumentType]
    average = node.target(ones, *node.args[1:])  # pyright: ignore[reportCallIssue]
    return window_sums(ones, node.args[1:]) / average


def window_sums(ones: Tensor, arguments: tuple[Any, ...]) -> Tensor:
    """Sum over the windows of an ``avg_pool1d`` or ``avg_pool2d`` with the same arguments."""
    kernel, *rest = arguments
    planar = ones.ndim - 2 == len(kernel) and len(kernel) == 2
    if planar:
        options = [*rest[:4], *([], 0, False, True)[len(rest[:4]) :]]
        return aten.avg_pool2d.default(ones, kernel, *options, 1)
    stride, padding, ceil, include = [*rest[:4], *([], [0], False, True)[len(rest[:4]) :]]
    stride = [1, *stride] if stride else []
    summed = aten.avg_pool2d.default(
        ones.unsqueeze(-2), [1, *kernel], stride, [0, *padding], ceil, include, 1
    )
    return summed.squeeze(-2)


def adaptive_window_sizes(shape: torch.Size, sizes: tuple[int, ...]) -> Tensor:
    """Return the number of inputs in each window of an adaptive pool."""
    result = torch.ones(())
    for length, parts in zip(shape[-len(sizes) :], sizes, strict=True):
        edges = [(i * length // parts, -(-(i + 1) * length // parts)) for i in range(parts)]
        result = result.unsqueeze(-1) * torch.tensor([float(end - start) for start, end in edges])
    return result


def constants_on_path(layer: WeightLayerInput) -> list[fx.Node]:
    """Return the nodes the path from the sites to the operand reads besides the sites."""
    inside = {*layer.path, *layer.sites}
    read = [parent for node in layer.path for parent in node.all_input_nodes]
    return [n for n in dict.fromkeys(read) if n not in inside and n.op != "get_attr"]
