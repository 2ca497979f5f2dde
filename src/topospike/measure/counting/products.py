"""Count products of two activations, without what a mask overwrites and what padding asks for.

Of ``left @ right`` an entry (i, j) is made of one multiplication for each k. It is computed if no
mask stands in its place before anything reads it (a causal score above the diagonal, a score of a
padded key) and if it belongs to a real token. In the ANN an entry of the left factor that a mask
makes exactly 0 is not multiplied either; in the spiking network it makes no event by itself.

Sentences of a batch are filled up to one length. A network that is told so (``attention_mask``)
computes something at the places that are filled, but no real token may depend on it; only then is a
count of the real tokens what they would cost alone. It is shown once an evaluation: the values of
all neurons at padding are replaced by random ones, and the answers have to stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, fx

from topospike.conversion.proof import difference, tolerance_of
from topospike.errors import ConfigError
from topospike.snn.executors.steps import Visitor
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.wiring.layers import LINEARS, Layer
from topospike.wiring.masking import Overwriting
from topospike.wiring.tokens import Tokens


def meetings(left: Tensor, right: Tensor, used: Tensor | None = None) -> Tensor:
    """Return in how many multiplications of ``left @ right`` both factors are true.

    Parameters
    ----------
    left, right
        Bool.
    used, optional
        Which entries of the product are computed, bool, broadcastable to its shape.

    Examples
    --------
    >>> one = torch.tensor([[True, False], [True, True]])
    >>> meetings(one, one).item()
    4.0
    >>> meetings(one, one, torch.ones(2, 2, dtype=torch.bool).triu()).item()
    2.0
    """
    if used is not None and used.shape[-1] > 1:
        return ((left.double() @ right.double()) * used).sum()
    if used is not None:
        left = left & used
    return (left.double().sum(-2) * right.double().sum(-1)).sum()


def covered(
    masks: tuple[Overwriting, ...], values: Mapping[fx.Node, Any], images: int, shape: torch.Size
) -> Tensor | None:
    """Return what some mask overwrites of a product of this shape; ``None`` without masks."""
    found = [mask.covers(values[mask.node], images, shape) for mask in masks]
    return reduce(torch.logical_or, found) if found else None


def entries_used(
    layer: Layer,
    values: Mapping[fx.Node, Any],
    real: Tensor | None,
    images: int,
    shape: torch.Size,
) -> Tensor | None:
    """Return which entries of a product of a batch are computed; ``None``: all.

    Parameters
    ----------
    layer
        The product.
    values
        Value of each of its masks.
    real
        Which tokens are real, (batch, tokens); ``None``: all.
    images
        Sentences in the batch.
    shape
        Of the result.
    """
    over = covered(layer.overwritten, values, images, shape)
    used = None if over is None else ~over
    if real is None or layer.places is None:
        return used
    rows = layer.places.within(real, shape)
    return rows if used is None else used & rows


def multiplications(
    layer: Layer,
    values: Mapping[fx.Node, Any],
    used: Tensor | None,
    images: int,
    shapes: tuple[torch.Size, torch.Size],
) -> float:
    """Return the multiplications of the ANN for a batch: of the entries used, without known zeros.

    Parameters
    ----------
    layer, values, images
        As in `entries_used`.
    used
        What that returned.
    shapes
        Of the left factor and of the result.
    """
    zero = covered(layer.silent, values, images, shapes[0])
    if used is None and zero is None:
        return layer.macs * images
    whole = torch.ones((), dtype=torch.bool) if used is None else used
    if zero is None:
        return float(whole.expand(shapes[1]).sum()) * shapes[0][-1]
    zero = zero & ~zero.all(-1, keepdim=True)  # a row of masks alone is what the model makes of it
    summands = (~zero).expand(*zero.shape[:-1], shapes[0][-1]).sum(-1, keepdim=True)
    return float((summands * whole).expand(shapes[1]).sum())


def factors(layer: Layer, side: Callable[[fx.Node], Tensor]) -> tuple[Tensor, Tensor]:
    """Return what ``side`` gives for both operands, as they are multiplied (``y W^T``: turned)."""
    left, right = (side(operand) for operand in layer.operands)
    return left, (right.mT if layer.node.target in LINEARS else right)


@torch.no_grad()
def require_idle_padding(
    snn: SpikingNetwork, inputs: tuple[Tensor, ...], answers: Tensor, batch: str
) -> None:
    """Raise `ConfigError` if what neurons at padding hold changes the answers at real tokens.

    Parameters
    ----------
    snn
        A network that reads tokens.
    inputs
        A batch, in the network's order.
    answers
        What the ANN answers for it.
    batch
        What the batch is called in the message.
    """
    tokens = snn.tokens
    real = None if tokens is None else real_tokens(tokens, snn, inputs)
    if tokens is None or real is None:
        return
    populations, generator = snn.populations, torch.Generator().manual_seed(0)

    def disturbed(site: Site, r_in: Tensor) -> Tensor:
        places = populations[site.name].places
        activation = site(r_in)
        if places is None:
            return activation
        noise = torch.randn(r_in.shape, generator=generator, dtype=torch.float64).to(r_in)
        return torch.where(places.within(real, r_in.shape), activation, noise)

    found = Visitor(snn.ann, disturbed).run(*inputs)
    if tokens.answer is not None:
        counted = tokens.answer.within(real, found.shape)
        found, answers = (torch.where(counted, x, 0.0) for x in (found, answers))
    gap = difference(found, answers)
    if not gap <= tolerance_of(found.dtype):
        raise ConfigError(
            f"{batch} has padding (where {tokens.mask} is 0), and the answers at real tokens "
            f"depend on what is computed there (random values change them by {gap:.1%}), so it "
            "cannot be left out of the count. Mask padded keys in every attention, or count "
            "padding too: evaluate(..., conventions=Conventions(padding='counted'))."
        )


def real_tokens(tokens: Tokens, snn: SpikingNetwork, inputs: tuple[Tensor, ...]) -> Tensor | None:
    """Return which tokens of a batch are real, (batch, tokens); ``None``: all."""
    return tokens.real(dict(zip(snn.inputs.names, inputs, strict=True)))
