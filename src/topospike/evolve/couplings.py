"""Stage 2 (evolve): neurons that depend on each other across layers that form no plain chain.

In attention the outputs of one layer reach the next through heads, slices of a fused projection and
a product with another layer. So every neuron of a masked linear layer is followed by its number:
operations that only move values (view, transpose, split, slice, ...) are run on the numbers
themselves, and where they arrive tells who meets whom. Two relations come out. A `Coupling`: neuron
i of one layer is multiplied by neuron i of another (query and key, gate and up), so each is useless
without the other. A `Feeding`: neurons of one layer are the inputs of another (value and output
projection). Layers in a plain chain are left to `chains`; nothing is followed across a sum.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.evolve.chains import LINEAR, chains_of, is_neuron_wise, weight_nodes
from topospike.models.capture import capture

aten = torch.ops.aten

# Values change place, or their number, but not themselves.
MOVES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.transpose.int,
    aten.permute.default,
    aten.t.default,
    aten.expand.default,
    aten.repeat.default,
    aten.repeat_interleave.self_int,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.select.int,
    aten.slice.Tensor,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    operator.getitem,
}
# The numbers may lie in memory otherwise than the values, which were made contiguous perhaps.
VIEWS: dict[Any, Any] = {aten.view.default: torch.reshape, aten._unsafe_view.default: torch.reshape}
PRODUCTS = {aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar}
MATRIX_PRODUCTS = {aten.matmul.default, aten.bmm.default}
ATTENTION = {aten.scaled_dot_product_attention.default}
IGNORED = {aten.sym_size.int}


@dataclass(frozen=True, slots=True)
class Coupling:
    """Row ``first_rows[i]`` of one layer and row ``second_rows[i]`` of another are multiplied."""

    first: str
    second: str
    first_rows: tuple[int, ...]
    second_rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Feeding:
    """Input i of layer ``target`` is the output neuron ``rows[i]`` of layer ``source``."""

    source: str
    target: str
    rows: tuple[int, ...]


Relation = Sequence[str] | Coupling | Feeding


@dataclass(slots=True)
class Trace:
    """Where the neurons of one layer arrive.

    ``factors`` and ``summed``: product node and operand position -> neuron numbers, for products
    neuron by neuron and for products summed over neurons; ``inputs``: layer -> the neuron at each
    of its inputs; ``lost``: numbers that reach anything else, whose neurons are never useless.
    """

    factors: dict[tuple[fx.Node, int], tuple[int, ...]] = field(default_factory=dict)
    summed: dict[tuple[fx.Node, int], tuple[int, ...]] = field(default_factory=dict)
    inputs: dict[str, tuple[int, ...]] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)

    def used_outside(
        self, rows: tuple[int, ...], *, product: fx.Node | None = None, inputs: Collection[str] = ()
    ) -> bool:
        """Say whether any of these neurons is used elsewhere than in one product or some inputs."""
        elsewhere = set(self.lost)
        elsewhere.update(*(also for (node, _), also in self.summed.items() if node is not product))
        elsewhere.update(*(also for name, also in self.inputs.items() if name not in inputs))
        return not elsewhere.isdisjoint(rows)


def find_relations(model: nn.Module, example: Tensor, layers: Collection[str]) -> list[Relation]:
    """Find chains, couplings and feedings among ``layers``, reading the model's graph once.

    Parameters
    ----------
    model
        Any module `topospike.models.capture.capture` accepts; it is not changed.
    example : Tensor, shape (batch, ...)
        An input of the right shape; values do not matter.
    layers
        Names of the layers that may take part (those with a mask).

    Returns
    -------
    list
        Chains as `topospike.evolve.find_chains` returns them, then couplings, then feedings.

    Raises
    ------
    ConversionError
        If the model cannot be captured as a graph.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> find_relations(model, torch.zeros(2, 4), ["0", "2"])
    [('0', '2')]
    """
    graph = capture(model, example).graph
    chains = chains_of(graph, layers)
    return [*chains, *couplings_and_feedings(graph, layers, chains)]


def couplings_and_feedings(
    graph: fx.Graph, layers: Collection[str], chains: Sequence[Sequence[str]]
) -> list[Coupling | Feeding]:
    """Find couplings and feedings between masked linear layers of a captured graph.

    Parameters
    ----------
    graph
        As `topospike.models.capture.capture` returns it.
    layers
        Names of the masked layers.
    chains
        Chains found before; a layer that feeds the next of its chain is not followed again.

    Returns
    -------
    list
        Couplings before the feedings they share layers with, in the order of the graph.
    """
    nodes = {name: node for name, node in weight_nodes(graph).items() if name in layers}
    names = {node: name for name, node in nodes.items()}
    in_chain = {name for chain in chains for name in chain[:-1]}
    traces = {
        name: follow(node, names)
        for name, node in nodes.items()
        if node.target in LINEAR and name not in in_chain
    }
    return [*couplings_of(traces), *feedings_of(traces)]


def couplings_of(traces: dict[str, Trace]) -> Iterator[Coupling]:
    """Pair the layers that meet in a product and are used nowhere but behind it."""
    for kind in ("summed", "factors"):
        met = {
            meeting: (name, rows)
            for name, trace in traces.items()
            for meeting, rows in getattr(trace, kind).items()
        }
        for (node, position), (first, first_rows) in met.items():
            if position != 0 or (node, 1) not in met:
                continue
            second, second_rows = met[node, 1]
            one, other = traces[first], traces[second]
            # A product neuron by neuron goes on to the same layers with both factors.
            inputs = one.inputs.keys() & other.inputs.keys() if kind == "factors" else ()
            if (
                len(first_rows) == len(second_rows)
                and not one.used_outside(first_rows, product=node, inputs=inputs)
                and not other.used_outside(second_rows, product=node, inputs=inputs)
            ):
                yield Coupling(first, second, first_rows, second_rows)


def feedings_of(traces: dict[str, Trace]) -> Iterator[Feeding]:
    """List the layers whose inputs are neurons of another and are used nowhere else."""
    for source, trace in traces.items():
        for target, rows in trace.inputs.items():
            if not trace.used_outside(rows, inputs=(target,)):
                yield Feeding(source, target, rows)


def follow(layer: fx.Node, names: dict[fx.Node, str]) -> Trace:
    """Follow the neurons of a linear layer to wherever they are used."""
    sizes = concrete(layer.meta["val"])
    trace = Trace()
    waiting: list[tuple[fx.Node, Any]] = [(layer, torch.arange(sizes[-1]).expand(sizes))]
    while waiting:
        node, numbers = waiting.pop()
        for user in node.users:
            if user.target in IGNORED:
                continue
            after = pass_through(user, node, numbers, names, trace)
            if after is not None:
                waiting.append((user, after))
    return trace


def pass_through(
    user: fx.Node, node: fx.Node, numbers: Any, names: dict[fx.Node, str], trace: Trace
) -> Any:
    """Return the numbers behind one use of a value, or note in the trace where they ended."""
    first = user.args[0] if user.args else None
    if user.target in MOVES and first is node:
        move: Any = VIEWS.get(user.target, user.target)
        kwargs = {name: constant(value) for name, value in user.kwargs.items()}
        return move(numbers, *map(constant, user.args[1:]), **kwargs)
    if first is node and is_neuron_wise(user, node):
        return numbers
    positions = [place for place, argument in enumerate(user.args) if argument is node]
    if len(positions) == 1 and isinstance(numbers, Tensor):
        place = positions[0]
        if user.target in PRODUCTS:
            return elementwise(user, place, numbers, trace)
        if user.target in MATRIX_PRODUCTS or user.target in ATTENTION:
            return contracted(user, place, numbers, trace)
        rows = along(numbers, -1)
        if user in names and place == 0 and rows is not None:
            trace.inputs[names[user]] = rows
            return None
    trace.lost.update(seen(numbers))
    return None


def elementwise(user: fx.Node, place: int, numbers: Tensor, trace: Trace) -> Tensor | None:
    """Note a product neuron by neuron; a neuron stays what it is under any factor."""
    if not isinstance(user.args[1], fx.Node):
        return numbers
    sizes, rows = concrete(user.meta["val"]), along(numbers, -1)
    divides = user.target is aten.div.Tensor and place == 1
    if list(numbers.shape) != sizes or rows is None or divides:
        trace.lost.update(seen(numbers))
        return None
    if user.target is aten.mul.Tensor:
        trace.factors[user, place] = rows
    return numbers


def contracted(user: fx.Node, place: int, numbers: Tensor, trace: Trace) -> Tensor | None:
    """Note a sum over neurons (query times key), or pass a weighted mean over tokens (values)."""
    attention = user.target in ATTENTION
    # The axis of neurons; in a plain product the key comes transposed.
    axis = -2 if place == 1 and not attention else -1
    rows = along(numbers, axis)
    if rows is not None and place < 2:
        trace.summed[user, place] = rows
        return None
    values = 2 if attention else 1
    rows = along(numbers, -1)
    if rows is None or place != values:
        trace.lost.update(seen(numbers))
        return None
    sizes = concrete(user.meta["val"])
    return numbers.narrow(-2, 0, 1).expand(sizes)


def along(numbers: Tensor, axis: int) -> tuple[int, ...] | None:
    """Return the numbers of heads and one axis, or ``None`` if another axis carries neurons.

    The axes are (batch, ..., token, neuron), with heads in between; batch and token must not matter
    (one token cannot tell, so it is refused).
    """
    other = -1 if axis == -2 else -2
    if numbers.dim() == 2 and axis == -1:
        return tuple(numbers[0].tolist()) if bool((numbers == numbers[:1]).all()) else None
    if numbers.dim() < 3 or numbers.shape[other] < 2:
        return None
    one = numbers[:1].narrow(other, 0, 1)
    if not bool((numbers == one).all()):
        return None
    return tuple(one.flatten().tolist())


def seen(numbers: Any) -> list[int]:
    """Return the distinct numbers of a tensor or of several."""
    parts = [numbers] if isinstance(numbers, Tensor) else list(numbers)
    return torch.cat([part.flatten() for part in parts]).unique().tolist()


def concrete(value: Any) -> list[int]:
    """Return the sizes of a tensor in the graph; the free batch size counts as in the example."""
    return [constant(size) for size in value.shape]


def constant(argument: Any) -> Any:
    """Replace symbolic sizes in an argument by those of the example."""
    if isinstance(argument, fx.Node):
        argument = argument.meta["val"]
    if isinstance(argument, (list, tuple)):
        return [constant(item) for item in argument]
    return argument.node.hint if isinstance(argument, torch.SymInt) else argument
