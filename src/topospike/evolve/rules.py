"""Stage 2 (evolve): the sparse-training rules as data.

A rule says how removal scores the links that exist, how growth scores those that do not, whether
the best are taken or drawn, and whether density falls during training. Everything else (counting,
percolation, optimizer slots, records) is the same for all of them, so two rules differ in exactly
the lines below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from topospike.errors import ConfigError
from topospike.evolve.conv import ch_scores_conv
from topospike.evolve.link_prediction import ch_scores
from topospike.registry import Registry


@dataclass(frozen=True, slots=True)
class GrowthInput:
    """What a growth score may look at: the mask after removal and percolation, and the gradient.

    ``rule`` and ``unfold`` name the Cannistraci-Hebb score of this layer; ``gradient`` is that of
    the last step before the update, dense, or ``None``.
    """

    layer: str
    mask: Tensor
    rule: str
    unfold: str
    groups: int
    gradient: Tensor | None


def cannistraci_hebb_score(given: GrowthInput) -> Tensor:
    """Return the CH score of every absent link of a linear layer or convolution."""
    if given.mask.dim() == 2:
        return ch_scores(given.mask, given.rule)
    kernel = given.mask if given.mask.dim() == 4 else given.mask.flatten(2).unsqueeze(2)
    scores = ch_scores_conv(kernel, given.rule, given.unfold, groups=given.groups)
    return scores.reshape(given.mask.shape)


def gradient_score(given: GrowthInput) -> Tensor:
    """Return |g|, the instant benefit of a link of weight 0."""
    if given.gradient is None:
        raise ConfigError(
            f"layer {given.layer!r} grows by gradient, but none was recorded. Call "
            "attach(optimizer) and train at least one step before update_topology."
        )
    return given.gradient.abs()


@dataclass(frozen=True, slots=True)
class Rule:
    """One way to evolve a sparse topology.

    Attributes
    ----------
    growth
        Score of absent links; ``None`` grows uniformly at random.
    choice
        ``drawn``: sampled in proportion to the score; ``best``: the largest; ``none``: no link is
        removed to be replaced (``static``, ``gmp``).
    removal
        Name of the rule's own removal criterion.
    decay
        The rule's own density schedule, or ``None`` if density stays.
    decay_removal
        Criterion of the links lost to falling density.
    growth_needs_gradient
        Whether ``growth`` reads the gradient.
    early_stop
        Default of `sparsify`'s ``early_stop``.
    elastic
        Surplus of elastic mutation, as a share of all positions: every update removes down to the
        scheduled count and grows this much beyond it; the last one grows nothing.
    """

    name: str
    growth: Callable[[GrowthInput], Tensor] | None = None
    choice: Literal["drawn", "best", "none"] = "best"
    removal: str = "magnitude"
    decay: str | None = None
    decay_removal: str = "magnitude"
    growth_needs_gradient: bool = False
    early_stop: Literal["off", "all", "layer"] = "off"
    elastic: float = 0.0


RULES: Registry[Rule] = Registry(
    "rule",
    {
        rule.name: rule
        for rule in (
            Rule("cht", cannistraci_hebb_score, early_stop="all"),
            Rule("chts", cannistraci_hebb_score, "drawn"),
            Rule("chtss", cannistraci_hebb_score, "drawn", decay="sigmoid", decay_removal="ri"),
            Rule("set"),
            Rule("mest", removal="mest", decay_removal="mest"),
            Rule("rigl", gradient_score, growth_needs_gradient=True),
            Rule("granet", gradient_score, decay="cubic", growth_needs_gradient=True),
            Rule("gmp", choice="none", decay="cubic"),
            Rule("static", choice="none"),
        )
    },
)


def derived_generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator whose seed depends on all parts, and on nothing else.

    Examples
    --------
    >>> a, b = derived_generator(0, 1, "removal"), derived_generator(0, 1, "removal")
    >>> bool(torch.equal(torch.rand(3, generator=a), torch.rand(3, generator=b)))
    True
    """
    import hashlib

    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
