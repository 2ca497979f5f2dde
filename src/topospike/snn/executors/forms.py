"""Simulate: the forms in which a step can evaluate a product, and what each is expected to cost.

`DenseForm` rounds the operands to bfloat16, or brings them into the memory format that suits the
layer; `CompressedForm` runs a linear layer on the links there are. `topospike.snn.executors.events`
has the form that follows spikes. A form is given the weights when a run starts, so it sees every
edit of them; what it has laid out is kept from run to run for as long as the weight is the same.

In float32 on a CPU convolutions of large maps are faster with channels last in memory, those of
small maps without. Neither choice touches a site: its state follows the format of what arrives.

What a step costs decides between the dense form and the one that follows spikes, layer by layer and
step by step:

    dense   multiply-accumulates x dense_mac + weight bytes x byte
    events  call + elements x scan + events x links of an event x (row_mac or link)
            + weight bytes of the channels with events x byte

The constants are fixed, so that the same network and images take the same course on every machine
and day; `CostModel.measured` replaces them by what this machine needs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor, fx, nn

from topospike.snn.executors.scatter import CompressedLinear
from topospike.wiring.graph import changing_nodes, fetch, upstream_of_sites
from topospike.wiring.layers import WEIGHT_OPS, Layer

if TYPE_CHECKING:
    from topospike.snn.executors.steps import Step
    from topospike.snn.network import SpikingNetwork


@dataclass(frozen=True)
class LayerSize:
    """What the cost of a layer depends on: all per image, borders counted as if inside.

    ``elements`` of the operand, ``channels`` among them, ``macs`` with every link present,
    ``weight_bytes``, and the share of links that exist.
    """

    elements: int
    channels: int
    macs: int
    weight_bytes: int
    density: float


@dataclass(frozen=True)
class CostModel:
    """Nanoseconds of one thread: for a dense MAC, an event's MAC in rows, a single link, ...

    The defaults were measured on an AMD EPYC of the fourth generation (AVX-512, float32).
    ``links_below`` is the density under which single links beat whole rows.

    Examples
    --------
    >>> size = LayerSize(4096, 256, 37_748_736, 2_359_296, density=0.22)
    >>> model = CostModel()
    >>> [model.prefers_events(size, images=64, events=64 * n) for n in (100, 2000)]
    [True, False]
    """

    dense_mac: float = 0.02
    row_mac: float = 0.075
    link: float = 0.9
    scan: float = 0.6
    byte: float = 0.08
    call: float = 30_000.0
    links_below: float = 0.08

    def dense(self, size: LayerSize, images: int) -> float:
        """Return the expected nanoseconds of the dense form."""
        return images * size.macs * self.dense_mac + size.weight_bytes * self.byte

    def events(self, size: LayerSize, images: int, events: int) -> float:
        """Return the expected nanoseconds of the event form."""
        per_event = size.macs / size.elements
        if size.density < self.links_below:
            work = per_event * size.density * self.link
        else:
            work = per_event * self.row_mac
        touched = min(1.0, events / size.channels) * size.weight_bytes * min(1.0, 2 * size.density)
        scanned = images * size.elements * self.scan
        return self.call + scanned + events * work + touched * self.byte

    def prefers_events(self, size: LayerSize, images: int, events: int) -> bool:
        """Tell whether the event form is expected to be the faster one."""
        return self.events(size, images, events) < self.dense(size, images)

    @classmethod
    def measured(cls) -> CostModel:
        """Return a model with this machine's own cost of a dense and an event MAC (1 s)."""
        from topospike.snn.executors.scatter import PackedWeight, event_form

        x = torch.randn(8, 128, 16, 16, generator=torch.Generator().manual_seed(0))
        x = x.to(memory_format=torch.channels_last)
        weight, y = torch.randn(128, 128, 3, 3), torch.zeros_like(x)
        sparse = torch.where(x.abs() > 1.9, x, 0.0)  # 6 % of the elements
        found = int(sparse.count_nonzero())
        packed = PackedWeight.of(weight, groups=1, links=False)
        macs = weight[0].numel() * x.numel()
        geometry = (1, 1, 1, 1, 1, 1)
        dense = fastest(lambda: torch.conv2d(x, weight, padding=1))
        empty = fastest(lambda: event_form(torch.zeros_like(x), y, packed, geometry, 0, 1.0))
        full = fastest(lambda: event_form(sparse, y, packed, geometry, found, 1.0))
        return cls(
            dense_mac=dense / macs,
            row_mac=max(full - empty, 0.0) / (found * macs / x.numel()),
            scan=empty / x.numel(),
        )


