"""Show that padding may be left out: what is computed for it changes no answer at a real token.

Sentences of a batch are filled up to one length. A network that is told so (``attention_mask``)
computes something at the places that are filled, but no real token may depend on it; only then is a
count of the real tokens what they would cost alone. It is shown once an evaluation: the values of
all neurons at padding are replaced by random ones, and the answers have to stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topospike.conversion.proof import difference, tolerance_of
from topospike.errors import ConfigError
from topospike.snn.executors.steps import Visitor
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.wiring.tokens import Tokens


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
