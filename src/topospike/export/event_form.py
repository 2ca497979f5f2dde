"""Export: a spiking network in its event form: populations of neurons and what links them.

A `SpikingNetwork` is the graph of an ANN. Chips, other simulators and counters want the other view:
neurons that send spikes of size one along weights. `event_form` reads that view off the graph. Each
site becomes a population, each linear route from one site (or the image) to another a pathway: a
chain of convolutions, linear layers and pools. Linear layers behind an image are written as
convolutions of full kernel size, grouped convolutions as dense ones with exact zeros, residual
additions as several pathways into one population. Thresholds are still the site's own here;
`topospike.export.folding` turns them into ones.

What no chain of these can express (max-pools, ceilings, products of activations, norms that could
not be folded) is refused with the name of the place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from topospike.errors import ConversionError
from topospike.models.capture import node_module
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.wiring.graph import is_site
from topospike.wiring.layers import LINEARS, weight_name

aten = torch.ops.aten

PLAIN_CONVOLUTIONS = frozenset({aten.conv2d.default, aten.conv2d.padding, aten.convolution.default})
RESHAPES = frozenset(
    {
        aten.view.default, aten.reshape.default, aten._unsafe_view.default,
        aten.flatten.using_ints, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
        aten.unflatten.int,
    }
)  # fmt: skip
NOTHING_DONE = frozenset(
    {aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default}
    | {aten.dropout.default, aten.to.dtype, aten._to_copy.default}
)
POOLS = frozenset(
    {aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim}
    | {aten._adaptive_avg_pool2d.default}
)
WHY_NOT = {
    aten.max_pool2d.default: "a max-pool cannot be written as weights; train with average pools",
    aten.clamp.default: "a ceiling (ReLU6) cannot be written as weights; train with plain ReLUs",
    aten._native_batch_norm_legit_no_training.default: "this batch norm could not be folded into a "
    "layer; convert with fold=True, and put it directly behind a convolution or linear layer",
    aten.matmul.default: "a product of two activations cannot be written as weights",
}

Pair = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Weights:
    """A convolution, weight (out, in, kh, kw), or in a network of vectors a matrix (out, in).

    ``is_shortcut`` marks the links from each channel to itself that stand for a residual addition;
    they are no layer of the ANN and their operations are not counted.
    """

    name: str
    weight: Tensor
    bias: Tensor | None
    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    is_shortcut: bool = False

    def apply(self, x: Tensor, *, bias: bool = False) -> Tensor:
        """Return what arrives behind this layer, with or without its bias."""
        shift = self.bias if bias else None
        if self.weight.ndim == 2:
            return torch.nn.functional.linear(x, self.weight, shift)
        return torch.nn.functional.conv2d(
            x, self.weight, shift, self.stride, self.padding, self.dilation
        )

    def shape_behind(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape this layer makes of one without its batch axis."""
        if self.weight.ndim == 2:
            return (len(self.weight),)
        kernel = [
            step * (size - 1) + 1
            for size, step in zip(self.weight.shape[2:], self.dilation, strict=True)
        ]
        return (len(self.weight), *windows(shape, kernel, self.stride, self.padding))


