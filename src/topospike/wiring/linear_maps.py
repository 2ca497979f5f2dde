"""How events travel: the operations that are linear in what a site sends, and their 0/1 form.

Between a site and a weight layer there may be reshapes, sums, differences, factors, pools and the
like. Each is a linear map of what changes in time (constants aside), so an event that enters it
leaves it as events. `push` evaluates one such operation on numbers of events. With ``ones`` every
factor is replaced by 1, or by 0 where it is exactly 0: ones pushed through a difference, a weighted
sum or an average then count like ones through a sum. What is not in these tables, or has what
changes in a place where it is not linear (``y * y``, ``1 / y``), is no linear map; see `is_linear`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

aten = torch.ops.aten


def overloads(*names: str) -> frozenset[Any]:
    """Return every overload of the ATen operations with these names."""
    packets = [getattr(aten, name) for name in names]
    return frozenset(getattr(packet, name) for packet in packets for name in packet.overloads())


UNCHANGED = overloads(
    "clone", "contiguous", "alias", "detach", "to", "_to_copy", "lift_fresh_copy", "dropout",
    "feature_dropout", "alpha_dropout",
)  # fmt: skip
COPYING = overloads(
    "expand", "repeat", "stack", "cat", "index_select", "index", "gather", "unfold", "im2col",
    "pad", "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d",
    "replication_pad2d", "replication_pad3d", "upsample_nearest1d", "upsample_nearest2d",
    "upsample_nearest3d", "_upsample_nearest_exact1d", "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
) | {aten.repeat_interleave.self_int}  # fmt: skip
MOVING = COPYING | overloads(
    "view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t",
    "squeeze", "unsqueeze", "slice", "select", "constant_pad_nd", "chunk", "split", "movedim",
    "split_with_sizes", "unbind", "channel_shuffle", "pixel_shuffle", "pixel_unshuffle", "flip",
    "roll", "tril", "triu", "diagonal", "where", "masked_fill",
) - {aten.view.dtype, aten.where.default}  # fmt: skip
VIEWS = frozenset({aten.view.default, aten._unsafe_view.default})
FACTORS = overloads("mul", "div", "neg")
BATCH_NORMS = frozenset(
    {aten._native_batch_norm_legit_no_training.default, aten.batch_norm.default}
)
ADDITIONS = overloads("add", "sub", "rsub", "lerp")
JOINING = frozenset({aten.cat.default, aten.stack.default})
CUMULATIVE = overloads("cumsum")
SUMS = CUMULATIVE | overloads("sum", "mean", "col2im")
WINDOWED = overloads(
    "avg_pool1d", "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d", "upsample_linear1d",
    "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d",
)  # fmt: skip
FILLING = overloads("pad", "constant_pad_nd", "masked_fill", "where")
AVERAGES = SUMS | frozenset(target for target in WINDOWED if "pool" in str(target))
LINEAR = UNCHANGED | MOVING | FACTORS | BATCH_NORMS | ADDITIONS | SUMS | WINDOWED

NEGLIGIBLE = 1e-9
"""Largest share of an input in an interpolated value that is rounding and no contribution."""


def bound(node: fx.Node) -> dict[str, Any]:
    """Return the arguments of a node by the names of the operator's schema, defaults included."""
    schema = node.target._schema.arguments  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
    known = {a.name: a.default_value for a in schema if a.has_default_value()}
    positional = zip((argument.name for argument in schema), node.args, strict=False)
    return {**known, **dict(positional), **node.kwargs}


def is_item(node: fx.Node) -> bool:
    """Tell whether a node picks one of several results."""
    return node.target is operator.getitem


def is_number(node: fx.Node) -> bool:
    """Tell whether a node's value is a plain number: a size of the batch."""
    return not isinstance(node.meta.get("val", Tensor()), Tensor | tuple | list)


def is_real(node: fx.Node) -> bool:
    """Tell whether a node's value is of floating point, as what carries events must be."""
    value = node.meta.get("val")
    return not isinstance(value, Tensor) or value.is_floating_point()


