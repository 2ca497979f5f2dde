r"""Stage 2 (evolve): the sparse-training rules as data.

A rule says how removal scores the links that exist, how growth scores those that do not, whether
the best are taken or drawn, and whether density falls during training. Everything else (counting,
percolation, optimizer slots, records) is the same for all of them, so two rules differ in exactly
the lines below.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from topospike.errors import ConfigError
from topospike.evolve.scores import ch_scores, ch_scores_conv
from topospike.registry import Registry
from topospike.topology import magnitude, mest_importance, relative_importance


@dataclass(frozen=True, slots=True)
class RemovalInput:
    """What a removal criterion may look at: the weight, zero off the mask, and the gradient.

    ``gradient`` is the dense one that the optimizer last stepped with, or ``None``.
    """

    layer: str
    weight: Tensor
    groups: int
    gradient: Tensor | None


@dataclass(frozen=True, slots=True)
class RemovalCriterion:
    """A score of existing links.

    The links with the largest scores stay; with ``soft``, links to stay are drawn without
    replacement with probability proportional to score**exponent.
    """

    name: str
    score: Callable[[RemovalInput], Tensor]
    soft: bool = False
    needs_gradient: bool = False


def score_magnitude(given: RemovalInput) -> Tensor:
    """Return |w|."""
    return magnitude(given.weight)


def score_relative(given: RemovalInput) -> Tensor:
    """Return the relative importance; columns of different groups are different inputs."""
    return relative_importance(given.weight, groups=given.groups)


def score_relative_damped(given: RemovalInput) -> Tensor:
    """Return |w| / (1 + its row) + |w| / (1 + its column): small sums make no link important."""
    return relative_importance(given.weight, groups=given.groups, epsilon=1.0)


def score_mest(given: RemovalInput) -> Tensor:
    """Return |w| + 0.01 |g|."""
    return mest_importance(given.weight, gradient_of(given, "removes by |w| + 0.01 |g|"))


REMOVAL_CRITERIA: Registry[RemovalCriterion] = Registry(
    "removal criterion",
    {
        criterion.name: criterion
        for criterion in (
            RemovalCriterion("magnitude", score_magnitude),
            RemovalCriterion("ri", score_relative),
            RemovalCriterion("magnitude_soft", score_magnitude, soft=True),
            RemovalCriterion("ri_soft", score_relative, soft=True),
            RemovalCriterion("ri_damped_soft", score_relative_damped, soft=True),
            RemovalCriterion("mest", score_mest, needs_gradient=True),
        )
    },
)


@dataclass(frozen=True, slots=True)
class GrowthInput:
    """What a growth score may look at: the mask after removal and percolation, and the gradient.

    ``rule`` and ``unfold`` name the Cannistraci-Hebb score of this layer; ``gradient`` is the
    dense one that the optimizer last stepped with, or ``None``.
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
    return magnitude(gradient_of(given, "grows by gradient"))


def gradient_of(given: RemovalInput | GrowthInput, what: str) -> Tensor:
    """Return the recorded gradient, or say what is missing."""
    if given.gradient is None:
        raise ConfigError(
            f"layer {given.layer!r} {what}, but none was recorded. Call "
            "attach(optimizer) and train at least one step before update_topology."
        )
    return given.gradient


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
        Criterion of the links lost to falling density; ``None`` is that of removal.
    growth_needs_gradient
        Whether ``growth`` reads the gradient.
    early_stop
        Default of the setting of that name.
    permanent
        Whether what percolation takes never grows again.
    options
        What `topospike.evolve.sparsify` starts from where it is given the rule by name and no
        option says otherwise.
    """

    name: str
    growth: Callable[[GrowthInput], Tensor] | None = None
    choice: Literal["drawn", "best", "none"] = "best"
    removal: str = "magnitude"
    decay: str | None = None
    decay_removal: str | None = None
    growth_needs_gradient: bool = False
    early_stop: Literal["off", "all"] = "off"
    permanent: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def replaces(self) -> bool:
        """Whether links are removed in order to be replaced by others."""
        return self.choice != "none"

    def criteria(self, removal: str) -> tuple[RemovalCriterion | None, RemovalCriterion | None]:
        """Return the criteria of falling density and of replacement, ``None`` where not used."""
        decay = None if self.decay is None else REMOVAL_CRITERIA[self.decay_removal or removal]
        return decay, REMOVAL_CRITERIA[removal] if self.replaces else None


RULES: Registry[Rule] = Registry(
    "rule",
    {
        rule.name: rule
        for rule in (
            Rule("cht", cannistraci_hebb_score, early_stop="all"),
            Rule("chts", cannistraci_hebb_score, "drawn"),
            Rule("chtss", cannistraci_hebb_score, "drawn", decay="sigmoid", decay_removal="ri"),
            Rule(
                "ch-snn",
                cannistraci_hebb_score,
                "drawn",
                removal="ri_damped_soft",
                permanent=True,
                options={
                    "linear_score": "CH3-L3p",
                    "conv_score": "CH3-L3p",
                    "removal_exponents": (1.0, 1.0),
                    "initial_topology": "brf",  # with r = 1: at random, every fan-in the same
                    "r": 1.0,
                    "weight_init": "sswi",
                },
            ),
            Rule("set"),
            Rule("mest", removal="mest"),
            Rule("rigl", gradient_score, growth_needs_gradient=True),
            Rule(
                "granet",
                gradient_score,
                decay="cubic",
                decay_removal="magnitude",
                growth_needs_gradient=True,
            ),
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
    digest = hashlib.sha256(repr(parts).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