@dataclass(frozen=True)
class SumPool:
    """A sum over windows; average pools become this, their divisor goes into ``scale``."""

    kernel: Pair
    stride: Pair
    padding: Pair = (0, 0)
    scale: float = 1.0

    def apply(self, x: Tensor, *, bias: bool = False) -> Tensor:
        """Return the scaled sums; a pool has no bias."""
        size = self.kernel[0] * self.kernel[1]
        pooled = torch.nn.functional.avg_pool2d(x, self.kernel, self.stride, self.padding)
        return pooled * (size * self.scale)

    def shape_behind(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape this pool makes of one without its batch axis."""
        return (shape[0], *windows(shape, self.kernel, self.stride, self.padding))


def windows(
    shape: Sequence[int], kernel: Sequence[int], stride: Pair, padding: Pair
) -> Iterator[int]:
    """Yield how many windows fit into height and width."""
    for size, width, step, edge in zip(shape[1:], kernel, stride, padding, strict=True):
        yield (size + 2 * edge - width) // step + 1


@dataclass(frozen=True, eq=False)
class Pathway:
    """A linear route into a population, from a population or (``source`` None) the image.

    ``shape`` is the shape that arrives, (channels, height, width) or (features,).
    """

    source: str | None
    steps: tuple[Weights | SumPool, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Population:
    """The neurons of one site; the readout, which has no neurons, has no site."""

    name: str
    shape: tuple[int, ...]
    pathways: tuple[Pathway, ...]
    site: Site | None


@dataclass(frozen=True, eq=False)
class EventForm:
    """All populations in the order in which they run, the readout last."""

    input_shape: tuple[int, ...]
    populations: tuple[Population, ...]


def event_form(snn: SpikingNetwork) -> EventForm:
    """Return the populations of a spiking network and the pathways that link them.

    Parameters
    ----------
    snn
        A converted network: images (channels, height, width) or vectors, convolutions, linear
        layers, average pools, residual additions.

    Raises
    ------
    ConversionError
        If the network does something else on the way; the message names the place and the remedy.

    Notes
    -----
    A layer that several sites feed becomes one pathway for each of them, because each brings its
    own spike size; its bias goes with the first.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> form = event_form(ts.convert(model, "qcfs", [torch.rand(32, 4)]))
    >>> [(p.name, p.pathways[0].source, p.shape) for p in form.populations]
    [('1', None, (8,)), ('readout', '1', (3,))]
    """
    if len(snn.input_shape) not in (1, 3):
        raise ConversionError(
            f"the network takes inputs of shape {snn.input_shape}; (features,) or (channels, "
            "height, width) is required to write it as populations and weights."
        )
    return Reader(snn).read()


class Reader:
    """One pass over the graph of a network; remembers the routes to each node."""

    def __init__(self, snn: SpikingNetwork) -> None:
        self.snn = snn
        self.flat = len(snn.input_shape) == 1
        self.routes: dict[fx.Node, tuple[Pathway, ...]] = {}

    def read(self) -> EventForm:
        """Visit every node that changes with the image."""
        populations = []
        for node in self.snn.ann.graph.nodes:
            if node.op == "placeholder":
                self.routes[node] = (Pathway(None, (), self.snn.input_shape),)
            elif is_site(node):
                populations.append(self.population(node))
            elif node.op == "output":
                routes = self.routes_of(node.args[0])
                populations.append(Population("readout", routes[0].shape, routes, None))
            elif isinstance(node.meta.get("val"), Tensor) and self.is_reached(node):
                self.routes[node] = self.follow(node)
        return EventForm(self.snn.input_shape, tuple(populations))

    def is_reached(self, node: fx.Node) -> bool:
        """Tell whether a node changes with the image."""
        return any(parent in self.routes for parent in node.all_input_nodes)

    def population(self, node: fx.Node) -> Population:
        """Read one site."""
        site = self.snn.ann.get_submodule(str(node.target))
        if not isinstance(site, Site):
            raise TypeError(f"{node.target} is not a site")
        routes = self.routes_of(node.args[0])
        shape = routes[0].shape
        if not self.flat and math.prod(shape[1:]) > 1 and node.meta["val"].ndim == 2:
            raise refusal(node, "a site behind a flatten; put the activation before the flatten")
        self.routes[node] = (Pathway(site.name, (), shape),)
        return Population(site.name, shape, routes, site)

    def routes_of(self, node: Any) -> tuple[Pathway, ...]:
        """Return the routes to a node that must have some."""
        if not isinstance(node, fx.Node) or node not in self.routes:
            raise ConversionError(
                f"{node} does not depend on the image alone through layers; it cannot be exported."
            )
        return self.routes[node]

    def follow(self, node: fx.Node) -> tuple[Pathway, ...]:
        """Lengthen the routes of a node's inputs by what the node does."""
        if node.target in PLAIN_CONVOLUTIONS or node.target in LINEARS:
            return self.through_weights(node)
        if node.target is aten.add.Tensor:
            return self.added(node)
        before = self.routes_of(node.all_input_nodes[0])
        if node.target in POOLS:
            pool = self.pool(node, before[0].shape)
            shape = (before[0].shape[0], *self.spatial(node))
            return tuple(replace(p, steps=(*p.steps, pool), shape=shape) for p in before)
        after = tuple(map(int, node.meta["val"].shape[1:]))
        moves = node.target in RESHAPES and after in (
            before[0].shape,
            (math.prod(before[0].shape),),
        )
        if moves or node.target in NOTHING_DONE:
            return before
        reason = WHY_NOT.get(node.target, f"{node.target} cannot be written as weights")  # pyright: ignore[reportArgumentType, reportCallIssue]
        raise refusal(node, reason)

    def spatial(self, node: fx.Node) -> Pair:
        """Return height and width behind a node; (1, 1) where the axes are gone."""
        shape = node.meta["val"].shape
        return (int(shape[2]), int(shape[3])) if len(shape) == 4 else (1, 1)

    def added(self, node: fx.Node) -> tuple[Pathway, ...]:
        """Merge the routes of two summands."""
        summands = node.args[:2]
        if node.kwargs.get("alpha", 1) != 1 or not all(s in self.routes for s in summands):
            raise refusal(node, "only two streams of spikes can be added, without a factor")
        left, right = (self.routes_of(summand) for summand in summands)
        if left[0].shape != right[0].shape:
            raise refusal(node, f"shapes {left[0].shape} and {right[0].shape} are added")
        return left + right

    def through_weights(self, node: fx.Node) -> tuple[Pathway, ...]:
        """Append a convolution or linear layer; its bias goes with the first route."""
        before = self.routes_of(node.args[0])
        weight, bias = (self.parameter(argument) for argument in (*node.args, None)[1:3])
        if weight is None:
            raise refusal(node, "its weight is not a parameter")
        name = weight_name(node)
        if node.target in LINEARS:
            if node.meta["val"].ndim != 2:
                raise refusal(node, "a linear layer over the last of several axes")
            arriving = before[0].shape
            matrix = weight if self.flat else weight.reshape(len(weight), *arriving)
            layer = Weights(name, matrix, bias)
            shape = (len(weight),) if self.flat else (len(weight), 1, 1)
        else:
            layer = self.convolution(node, name, weight, bias)
            shape = tuple(map(int, node.meta["val"].shape[1:]))
        silent = replace(layer, bias=None)
        return tuple(
            replace(p, steps=(*p.steps, silent if index else layer), shape=shape)
            for index, p in enumerate(before)
        )

    def convolution(self, node: fx.Node, name: str, weight: Tensor, bias: Tensor | None) -> Weights:
        """Read the settings of a convolution and write its groups out."""
        rest: list[Any] = list(node.args[3:])
        if node.target is aten.convolution.default:
            stride, padding, dilation, transposed, _, groups = rest
            if transposed:
                raise refusal(node, "a transposed convolution")
        else:
            stride, padding, dilation, groups = [*rest, *(1, 0, 1, 1)[len(rest) :]]
        if isinstance(padding, str):
            padding = explicit_padding(node, padding, weight, pair(dilation))
        return Weights(
            name, without_groups(weight, groups), bias, pair(stride), pair(padding), pair(dilation)
        )

    def parameter(self, argument: Any) -> Tensor | None:
        """Return the value of a parameter node, ``None`` for a missing bias."""
        if not isinstance(argument, fx.Node) or argument.op != "get_attr":
            return None
        path, _, name = str(argument.target).rpartition(".")
        return getattr(self.snn.ann.get_submodule(path), name).detach()

    def pool(self, node: fx.Node, arriving: tuple[int, ...]) -> SumPool:
        """Read an average pool whose windows are all full."""
        rest: list[Any] = list(node.args[1:])
        if node.target is aten.avg_pool2d.default:
            kernel, stride, padding, ceil, include, divisor = [
                *rest, *([], [], 0, False, True, None)[len(rest) :],
            ]  # fmt: skip
            kernel, padding = pair(kernel), pair(padding)
            if ceil or (padding != (0, 0) and not include):
                raise refusal(node, "an average pool with partial windows (ceil_mode, padding)")
            scale = 1.0 / (divisor or kernel[0] * kernel[1])
            return SumPool(kernel, pair(stride) if stride else kernel, padding, scale)
        if node.target is aten.mean.dim:
            axes = {axis % 4 for axis in rest[0]}
            if node.all_input_nodes[0].meta["val"].ndim != 4 or axes != {2, 3}:
                raise refusal(node, "a mean over other axes than height and width")
            parts = (1, 1)
        else:
            parts = pair(rest[0])
        if any(size % part for size, part in zip(arriving[1:], parts, strict=True)):
            raise refusal(node, "an adaptive pool whose windows differ in size")
        height, width = (size // part for size, part in zip(arriving[1:], parts, strict=True))
        return SumPool((height, width), (height, width), (0, 0), 1.0 / (height * width))


def refusal(node: fx.Node, reason: str) -> ConversionError:
    """Return the error for a node that populations and weights cannot express."""
    return ConversionError(
        f"{node_module(node) or node.name}: {reason}. This network can be handed over as CSR "
        "weights (export_csr) or, as an ANN, as ONNX (export_onnx)."
    )


def pair(value: Any) -> Pair:
    """Return two numbers from one number or a list of one or two."""
    numbers = [value] if isinstance(value, int) else [int(v) for v in value]
    return (numbers[0], numbers[-1])


def explicit_padding(node: fx.Node, padding: str, weight: Tensor, dilation: Pair) -> list[int]:
    """Return the numbers behind ``valid`` and ``same``."""
    if padding == "valid":
        return [0, 0]
    both = [(size - 1) * step for size, step in zip(weight.shape[2:], dilation, strict=True)]
    if any(total % 2 for total in both):
        raise refusal(node, "padding='same' with an even kernel pads its sides unequally")
    return [total // 2 for total in both]


def without_groups(weight: Tensor, groups: int) -> Tensor:
    """Return the weight of an equal convolution without groups; the new entries are exact zeros.

    Examples
    --------
    >>> without_groups(torch.ones(2, 1, 1, 1), 2).flatten(1)
    tensor([[1., 0.],
            [0., 1.]])
    """
    if groups == 1:
        return weight
    outs, per_group = len(weight) // groups, weight.shape[1]
    full = weight.new_zeros(len(weight), per_group * groups, *weight.shape[2:])
    for group in range(groups):
        rows = slice(group * outs, (group + 1) * outs)
        full[rows, group * per_group : (group + 1) * per_group] = weight[rows]
    return full