def is_linear(node: fx.Node, changes: Callable[[fx.Node], bool]) -> bool:
    """Tell whether a node is a linear map of those of its inputs that change (constants aside)."""
    if is_item(node):
        return True
    if node.target not in LINEAR or not is_real(node):
        return False
    changing = {p for p in node.all_input_nodes if changes(p) and not is_number(p)}
    if not all(is_real(parent) for parent in changing):
        return False  # an index or a condition decides where values go
    given = bound(node)
    if given.get("train") or given.get("training") or given.get("rounding_mode"):
        return False
    factors = {name: value for name, value in given.items() if is_among(value, changing)}
    if node.target in FACTORS:  # y * y is none
        return len(factors) == 1 and (factors.keys() <= {"self"} or "mul" in str(node.target))
    if node.target in BATCH_NORMS:
        return factors.keys() == {"input"}
    return "weight" not in factors  # of a linear interpolation


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


def is_among(value: Any, nodes: set[fx.Node]) -> bool:
    """Tell whether an argument is one of these nodes."""
    return isinstance(value, fx.Node) and value in nodes


def may_copy(node: fx.Node, value: Any, parent: Any) -> bool:
    """Tell whether a node may bring one of its inputs' values to several places."""
    if node.target in WINDOWED or node.target in CUMULATIVE:
        return True
    if node.target in JOINING or (node.target is aten.pad.default and len(node.args) < 3):
        return False
    tensors = isinstance(value, Tensor) and isinstance(parent, Tensor)
    grows = tensors and value.numel() > parent.numel()
    return node.target in COPYING or (grows and node.target is not aten.constant_pad_nd.default)


def arguments_of(node: fx.Node) -> list[fx.Node]:
    """Return the nodes among the arguments, once for each time they are there."""
    found: list[fx.Node] = []

    def add(argument: fx.Node) -> fx.Node:
        found.append(argument)
        return argument

    map_arg((node.args, node.kwargs), add)
    return found


def push(
    node: fx.Node, reached: Mapping[fx.Node, Any], values: Mapping[fx.Node, Any], *, ones: bool
) -> Any:
    """Evaluate a node that `is_linear` on the events of its inputs.

    Parameters
    ----------
    node
        The node.
    reached
        Events (numbers, or signed spike values) at the inputs that carry any.
    values
        The other inputs: factors, indices and sizes as they are, of constants the shape alone.
    ones
        Whether factors count as 1 (0 where they are 0) rather than as they are.
    """
    return Step(node, reached, values, ones=ones).result()


