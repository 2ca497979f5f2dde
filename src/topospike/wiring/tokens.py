"""Which token each number of a graph belongs to, so that padding can be told apart from text.

Token ids enter an embedding table as (batch, tokens). From there a label, the place of the token,
is carried through the graph: a layer, a norm or an activation works on each token alone and keeps
it, a transpose moves it, and a product of queries and keys takes that of the query. Where numbers
of several tokens are mixed (a mean over the sentence) nothing is left of it: such a number belongs
to no token, and to every sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from topospike.models.inputs import InputForm
from topospike.models.tokens import MASK
from topospike.wiring.graph import is_site
from topospike.wiring.images import Places, Probe, Probes, axis_of, is_same, sizes_of
from topospike.wiring.layers import LINEARS, PRODUCTS
from topospike.wiring.linear_maps import (
    BATCH_NORMS,
    MOVING,
    UNCHANGED,
    bound,
    is_item,
    is_real,
    overloads,
    push,
)
from topospike.wiring.masking import CHOICES, FILLS

aten = torch.ops.aten

EMBEDDINGS = frozenset({aten.embedding.default})
NORMS = overloads("layer_norm", "rms_norm")
# along one axis or several, named by ``dim``
ALONG = overloads(
    "softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax", "mean", "sum", "amax",
    "amin", "var", "std", "cumsum",
)  # fmt: skip


@dataclass(frozen=True)
class Tokens:
    """The tokens of a network's input.

    Attributes
    ----------
    inputs : tuple of str
        The inputs of whole numbers that are looked up in a table of embeddings.
    length : int
        Tokens of one sentence, padding included.
    mask : str or None
        The input (batch, tokens) that is 0 where there is padding; ``None``: every token is real.
    answer : Places or None
        Which token each number of the network's output belongs to.
    """

    inputs: tuple[str, ...]
    length: int
    mask: str | None
    answer: Places | None = None

    def real(self, inputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return where a batch has real tokens, bool (batch, tokens); ``None``: everywhere."""
        if self.mask is None:
            return None
        real = inputs[self.mask] != 0
        return None if bool(real.all()) else real


SAME_SENTENCE = frozenset({"input_ids", "token_type_ids", "position_ids"})
"""Inputs that say several things of the same tokens."""


def tokens_among(form: InputForm) -> Tokens | None:
    """Return the tokens among a network's inputs.

    ``None`` if there are none, or if it cannot be told that they are those of one sentence: they
    have two lengths, or other names (an encoder's and a decoder's).
    """
    shapes = dict(zip(form.names, form.shapes, strict=True))
    rows = dict(zip(form.names, form.vocabulary, strict=True))
    inputs = tuple(name for name in shapes if rows[name] is not None and len(shapes[name]) == 1)
    lengths = {shapes[name] for name in inputs}
    if len(lengths) != 1 or (len(inputs) > 1 and not SAME_SENTENCE.issuperset(inputs)):
        return None
    ((length,),) = lengths
    return Tokens(inputs, length, MASK if shapes.get(MASK) == (length,) else None)


@dataclass(frozen=True, eq=False)
class TokenLabels:
    """The token of each number of a batch, by node: 1 and up, 0 for none."""

    of: Mapping[fx.Node, Any]

    def places(self, node: fx.Node, probes: Probes) -> Places | None:
        """Return which token each number of one image's value belongs to; ``None``: to none."""
        images, labels = axis_of(sizes_of(node, probes)), self.of.get(node)
        if images is None or labels is None:
            return None
        by_image = images.by_image(labels)
        if not is_same(by_image):  # images alternate with places of theirs
            return None
        return Places(images, shortened(by_image[0].long() - 1))


def token_labels(graph: fx.Graph, tokens: Tokens, probe: Probe) -> TokenLabels:
    """Label every node of a graph with sites.

    Parameters
    ----------
    graph
        The graph.
    tokens
        What it reads.
    probe
        Shapes and constants.
    """
    carrier = Carrier(tokens, probe)
    for node in graph.nodes:
        carrier.visit(node)
    return TokenLabels(carrier.of)