def fastest(action: Callable[[], object], repetitions: int = 7) -> float:
    """Return the least processor time of an action in nanoseconds, after one warm-up."""
    action()
    times = []
    for _ in range(repetitions):
        begin = time.process_time_ns()
        action()
        times.append(time.process_time_ns() - begin)
    return float(min(times))


aten = torch.ops.aten

FEW_LINKS = 0.05
"""Density below which a linear layer is evaluated on its links alone."""

LARGE = 1 << 16
"""Weights from which on that is worth it."""

LARGE_MAP = 256
"""Positions of a map from which on channels go last in memory: 16 x 16."""


@runtime_checkable
class Form(Protocol):
    """How one layer is evaluated in the steps of a run."""

    @property
    def node(self) -> fx.Node:
        """The layer's node of the graph."""
        ...

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """Nodes whose values `step` is given; parameters it fetches itself."""
        ...

    def start(self, network: nn.Module) -> Any:
        """Return what the layer holds when a run starts: its weights, laid out."""
        ...

    def step(self, held: Any, run: Step, values: tuple[Any, ...]) -> tuple[Tensor, Any]:
        """Return the layer's output, and what it holds after the step."""
        ...


class LaidOut:
    """Weights laid out by a function, each made again when it is not what it was.

    Examples
    --------
    >>> laid, weight = LaidOut(), torch.ones(2, 3)
    >>> first = laid.out("rows", weight, torch.Tensor.double)
    >>> laid.out("rows", weight, torch.Tensor.double) is first
    True
    >>> _ = weight.data.mul_(2.0)
    >>> laid.out("rows", weight, torch.Tensor.double)[0]
    tensor([2., 2., 2.], dtype=torch.float64)
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, Tensor, Tensor, Any]] = {}

    def out(self, kind: str, weight: Tensor, make: Callable[[Tensor], Any]) -> Any:
        """Return ``make(weight)``, remembered as long as the weight is the same."""
        weight = weight.detach()
        rows = weight.reshape(len(weight), -1) if weight.ndim else weight.reshape(1, 1)
        form, known = (weight.shape, weight.dtype, weight.device), self._known.get(kind)
        if known is None or known[0] != form or not torch.equal(rows @ known[1], known[2]):
            factors = uneven(rows[0])
            known = self._known[kind] = form, factors, rows @ factors, make(weight)
        return known[3]


def uneven(like: Tensor) -> Tensor:
    """Return the factors of a checksum, one for each weight of a row.

    The sums of all rows tell of every edit, also one made through ``.data``, unless it is below
    their rounding; they are formed at the speed of memory.
    """
    counted = torch.arange(1, len(like) + 1, device=like.device, dtype=torch.float32)
    return counted.mul_(0.618034).frac_().add_(0.5).to(like.dtype)


@dataclass(frozen=True, eq=False)
class DenseForm:
    """A product in another precision (``dtype``) or memory format."""

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    dtype: torch.dtype | None
    memory_format: torch.memory_format
    laid: LaidOut = field(default_factory=LaidOut, repr=False)

    def start(self, network: nn.Module) -> dict[fx.Node, Tensor]:
        """Return the layer's parameters in the precision and memory format of the product."""
        own = [arg for arg in self.node.all_input_nodes if arg not in self.inputs]
        return {arg: self._laid_out(arg.name, fetch(network, arg)) for arg in own}

    def _laid_out(self, name: str, weight: Tensor) -> Tensor:
        if weight.ndim < 2:  # a bias: made anew in less time than it is compared
            return self.prepared(weight)
        formed = weight.ndim != 4 or weight.is_contiguous(memory_format=self.memory_format)
        return (
            weight if self.dtype is None and formed else self.laid.out(name, weight, self.prepared)
        )

    def step(
        self, held: dict[fx.Node, Tensor], run: Step, values: tuple[Any, ...]
    ) -> tuple[Tensor, Any]:
        """Return the layer's output in the precision of its first operand."""
        given = dict(zip(self.inputs, map(self.prepared, values), strict=True)) | held
        args = [given[arg] if isinstance(arg, fx.Node) else arg for arg in self.node.args]
        result = self.node.target(*args, **self.node.kwargs)  # pyright: ignore[reportCallIssue]
        return result.to(values[0].dtype), held

    def prepared(self, tensor: Tensor) -> Tensor:
        """Return an operand or a parameter in the precision and memory format of the product."""
        images = tensor.ndim == 4 and self.node.target is aten.conv2d.default
        if self.dtype is None or not tensor.is_floating_point():
            return tensor.contiguous(memory_format=self.memory_format) if images else tensor
        return tensor.to(
            self.dtype, memory_format=self.memory_format if images else torch.preserve_format
        )


