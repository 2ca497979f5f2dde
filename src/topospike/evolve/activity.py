"""Stage 2 (evolve): how many neurons of a sparse network still take part.

Two counts of active neurons after percolation (ANP). The reference counts every input neuron of
every sparse layer (input pixels too) and the outputs of the last one; the strict count takes hidden
neurons and asks for links on both sides. Convolutions count by channel. Weights play no part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from jaxtyping import Bool
from torch import Tensor

from topospike.evolve.connections import Connection, Feeding
from topospike.evolve.percolation import drop_rows, has_input, has_output


def active_neurons(masks: Sequence[Bool[Tensor, " n_out *rest"]]) -> float:
    """Return the share of active neurons as the reference counts it.

    Parameters
    ----------
    masks
        Masks of all sparse layers, in module order.

    Returns
    -------
    float
        (non-empty columns of every mask + non-empty rows of the last) / (all of them).

    Examples
    --------
    >>> import torch
    >>> active_neurons([torch.tensor([[True, False]]), torch.tensor([[True]])])
    0.75
    """
    inputs = [has_output(mask.shape[1], mask.contiguous()) for mask in masks]
    sides = [*inputs, has_input(masks[-1])]
    return sum(int(side.sum()) for side in sides) / sum(side.numel() for side in sides)


def active_hidden_neurons(
    masks: Mapping[str, Bool[Tensor, " n_out *rest"]],
    relations: Sequence[Sequence[str] | Connection],
) -> float:
    """Return the share of hidden neurons with links on both sides.

    Parameters
    ----------
    masks
        Masks by layer name; the outputs of each layer are hidden neurons (leave out a sparse
        classifier).
    relations
        Which layer feeds which: chains, couplings and feedings. Behind a layer that feeds none of
        ``masks`` comes something dense, so incoming links suffice there. Of neurons that are
        multiplied by others, both need links.

    Examples
    --------
    >>> import torch
    >>> masks = {"a": torch.tensor([[True], [True]]), "b": torch.tensor([[True, False]])}
    >>> round(active_hidden_neurons(masks, [("a", "b")]), 3)
    0.667
    """
    reduced = {name: mask.contiguous() for name, mask in masks.items()}
    alive = {name: has_input(mask) for name, mask in reduced.items()}
    for relation in relations:
        if isinstance(relation, Connection):
            restrict(alive, reduced, relation)
            continue
        for before, after in pairwise(relation):
            if before in alive and after in reduced:
                alive[before] = alive[before] & has_output(alive[before].numel(), reduced[after])
    total = sum(side.numel() for side in alive.values())
    return sum(int(side.count_nonzero()) for side in alive.values()) / total if total else 0.0


def restrict(alive: dict[str, Tensor], masks: Mapping[str, Tensor], relation: Connection) -> None:
    """Mark as dead the neurons without a counterpart, or without a link behind them."""
    if isinstance(relation, Feeding):
        if relation.source in alive and relation.target in masks:
            useful = masks[relation.target].any(0)
            drop_rows(alive[relation.source], relation.rows, useful)
    elif relation.first in alive and relation.second in alive:
        first, second = alive[relation.first], alive[relation.second]
        useful = first[[*relation.first_rows]] & second[[*relation.second_rows]]
        drop_rows(first, relation.first_rows, useful)
        drop_rows(second, relation.second_rows, useful)