class Carrier:
    """Carries labels from node to node."""

    def __init__(self, tokens: Tokens, probe: Probe) -> None:
        self.tokens, self.values = tokens, probe.values
        self.of: dict[fx.Node, Any] = {}

    def visit(self, node: fx.Node) -> None:
        """Label a node whose inputs have been visited."""
        found = self._label(node, self.tokens)
        if found is not None:
            self.of[node] = found

    def _label(self, node: fx.Node, tokens: Tokens) -> Any:
        """Return the labels of a node, 1 and up, 0 for no token; ``None`` if none is labelled."""
        if node.op == "placeholder" and str(node.target) in tokens.inputs:
            shape = self.values[node].shape
            return torch.arange(1.0, tokens.length + 1).expand(shape)
        parents = [parent for parent in node.all_input_nodes if parent in self.of]
        if not parents or node.op == "output":
            return None
        found = self._through(node, parents)
        if isinstance(found, Tensor) and found.shape != self.values[node].shape:
            return None
        return found

    def _through(self, node: fx.Node, parents: list[fx.Node]) -> Any:
        """Carry labels through one operation; ``None`` where it is not known to keep tokens."""
        target, shape = node.target, sizes_in(self.values[node])
        first = self.of[parents[0]]
        if is_item(node):
            return first[node.args[1]] if not isinstance(first, Tensor) else None  # pyright: ignore[reportArgumentType]
        if is_site(node) or target in UNCHANGED or target in BATCH_NORMS:
            return first
        if target in EMBEDDINGS:
            ids = self.of.get(node.args[1])  # pyright: ignore[reportArgumentType]
            return None if ids is None else ids.unsqueeze(-1).expand(shape)
        if torch.Tag.pointwise in getattr(target, "tags", ()) or target in FILLS | CHOICES:
            return merged([self.of[p] for p in deciding(parents)], shape)
        if target in LINEARS:
            return alike(first, (-1,)).expand(shape) if node.args[0] in parents else None
        if target in PRODUCTS:
            return self._product(node, shape)
        if target in NORMS:
            axes = len(bound(node)["normalized_shape"])
            return alike(first, tuple(range(-axes, 0))).expand(shape)
        if target in ALONG:
            return self._along(node, first, shape)
        return self._moved(node, parents) if target in MOVING else None

    def _product(self, node: fx.Node, shape: Any) -> Tensor | None:
        """Label a product by the rows of its left factor, or the columns of the right one."""
        left, right = (self.of.get(side) for side in node.args[:2])  # pyright: ignore[reportArgumentType, reportCallIssue]
        if left is not None and left.ndim > 1:
            return alike(left, (-1,)).expand(shape) if len(shape) >= left.ndim else None
        if right is not None and right.ndim > 1 and len(shape) >= right.ndim:
            return alike(right, (-2,)).expand(shape)
        return None

    def _along(self, node: fx.Node, labels: Tensor, shape: Any) -> Tensor | None:
        """Keep the labels that are the same all along the axes an operation works along."""
        given = bound(node)
        axes = given.get("dim")
        if axes is None or axes == []:
            return None
        kept = alike(labels, tuple(axes) if isinstance(axes, list | tuple) else (axes,))
        if kept.ndim == len(shape):
            return kept.expand(shape)
        return kept.reshape(shape)

    def _moved(self, node: fx.Node, parents: list[fx.Node]) -> Any:
        """Move labels as numbers are moved; not where labelled numbers say where to."""
        given = bound(node)
        directions = [given.get("index"), *(given.get("indices") or ())]
        if any(direction in self.of for direction in directions):
            return None
        if any(
            isinstance(self.values[other], Tensor) and self.values[other].is_meta
            for other in node.all_input_nodes
            if other not in self.of and not is_real(other)
        ):
            return None
        reached = {parent: self.of[parent] for parent in parents}
        return push(node, reached, self.values, ones=False)


def sizes_in(value: Any) -> torch.Size:
    """Return the shape of a tensor; of anything else that of a number."""
    return value.shape if isinstance(value, Tensor) else torch.Size()


def deciding(parents: list[fx.Node]) -> list[fx.Node]:
    """Return the parents that hold numbers: a condition or an index is of no token by itself."""
    return [parent for parent in parents if is_real(parent)] or parents


def merged(labels: list[Tensor], shape: Any) -> Tensor:
    """Return the label that all numbers put together agree on, 0 where they do not.

    Examples
    --------
    >>> one, other = torch.tensor([1.0, 2.0, 0.0]), torch.tensor([1.0, 3.0, 4.0])
    >>> merged([one, other], (3,)).tolist()
    [1.0, 0.0, 4.0]
    """
    low = high = labels[0].expand(shape)
    for other in labels[1:]:
        low = torch.where(low == 0, other, torch.where(other == 0, low, low.minimum(other)))
        high = high.maximum(other)
    return torch.where(low == high, low, 0.0)


def alike(labels: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Return the label of each row along some axes (kept, of size 1), 0 where it is not the same.

    Examples
    --------
    >>> alike(torch.tensor([[2.0, 2.0], [1.0, 2.0]]), (-1,)).flatten().tolist()
    [2.0, 0.0]
    """
    low, high = labels.amin(axes, keepdim=True), labels.amax(axes, keepdim=True)
    return torch.where(low == high, low, 0.0)


def shortened(labels: Tensor) -> Tensor:
    """Return labels with size 1 along every axis along which they are the same."""
    for axis in range(labels.ndim):
        if bool((labels == labels.narrow(axis, 0, 1)).all()):
            labels = labels.narrow(axis, 0, 1)
    return labels
