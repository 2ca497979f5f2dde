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

from topospike.evolve.percolation import has_input, has_output


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
    chains: Sequence[Sequence[str]],
) -> float:
    """Return the share of hidden neurons with links on both sides.

    Parameters
    ----------
    masks
        Masks by layer name; the outputs of each layer are hidden neurons (leave out a sparse
        classifier).
    chains
        Which layer feeds which. Behind the last layer of a chain, and behind a layer in no chain,
        comes something dense, so incoming links suffice there.

    Examples
    --------
    >>> import torch
    >>> masks = {"a": torch.tensor([[True], [True]]), "b": torch.tensor([[True, False]])}
    >>> round(active_hidden_neurons(masks, [("a", "b")]), 3)
    0.667
    """
    following = {before: after for chain in chains for before, after in pairwise(chain)}
    active = total = 0
    for name, mask in masks.items():
        alive = has_input(mask)
        if following.get(name) in masks:
            alive = alive & has_output(mask.shape[0], masks[following[name]].contiguous())
        active, total = active + int(alive.sum()), total + alive.numel()
    return active / total if total else 0.0
