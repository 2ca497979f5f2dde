"""What nothing reads of a product of two activations, because a mask stands in its place.

Attention computes the score of every query and key, then overwrites those that the query may not
see: by a fill, a choice, a number so low that nothing is left of the score beside it, or a factor
that is 0. Such a score is not computed by anything that counts operations honestly, whether the
mask is causal or marks padding. Behind a softmax the same entries are exactly 0, and what they
would be multiplied by is not needed either.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from topospike.wiring.graph import is_site
from topospike.wiring.images import ImageAxis, axis_of
from topospike.wiring.linear_maps import UNCHANGED, bound, is_number, overloads

aten = torch.ops.aten

FILLS = overloads("masked_fill")
CHOICES = frozenset({aten.where.self, aten.where.ScalarOther, aten.where.ScalarSelf})
GAINS = overloads("mul")
SOFTMAXES = frozenset({aten.softmax.int, aten._softmax.default, aten._safe_softmax.default})
SAME_ORDER = overloads("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze",
                       "unsqueeze", "contiguous") - {aten.view.dtype}  # fmt: skip
"""Operations that keep the numbers in their order."""

SUMMED = frozenset({aten.add.Tensor})
FULL = overloads("full", "full_like", "scalar_tensor", "new_full")

Sizes = Callable[[fx.Node], tuple[torch.Size, ...]]
"""Sizes of a node's value for batches of two and three images."""


def lowest(dtype: torch.dtype) -> float:
    """Return what makes a score vanish: half of the least number that the type can hold.

    Added to a score of any size met in practice it gives itself, and an exact 0 behind a softmax.
    """
    return torch.finfo(dtype).min / 2


def vanishes(put: Any, dtype: torch.dtype) -> bool:
    """Tell whether a softmax makes an exact 0 of a number, or of all entries of a constant.

    Examples
    --------
    >>> [vanishes(put, torch.float32) for put in (-1e4, torch.tensor(-3e38), float("-inf"))]
    [False, True, True]
    """
    if isinstance(put, Tensor):
        return not put.is_meta and bool((put <= lowest(dtype)).all())
    return isinstance(put, int | float) and put <= lowest(dtype)


@dataclass(frozen=True, eq=False)
class Overwriting:
    """One mask on the way behind a product.

    Attributes
    ----------
    node
        The mask: a condition, what is added, or a factor.
    test : {"true", "false", "lowest", "zero"}
        Where it overwrites.
    images, size
        How the images of a batch lie in what is overwritten, and its shape for two images.
    put : float or Node
        What is put there.
    """

    node: fx.Node
    test: str
    images: ImageAxis
    size: torch.Size
    put: float | fx.Node

    def covers(self, mask: Tensor, images: int, shape: torch.Size) -> Tensor:
        """Return where a mask overwrites a product of this shape, broadcastable to it."""
        if self.test == "lowest":
            covered = mask <= lowest(mask.dtype)
        else:
            covered = mask == 0 if self.test in ("false", "zero") else mask != 0
        size = list(self.size)
        size[self.images.axis] = images * self.images.within
        return covered if tuple(size) == tuple(shape) else covered.expand(size).reshape(shape)


def masks_behind(product: fx.Node, timeless: set[fx.Node], sizes: Sizes) -> tuple[Overwriting, ...]:
    """Return the masks that overwrite entries of a product before anything else reads them.

    Parameters
    ----------
    product
        The node of a product of two activations.
    timeless
        The nodes that no site changes: a mask is one.
    sizes
        Sizes of values for two and three images.
    """
    found: list[Overwriting] = []
    node = product
    while len(node.users) == 1:
        (reader,) = node.users
        if not takes_entries(reader) or numbers(reader, sizes) != numbers(product, sizes):
            break
        mask = mask_of(reader, node, timeless, sizes)
        found += [] if mask is None else [mask]
        node = reader
    return tuple(found)


