"""What a network of tokens takes: whole numbers below the size of its vocabulary, and a mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from topospike.errors import ShapeError

aten = torch.ops.aten

MASK = "attention_mask"
"""Name of the input (batch, tokens) that says which tokens are real: not 0 there."""

SAME_NUMBERS = frozenset(
    {aten.view.default, aten.reshape.default, aten.expand.default, aten.unsqueeze.default}
    | {aten.slice.Tensor, aten.clone.default, aten.alias.default, aten._to_copy.default}
)
"""Operations that show whole numbers in another shape or type."""


def vocabularies(graph: fx.Graph) -> dict[fx.Node, int]:
    """Return the inputs whose numbers are looked up in a table, and how many rows it has."""
    found: dict[fx.Node, int] = {}
    for node in graph.nodes:
        if node.target is not aten.embedding.default:
            continue
        table, source = node.args[:2]
        while source.target in SAME_NUMBERS:
            source = source.all_input_nodes[0]
        if source.op == "placeholder":
            rows = int(table.meta["val"].shape[0])
            found[source] = min(rows, found.get(source, rows))
    return found


def require_tokens(inputs: Mapping[str, Tensor], vocabulary: Sequence[int | None]) -> None:
    """Raise `ShapeError` if a token is not in the vocabulary, or all of a batch is padding."""
    for (name, tensor), rows in zip(inputs.items(), vocabulary, strict=True):
        if rows is not None and tensor.numel():
            low, high = (int(end) for end in tensor.aminmax())
            if low < 0 or high >= rows:
                raise ShapeError(
                    f"{name} holds {low if low < 0 else high}; the network's table has {rows} rows "
                    f"(0 to {rows - 1}). Use the tokeniser the model was trained with; give "
                    f"padding a token of the vocabulary too, and mark it by 0 in {MASK}."
                )
        if name == MASK and tensor.numel() and not bool(tensor.any()):
            raise ShapeError(
                f"{MASK} is 0 everywhere: the batch is all padding, and no token is there to be "
                "answered. Leave such batches out."
            )
