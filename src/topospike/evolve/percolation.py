"""Stage 2 (evolve): percolation, the removal of links that lead nowhere.

A neuron without outgoing links makes its incoming links useless, and one without incoming links its
outgoing ones. One backward sweep (remove links into neurons with no output) and one forward sweep
(remove links out of neurons with no input) over a chain of consecutive layers reach the fixpoint:
the forward sweep only empties neurons that have no input, so it cannot create a neuron with input
but no output. Inputs of the first and outputs of the last layer are never tested. Neurons that are
multiplied by another (query and key) are useless without it as well. Which layers form a chain is
found in `chains`, the other relations in `couplings`; the freed links are grown again in the same
layer.

Two counts say how many neurons take part after it (ANP). The reference counts every input neuron of
every sparse layer (input pixels too) and the outputs of the last one; the strict count takes hidden
neurons and asks for links on both sides. Convolutions count by channel.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from topospike.errors import ShapeError
from topospike.evolve.couplings import Coupling, Feeding, Relation


def percolate(masks: Sequence[Bool[Tensor, ...]]) -> list[Bool[Tensor, ...]]:
    """Remove the links of dead neurons along a chain of layers.

    Parameters
    ----------
    masks
        Bool masks (n_out, n_in) or (n_out, n_in, height, width), input side first. The inputs of
        each layer are the outputs of the one before; after a flatten each output channel feeds a
        block of consecutive inputs, so n_in may be a multiple of the previous n_out. Convolutions
        count by channel: a channel is dead when its whole kernel slice is empty.

    Returns
    -------
    list
        New masks, same shapes, each a subset of the given one.

    Raises
    ------
    ShapeError
        If a mask is not bool with at least two axes, or two neighbours do not fit.

    Notes
    -----
    Exactly one backward and one forward sweep, as in Zhang et al. (2025).

    Examples
    --------
    The middle neuron of a 1-2-1 chain has no output: its input link goes.

    >>> first = torch.tensor([[True], [True]])
    >>> second = torch.tensor([[True, False]])
    >>> [mask.tolist() for mask in percolate([first, second])]
    [[[True], [False]], [[True, False]]]
    """
    check_chain(masks)
    result = [mask.clone(memory_format=torch.contiguous_format) for mask in masks]
    for before, after in reversed(list(pairwise(result))):
        before[~has_output(before.shape[0], after)] = False
    for before, after in pairwise(result):
        input_blocks(after, before.shape[0])[:, ~has_input(before)] = False
    return result


def percolate_network(
    masks: Mapping[str, Bool[Tensor, ...]],
    relations: Sequence[Relation],
) -> dict[str, Bool[Tensor, ...]]:
    """Remove the links of dead neurons along all chains and connections of a network.

    Parameters
    ----------
    masks
        Layer name -> mask.
    relations
        Chains (layer names, input side first), couplings and feedings, as
        `topospike.evolve.find_relations` lists them.

    Returns
    -------
    dict
        New masks under the same names. Sweeps are repeated until no link goes any more; for chains
        one is enough.

    Examples
    --------
    Row 1 of the query is empty, so row 1 of the key goes.

    >>> masks = {"q": torch.tensor([[True], [False]]), "k": torch.tensor([[True], [True]])}
    >>> percolate_network(masks, [Coupling("q", "k", (0, 1), (0, 1))])["k"].tolist()
    [[True], [False]]
    """
    result = {
        name: mask.clone(memory_format=torch.contiguous_format) for name, mask in masks.items()
    }
    plain = not any(isinstance(relation, (Coupling, Feeding)) for relation in relations)
    before = -1
    while (links := sum(int(mask.count_nonzero()) for mask in result.values())) != before:
        for relation in relations:
            sweep(result, relation)
        if plain:
            break
        before = links
    return result


def sweep(masks: dict[str, Tensor], relation: Relation) -> None:
    """Remove, in ``masks``, what one relation makes useless."""
    if isinstance(relation, Coupling):
        drop_uncoupled(masks, relation)
    elif isinstance(relation, Feeding):
        drop_unfed(masks, relation)
    else:
        masks.update(zip(relation, percolate([masks[name] for name in relation]), strict=True))


def drop_uncoupled(masks: Mapping[str, Tensor], coupling: Coupling) -> None:
    """Empty, in place, the rows of two layers whose counterparts are all empty."""
    first, second = masks[coupling.first], masks[coupling.second]
    alive = has_input(first)[[*coupling.first_rows]] & has_input(second)[[*coupling.second_rows]]
    drop_rows(first, coupling.first_rows, alive)
    drop_rows(second, coupling.second_rows, alive)


def drop_unfed(masks: Mapping[str, Tensor], feeding: Feeding) -> None:
    """Empty, in place, rows that feed no link and the inputs that are fed by none."""
    source, target = masks[feeding.source], masks[feeding.target]
    drop_rows(source, feeding.rows, target.any(0))
    target[:, ~has_input(source)[[*feeding.rows]]] = False


def drop_rows(mask: Tensor, rows: Sequence[int], useful: Bool[Tensor, " n"]) -> None:
    """Empty, in place, those of ``rows`` that are useful in none of their places."""
    places = torch.tensor(rows, device=mask.device)
    dropped = torch.zeros(mask.shape[0], dtype=torch.bool, device=mask.device)
    dropped[places] = True
    dropped[places[useful]] = False
    mask[dropped] = False


def has_input(mask: Bool[Tensor, " n_out *rest"]) -> Bool[Tensor, " n_out"]:
    """Return which output neurons (channels) have at least one incoming link."""
    return mask.flatten(1).any(1)


def has_output(neurons: int, after: Bool[Tensor, " n_next *rest"]) -> Bool[Tensor, " n_out"]:
    """Return which of ``neurons`` input neurons (channels) of a layer have an outgoing link."""
    return input_blocks(after, neurons).any(2).any(0)


def input_blocks(mask: Tensor, neurons: int) -> Tensor:
    """View a mask as (n_out, neurons, links of one neuron pair); it shares the mask's memory."""
    return mask.view(mask.shape[0], neurons, -1)


def check_chain(masks: Sequence[Tensor]) -> None:
    """Raise `ShapeError` naming the first mask that cannot be part of this chain."""
    for position, mask in enumerate(masks):
        if mask.ndim < 2 or mask.dtype != torch.bool:
            raise ShapeError(
                f"mask {position} of the chain has shape {tuple(mask.shape)} and dtype "
                f"{mask.dtype}; bool masks (n_out, n_in, ...) are required."
            )
    for position, (before, after) in enumerate(pairwise(masks)):
        if after.shape[1] % before.shape[0]:
            raise ShapeError(
                f"mask {position + 1} of the chain has {after.shape[1]} inputs, the one before "
                f"{before.shape[0]} outputs; the inputs must be the outputs (or a multiple, after "
                "a flatten). Give the masks input side first, in the order of execution."
            )


def active_neurons(masks: Sequence[Bool[Tensor, ...]]) -> float:
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
    masks: Mapping[str, Bool[Tensor, ...]],
    relations: Sequence[Relation],
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
        if isinstance(relation, (Coupling, Feeding)):
            restrict(alive, reduced, relation)
            continue
        for before, after in pairwise(relation):
            if before in alive and after in reduced:
                alive[before] = alive[before] & has_output(alive[before].numel(), reduced[after])
    total = sum(side.numel() for side in alive.values())
    return sum(int(side.count_nonzero()) for side in alive.values()) / total if total else 0.0


def restrict(
    alive: dict[str, Tensor], masks: Mapping[str, Tensor], relation: Coupling | Feeding
) -> None:
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