def masks_before(operand: fx.Node, timeless: set[fx.Node], sizes: Sizes) -> tuple[Overwriting, ...]:
    """Return the masks before the softmax that an operand is the result of, the last one first.

    Where one puts what `vanishes`, the operand is exactly 0. A row in which everything is masked is
    not 0 everywhere: how it comes out is the model's.
    """
    weights: fx.Node | None = operand
    while weights is not None and weights.target not in SOFTMAXES:
        weights = source(weights, timeless) if keeps_zeros(weights) else None
    if weights is None or bound(weights)["dim"] not in (-1, weights.meta["val"].ndim - 1):
        return ()
    found: list[Overwriting] = []
    node = source(weights, timeless)
    while node is not None and node.target in UNCHANGED | SAME_ORDER | FILLS | CHOICES | SUMMED:
        scores = source(node, timeless)
        mask = None if scores is None else mask_of(node, scores, timeless, sizes)
        found += [] if mask is None else [mask]
        node = scores
    return tuple(found)


def source(node: fx.Node, timeless: set[fx.Node]) -> fx.Node | None:
    """Return the one input that changes in time and holds numbers, if there is one."""
    changing = [p for p in node.all_input_nodes if p not in timeless and not is_number(p)]
    return changing[0] if len(changing) == 1 else None


def keeps_zeros(node: fx.Node) -> bool:
    """Tell whether an entry that is 0 before this operation is 0 behind it, at the same place."""
    if node.target in FILLS:
        return number_in(bound(node)["value"]) == 0
    return is_site(node) or node.target in UNCHANGED | SAME_ORDER | GAINS


def numbers(node: fx.Node, sizes: Sizes) -> list[int]:
    """Return how many numbers a value has, for two and three images."""
    return [size.numel() for size in sizes(node)]


def takes_entries(node: fx.Node) -> bool:
    """Tell whether each entry of the result depends on one entry of every input alone, in order."""
    pointwise = torch.Tag.pointwise in getattr(node.target, "tags", ())
    return pointwise or node.target in UNCHANGED | SAME_ORDER | FILLS | CHOICES


def mask_of(
    reader: fx.Node, scores: fx.Node, timeless: set[fx.Node], sizes: Sizes
) -> Overwriting | None:
    """Return the mask that a node puts over its scores, if it does."""
    images = axis_of(sizes(reader))
    found = condition_of(reader, scores) or term_of(reader, scores)
    if images is None or found is None or found[0] not in timeless:
        return None
    node, test, put = found
    return Overwriting(node, test, images, sizes(reader)[0], put)


def condition_of(reader: fx.Node, scores: fx.Node) -> tuple[fx.Node, str, Any] | None:
    """Return (condition, where it overwrites, by what) of a fill or a choice."""
    given = bound(reader) if reader.target in FILLS | CHOICES else {}
    if reader.target in FILLS and given["self"] is scores and given["value"] is not scores:
        return given["mask"], "true", number_in(given["value"])
    if reader.target in CHOICES and given["condition"] is not scores:
        if given["self"] is scores and given["other"] is not scores:
            return given["condition"], "false", number_in(given["other"])
        if given["other"] is scores and given["self"] is not scores:
            return given["condition"], "true", number_in(given["self"])
    return None


def term_of(reader: fx.Node, scores: fx.Node) -> tuple[fx.Node, str, Any] | None:
    """Return (addend or factor, where it overwrites, by what) of a sum or a product with a mask."""
    sides = [side for side in reader.args[:2] if isinstance(side, fx.Node)]
    others = [side for side in sides if side is not scores and not is_number(side)]
    if len(sides) != 2 or len(others) != 1 or not others[0].meta["val"].is_floating_point():
        return None
    if reader.target in SUMMED and reader.kwargs.get("alpha", 1) == 1:
        return others[0], "lowest", -math.inf
    return (others[0], "zero", 0.0) if reader.target in GAINS else None


def number_in(value: Any) -> Any:
    """Return a number, or the one that a node was filled with; the node itself if it is not one."""
    if isinstance(value, fx.Node) and value.target in FULL:
        return bound(value).get("fill_value")
    return value