class Step:
    """One linear operation, about to be evaluated on events."""

    def __init__(
        self,
        node: fx.Node,
        reached: Mapping[fx.Node, Any],
        values: Mapping[fx.Node, Any],
        *,
        ones: bool,
    ) -> None:
        self.node = node
        self.reached = reached
        self.values = values
        self.ones = ones
        self.events = next(reached[parent] for parent in node.all_input_nodes if parent in reached)

    def result(self) -> Any:
        """Return the events that leave the operation."""
        target = self.node.target
        if is_item(self.node):
            several = not isinstance(self.events, Tensor)  # a batch norm passes its first item
            return self.events[self.node.args[1]] if several else self.events  # pyright: ignore[reportArgumentType, reportCallIssue]
        if target in UNCHANGED:
            return self.events
        given = bound(self.node)
        if target in FACTORS:
            return self.scaled(given)
        if target in BATCH_NORMS:
            return self.normalised(given)
        if target in ADDITIONS:
            return self.added(given)
        if self.ones and target in WINDOWED:
            return self.through_windows(given)
        if target in VIEWS:  # asks for one memory format; the same reshape takes any
            return self.events.reshape(map_arg(given["size"], self.arriving))
        if self.ones and "mean" in str(target):
            given = {name: given[name] for name in ("dim", "keepdim") if name in given}
            return torch.sum(self.events, **given)
        return target(**self.without_constants(given))  # pyright: ignore[reportCallIssue]

    def arriving(self, argument: Any) -> Any:
        """Return the events of an input: none of a constant; an index stays what it is."""
        if argument in self.reached:
            return self.reached[argument]
        value = self.values[argument]
        if isinstance(value, Tensor) and value.is_floating_point():
            return torch.zeros(value.shape, dtype=self.events.dtype, device=self.events.device)
        return value

    def factor(self, argument: Any) -> Any:
        """Return a factor as it is, or 1 where it is not 0."""
        value = self.values[argument] if isinstance(argument, fx.Node) else argument
        if isinstance(value, Tensor):
            return (value != 0).to(self.events) if self.ones else value.to(self.events)
        return float(value != 0) if self.ones else value

    def carries(self, argument: Any) -> bool:
        """Tell whether an argument is an input with events."""
        return isinstance(argument, fx.Node) and argument in self.reached

    def without_constants(self, given: dict[str, Any]) -> dict[str, Any]:
        """Return the arguments with events for values; what a pad or a mask puts in is none."""
        blank = {"value", "self", "other"} if self.node.target in FILLING else set()
        return {
            name: 0.0
            if name in blank and isinstance(value, int | float)
            else map_arg(value, self.arriving)
            for name, value in given.items()
        }

    def scaled(self, given: dict[str, Any]) -> Tensor:
        """Return the events of a product or a quotient with something constant."""
        one, other = given["self"], given.get("other", 1.0)
        if "neg" in str(self.node.target):
            return self.events if self.ones else -self.events
        if "mul" in str(self.node.target):
            return self.events * self.factor(one if self.carries(other) else other)
        divisor = self.factor(other)
        if not self.ones:
            return self.events / divisor
        return (
            self.events * torch.ones_like(divisor) if isinstance(divisor, Tensor) else self.events
        )

    def normalised(self, given: dict[str, Any]) -> Tensor:
        """Return the events of a batch norm: its gain, over a divisor that is never 0."""
        events, gain = self.events, given["weight"]
        shape = [-1] + [1] * (events.ndim - 2)
        scale = torch.ones(()) if gain is None else self.factor(gain).view(shape)
        if not self.ones:
            variance = self.factor(given["running_var"]).view(shape)
            scale = scale.to(events) / (variance + given["eps"]).sqrt()
        return events * scale.to(events)

    def added(self, given: dict[str, Any]) -> Tensor:
        """Return the events of a sum, a difference or a linear interpolation."""
        name, alpha = str(self.node.target), given.get("alpha", 1)
        if "lerp" in name:
            weight = given["weight"]
            weight = self.values[weight] if isinstance(weight, fx.Node) else weight
            parts = ((given["self"], 1 - weight), (given["end"], weight))
        else:
            signs = (-alpha, 1) if "rsub" in name else (1, -alpha if "sub" in name else alpha)
            parts = ((given["self"], signs[0]), (given["other"], signs[1]))
        terms = [
            self.arriving(part) * self.factor(size)
            for part, size in parts
            if isinstance(part, fx.Node) and not is_number(part)
        ]
        return reduce(operator.add, terms)

    def through_windows(self, given: dict[str, Any]) -> Tensor:
        """Return how many events arrive in each window, or at each interpolated value.

        These operations work along each axis alone, so one 0/1 matrix an axis says who reaches
        what; it is read off the operation itself.
        """
        events = self.events
        axes = int(next(digit for digit in str(self.node.target) if digit.isdigit()))
        sizes = events.shape[-axes:]
        del given["self" if "self" in given else "input"]
        for axis, size in enumerate(sizes):
            along = [-1 if place == axis else 1 for place in range(axes)]
            rows = torch.eye(size, dtype=events.dtype).view(size, 1, *along).expand(size, 1, *sizes)
            shares = self.node.target(rows.contiguous(), **given).movedim(2 + axis, 1)  # pyright: ignore[reportCallIssue]
            reaches = (shares.reshape(*shares.shape[:2], -1)[..., 0].abs() > NEGLIGIBLE).to(events)
            place = axis - axes
            events = (events.movedim(place, -1) @ reaches).movedim(-1, place)
        return events
