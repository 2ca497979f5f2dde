r"""Stage 2 (evolve): which links a topology update removes.

A removal criterion scores the *existing* links only; the ``n_keep`` best stay (hard) or are drawn
without replacement with probability proportional to score**exponent (soft). Relative importance is

.. math:: RI_{ij} = \frac{|w_{ij}|}{\sum_k |w_{ik}| + \epsilon}
                  + \frac{|w_{ij}|}{\sum_k |w_{kj}| + \epsilon}.

This module does not decide how many links go (`schedule`), nor does it change weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import ConfigError, ShapeError
from topospike.registry import Registry
from topospike.topology import magnitude, mest_importance, relative_importance
from topospike.topology.ranking import best, draw


@dataclass(frozen=True, slots=True)
class RemovalCriterion:
    """A score of existing links, and whether links are kept by rank or drawn."""

    name: str
    score: Callable[[Tensor, Tensor | None], Tensor]
    soft: bool = False
    needs_gradient: bool = False


def score_mest(weight: Tensor, gradient: Tensor | None) -> Tensor:
    """Adapt `mest_importance` to the common signature; the controller supplies the gradient."""
    if gradient is None:
        raise ConfigError(
            "removal 'mest' scores links by |w| + 0.01 |g|, but no gradient was recorded. "
            "Call attach(optimizer) and train at least one step before update_topology."
        )
    return mest_importance(weight, gradient)


REMOVAL_CRITERIA: Registry[RemovalCriterion] = Registry(
    "removal criterion",
    {
        criterion.name: criterion
        for criterion in (
            RemovalCriterion("magnitude", lambda weight, _: magnitude(weight)),
            RemovalCriterion("ri", lambda weight, _: relative_importance(weight)),
            RemovalCriterion("magnitude_soft", lambda weight, _: magnitude(weight), soft=True),
            RemovalCriterion("ri_soft", lambda weight, _: relative_importance(weight), soft=True),
            RemovalCriterion("mest", score_mest, needs_gradient=True),
        )
    },
)


def keep_best(
    scores: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"], n_keep: int
) -> Bool[Tensor, "*shape"]:
    """Keep the ``n_keep`` existing links with the largest scores.

    Parameters
    ----------
    scores, mask : same shape
        Scores of the links; only those where ``mask`` is ``True`` take part, so a link whose
        weight is exactly 0 is never confused with an absent one.
    n_keep
        How many stay. All of them if it exceeds the number of links.

    Returns
    -------
    bool, same shape
        A subset of ``mask`` with exactly ``min(n_keep, links)`` links. Of equal scores the lowest
        flat index stays.

    Examples
    --------
    >>> keep_best(torch.tensor([3.0, 0.0, 1.0]), torch.tensor([True, True, False]), 1).tolist()
    [True, False, False]
    """
    check_shapes(scores, mask)
    return best(scores, mask, n_keep)


def keep_drawn(
    scores: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    n_keep: int,
    *,
    exponent: float,
    generator: torch.Generator,
) -> Bool[Tensor, "*shape"]:
    """Draw ``n_keep`` existing links to keep, with probability proportional to score**exponent.

    Parameters
    ----------
    scores, mask, n_keep
        As for `keep_best`; scores are >= 0.
    exponent
        1 draws in proportion to the score; large values approach `keep_best`.

    Returns
    -------
    bool, same shape
        A subset of ``mask`` with exactly ``min(n_keep, links)`` links.

    Notes
    -----
    Works with exponent * log(score), so no power underflows (|w|**9 in float32 would below 1e-5).

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> mask = torch.tensor([True, True, True, False])
    >>> int(keep_drawn(torch.ones(4), mask, 2, exponent=3.0, generator=generator).sum())
    2
    """
    check_shapes(scores, mask)
    return draw(scores, mask, n_keep, exponent=exponent, generator=generator)


def check_shapes(scores: Tensor, mask: Tensor) -> None:
    """Raise `ShapeError` unless every position has a score."""
    if scores.shape != mask.shape:
        raise ShapeError(
            f"scores have shape {tuple(scores.shape)}, the mask {tuple(mask.shape)}; "
            "both must have the shape of the weight."
        )


def removal_exponent(
    progress: float, *, start: float = 1.0, end: float = 3.0, schedule: str = "linear_exponent"
) -> float:
    r"""Return the exponent of soft removal at a point of the evolution.

    Parameters
    ----------
    progress
        Share of the evolution that is over, in [0, 1].
    start, end
        Exponents at progress 0 and 1. The published code uses 3 for fully connected and
        convolutional networks, 9 for transformers.
    schedule
        ``linear_exponent`` (the published code), or ``linear_delta`` (the text: the exponent is
        :math:`\delta / (1 - \delta)` and delta moves linearly).

    Examples
    --------
    >>> removal_exponent(0.5, end=9.0)
    5.0
    >>> round(removal_exponent(0.5, end=9.0, schedule="linear_delta"), 2)
    2.33
    """
    if schedule == "linear_exponent":
        return start + (end - start) * progress
    if schedule == "linear_delta":
        first, last = start / (1 + start), end / (1 + end)
        delta = first + (last - first) * progress
        return delta / (1 - delta)
    raise ConfigError(
        f"unknown exponent schedule {schedule!r}. Known: linear_delta, linear_exponent."
    )


def removal_count(links: int, fraction: float) -> int:
    """Return floor(links * fraction), guarded against binary rounding such as 0.29 * 100.

    Examples
    --------
    >>> removal_count(100, 0.29)
    29
    """
    return min(links, math.floor(links * fraction + 1e-6))