@dataclass(frozen=True, eq=False)
class CompressedForm:
    """A linear layer on its links alone."""

    node: fx.Node
    inputs: tuple[fx.Node, ...]
    laid: LaidOut = field(default_factory=LaidOut, repr=False)

    def start(self, network: nn.Module) -> tuple[CompressedLinear, Tensor | None]:
        """Return the links and the bias."""
        weight = fetch(network, self.node.args[1])
        return self.laid.out("links", weight, CompressedLinear.of), bias_of(self.node, network)

    def step(
        self, held: tuple[CompressedLinear, Tensor | None], run: Step, values: tuple[Any, ...]
    ) -> tuple[Tensor, Any]:
        """Return the layer's output."""
        links, bias = held
        return links(values[0], bias), held


def compressed_forms(snn: SpikingNetwork) -> list[Form]:
    """Return the linear layers of a step with so few links that these alone are cheaper."""
    layers = [layer for layer in snn.wiring if has_few_links(layer, snn.ann)]
    return [CompressedForm(layer.node, layer.operands) for layer in layers]


def has_few_links(layer: Layer, network: nn.Module) -> bool:
    """Tell whether a layer that runs every step is cheaper on its links alone."""
    if layer.node.target is not aten.linear.default or layer.fed_by == "image":
        return False
    weight = weight_of(layer.node, network)
    if weight is None or weight.device.type != "cpu" or weight.numel() < LARGE:
        return False
    return weight.dtype in (torch.float32, torch.float64) and density(weight) < FEW_LINKS


def bf16_forms(snn: SpikingNetwork) -> list[Form]:
    """Return the products of a step that some site reads, to be formed in bfloat16.

    8 bits of mantissa: operands and weights are rounded to it, sums are formed in float32 by the
    library, and the result is rounded once more. Everything between the products stays in the
    network's own precision; so do the products that no site reads, the logits among them.
    """
    read = upstream_of_sites(snn.ann)
    return [
        DenseForm(node, operands_of(node), torch.bfloat16, torch.channels_last)
        for node in changing_nodes(snn.ann)
        if node.target in WEIGHT_OPS and node in read
    ]


def formatted_forms(snn: SpikingNetwork) -> list[Form]:
    """Return the convolutions of a step with the memory format that suits each.

    None if no format has to be changed: where all maps are small, on an accelerator, and in a
    precision that has one algorithm only.
    """
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in snn.ann.parameters()):
        return []
    forms = [
        DenseForm(node, operands_of(node), None, memory_format_of(node))
        for node in changing_nodes(snn.ann)
        if node.target is aten.conv2d.default
    ]
    return list(forms) if any(f.memory_format is torch.channels_last for f in forms) else []


def memory_format_of(node: fx.Node) -> torch.memory_format:
    """Return the faster memory format of a convolution."""
    positions = math.prod(map(int, node.all_input_nodes[0].meta["val"].shape[2:]))
    return torch.channels_last if positions >= LARGE_MAP else torch.contiguous_format


def operands_of(node: fx.Node) -> tuple[fx.Node, ...]:
    """Return the nodes a product reads that are no parameters of their own."""
    return tuple(parent for parent in node.all_input_nodes if parent.op != "get_attr")


def weight_of(node: fx.Node, network: nn.Module) -> Tensor | None:
    """Return the weight of a layer that reads it directly, or ``None``."""
    weight = node.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return None
    return fetch(network, weight)


def bias_of(node: fx.Node, network: nn.Module) -> Tensor | None:
    """Return the bias of a layer."""
    bias = node.args[2] if len(node.args) > 2 else None
    return fetch(network, bias) if isinstance(bias, fx.Node) else None


def density(weight: Tensor) -> float:
    """Return the share of weights that are not zero."""
    return int(weight.count_nonzero()) / max(weight.numel(), 1)
