"""Stage 2 (evolve): percolation, the removal of links that lead nowhere.

A neuron without outgoing links makes its incoming links useless, and one without incoming links its
outgoing ones. One backward sweep (remove links into neurons with no output) and one forward sweep
(remove links out of neurons with no input) over a chain of consecutive layers reach the fixpoint:
the forward sweep only empties neurons that have no input, so it cannot create a neuron with input
but no output. Inputs of the first and outputs of the last layer are never tested. Which layers form
a chain is found in `chains`; the freed links are grown again by `regrowth` in the same layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Bool
from torch import Tensor

from topospike.errors import ShapeError


def percolate(masks: Sequence[Bool[Tensor, " n_out *rest"]]) -> list[Bool[Tensor, " n_out *rest"]]:
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
