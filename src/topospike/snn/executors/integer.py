"""Simulate: the form of whole numbers. 8-bit weights times spike codes change what a layer held.

    held    y_t = y_(t-1) + (d / g) (Wq c_t)            mean    y_t = (d / t) sum_k (Wq c_k) + b

with spikes ``s = q c`` of whole codes c, weights ``W = d Wq / q`` (`topospike.snn.executors.quanta`
has the quanta q, `topospike.quantise_weights` makes such weights) and the gain g of the coding. The
sums are exact; the state is of the network's precision. Both equal ``W r_out + b`` up to rounding.

A layer has this form if its weights are multiples of a step and its codes fit 8 bits. Nothing is
stored of it: the step is read off the weights. All other layers are evaluated as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from topospike.errors import ConfigError
from topospike.snn.coding import Coding
from topospike.snn.executors.forms import Form, LaidOut, bias_of, density, weight_of
from topospike.snn.executors.paths import code_path, geometry_of, path_function, way_of
from topospike.snn.executors.quanta import Codes, Quanta
from topospike.snn.executors.scatter import Geometry
from topospike.snn.executors.whole_products import (
    Product,
    WholeWeight,
    coded,
    in_format,
    outputs_of,
    product_of,
)
from topospike.wiring.layers import Layer

if TYPE_CHECKING:
    from topospike.snn.executors.steps import Step
    from topospike.snn.network import SpikingNetwork

aten = torch.ops.aten

BITS = range(2, 9)
"""Bits that a whole weight may have, its sign among them."""

FEW_LINKS = 0.0125
"""Density below which a linear layer is faster on its links alone than on whole numbers."""

ON_GRID = 1e-4
"""Distance from a whole number that the rounding of float32 explains."""


def largest_whole(bits: int) -> int:
    """Return the largest whole weight of so many bits: 127 of 8."""
    return (1 << (bits - 1)) - 1


def steps_of(weight: Tensor, bits: int) -> Tensor:
    """Return the step of each row (out, ...) of a weight in units of its quanta; 1 of a zero row.

    Examples
    --------
    >>> steps_of(torch.tensor([[0.5, -7.0], [0.0, 0.0]]), bits=4)
    tensor([1., 1.])
    """
    steps = weight.abs().flatten(1).amax(1) / largest_whole(bits)
    return steps.where(steps > 0, 1.0)


def by_row(steps: Tensor, weight: Tensor) -> Tensor:
    """Return one number a row so that it broadcasts over a weight."""
    return steps.view(-1, *(1 for _ in weight.shape[1:]))


@dataclass(frozen=True, eq=False)
class IntegerState:
    """What a layer holds: its product and bias, and the sum so far (``None`` before a step)."""

    product: Product
    bias: Tensor
    total: Tensor | None = None


@dataclass(frozen=True, eq=False)
class IntegerForm:
    """A layer on whole numbers; its paths as in `topospike.snn.executors.paths`."""

    name: str
    node: fx.Node
    sites: tuple[fx.Node, ...]
    numbers: tuple[fx.Node, ...]
    coding: Coding
    path: Callable[..., Tensor]
    code_path: Callable[..., Tensor] | None
    codes: Codes
    thresholds: tuple[Tensor, ...]
    laid: LaidOut = field(default_factory=LaidOut, repr=False)

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """The nodes whose values `step` is given."""
        return (*self.sites, *self.numbers)

    @property
    def maps(self) -> bool:
        """Whether it is a convolution: rows are then the second axis of outputs, not the last."""
        return self.node.target is aten.conv2d.default

    def start(self, network: nn.Module) -> IntegerState:
        """Return the product and the bias, before any step."""
        weight = weight_of(self.node, network)
        if weight is None:
            raise RuntimeError(f"{self.name} has no weight of its own")
        if not all(map(torch.equal, thresholds_of(self.sites, network), self.thresholds)):
            raise edited(
                self.name, "the thresholds that feed it are no longer those of its weights"
            )
        product = self.laid.out(f"whole {weight.dtype} {weight.device}", weight, self._product)
        bias = bias_of(self.node, network)
        return IntegerState(product, weight.new_zeros(len(weight)) if bias is None else bias)

    def _product(self, weight: Tensor) -> Product:
        whole = whole_weight(weight, self.node, self.codes)
        if whole is None:
            raise edited(self.name, "its weights are no longer multiples of a step")
        return product_of(whole, weight)

    def step(
        self, held: IntegerState, run: Step, values: tuple[Any, ...]
    ) -> tuple[Tensor, IntegerState]:
        """Return the layer's output at this step, or at several taken together."""
        if held.total is None and run.t > 1:
            raise RuntimeError(f"{self.name} was not asked for its output at step 1")
        codes = self._codes(run, values[len(self.sites) :])
        sums = held.product(codes)
        total = held.total
        if total is None:
            total = torch.zeros_like(sums[: len(sums) // run.together])
        shares = tuple(1.0 / self.coding.gain(run.t + k) for k in range(run.together))
        ones = (1.0,) * run.together
        factors = (ones, shares) if self.coding.averages else (shares, ones)
        of_layer = held.product.offset(codes), held.product.scale, held.bias
        outputs = outputs_of(sums, total, of_layer, *factors, maps=self.maps)
        return outputs, replace(held, total=total)

    def _codes(self, run: Step, numbers: tuple[Any, ...]) -> Tensor:
        """Return what arrives as unsigned codes of 8 bits, shifted if they have signs."""
        codes = run.codes_of(self.sites[0])
        if self.code_path is not None and codes is not None:
            return in_format(self.code_path(run.ann, codes, *numbers), maps=self.maps)
        spikes = (run.spikes_of(node) for node in self.sites)
        operand = self.path(run.ann, *spikes, *numbers)
        if self.codes.largest == 1 and not self.codes.signed:
            return in_format(operand.ne(0).view(torch.uint8), maps=self.maps)
        unit = self.codes.quantum.reciprocal()
        unit = unit[:, None, None] if self.maps else unit
        shift = self.codes.largest if self.codes.signed else 0
        return in_format(coded(operand, unit, shift), maps=self.maps)


def edited(name: str, what: str) -> ConfigError:
    """Return the error for a layer that was edited after its weights were quantised."""
    return ConfigError(
        f"{name}: {what}. After an edit quantise the weights again (topospike.quantise_weights), "
        "or use executor='decoded'."
    )


def thresholds_of(sites: tuple[fx.Node, ...], network: nn.Module) -> tuple[Tensor, ...]:
    """Return copies of the thresholds of some sites."""
    called = (network.get_submodule(str(node.target)) for node in sites)
    return tuple(site.get_buffer("threshold").to("cpu", copy=True) for site in called)


@dataclass(frozen=True, eq=False)
class Grid:
    """A matrix that is whole numbers of so many bits times one step a row: int8 and float64."""

    bits: int
    whole: Tensor
    steps: Tensor


def grid_of(weight: Tensor) -> Grid | None:
    """Return the grid of fewest bits that a weight (out, ...) lies on, or ``None``.

    Examples
    --------
    >>> grid = grid_of(torch.tensor([[0.5, -3.5], [0.2, 1.4]]))
    >>> grid.bits, grid.whole.tolist(), grid.steps
    (4, [[1, -7], [1, 7]], tensor([0.5000, 0.2000], dtype=torch.float64))
    """
    weight = weight.detach().double().cpu()
    for bits in BITS:
        steps = steps_of(weight, bits)
        exact = weight / by_row(steps, weight)
        whole = exact.round()
        if bool(((exact - whole).abs() <= ON_GRID).all()):
            return Grid(bits, whole.to(torch.int8), steps)
    return None


def whole_weight(weight: Tensor, node: fx.Node, codes: Codes) -> WholeWeight | None:
    """Return a layer's weight as whole numbers, or ``None`` if it is none at any number of bits."""
    grid = grid_of(weight.detach().double().cpu() * codes.of_weight(weight))
    if grid is None:
        return None
    geometry, groups = geometry_of(node)
    settings = () if node.target is aten.linear.default else convolution(geometry, groups)
    return WholeWeight(grid.whole, grid.steps, settings, codes.largest, codes.signed)


def convolution(geometry: Geometry, groups: int) -> tuple[list[int], list[int], list[int], int]:
    """Return stride, padding, dilation and groups as an operation takes them."""
    return list(geometry[:2]), list(geometry[2:4]), list(geometry[4:]), groups


def codes_of(snn: SpikingNetwork) -> dict[str, Codes | str]:
    """Return, for every weight layer, the codes it can be run on, or why it cannot be."""
    quanta = Quanta(snn.ann)
    found: dict[str, Codes | str] = {}
    for layer in snn.wiring:
        codes = quanta.at(layer)
        if isinstance(codes, Codes):
            codes = obstacle(layer, codes, snn.ann) or codes
        found[layer.name] = codes
    return found


def obstacle(layer: Layer, codes: Codes, network: nn.Module) -> str:
    """Return why a layer is not run on its codes; empty if it can be."""
    if not codes.fit:
        return f"fed by sums of up to {codes.largest} spikes of the least size: more than 8 bits"
    way = way_of(layer, network)
    if way is None:
        return "its spikes pass a constant on the way, or are of several codings"
    return "" if way[0].by_formula else "its spikes are not decoded by one formula"


def integer_forms(snn: SpikingNetwork) -> list[Form]:
    """Return the layers of a network that are run on whole numbers.

    Raises
    ------
    ConfigError
        If there is none.
    """
    forms: list[Form] = []
    codes = codes_of(snn)
    for layer in snn.wiring:
        found = codes[layer.name]
        weight = weight_of(layer.node, snn.ann)
        way = way_of(layer, snn.ann)
        if isinstance(found, str) or weight is None or way is None:
            continue
        if whole_weight(weight, layer.node, found) is None or density(weight) < FEW_LINKS:
            continue
        coding, numbers = way
        forms.append(
            IntegerForm(
                name=layer.name,
                node=layer.node,
                sites=layer.sites,
                numbers=numbers,
                coding=coding,
                path=path_function(layer, numbers),
                code_path=code_path(layer, numbers),
                codes=found,
                thresholds=thresholds_of(layer.sites, snn.ann),
            )
        )
    if not forms:
        reasons = "; ".join(
            f"{name}: {why if isinstance(why, str) else 'its weights have no common step'}"
            for name, why in codes.items()
        )
        raise ConfigError(
            "executor is 'integer', and no layer of the network can be run on whole numbers "
            f"({reasons}). Quantise its weights with topospike.quantise_weights, or use "
            "executor='decoded'."
        )
    return forms
