r"""Stage 2 (evolve): choosing exactly k of n candidates.

Two ways: the k best, and k successive draws without replacement with probability proportional to a
weight. The second is the exponential race: candidate i arrives at time :math:`E_i / w_i` with
:math:`E_i \sim Exp(1)`, the first k arrivals are the sample; in logarithms, so that no weight
under- or overflows. Random numbers are drawn on the CPU, so the choice is the same on every device.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def best(
    scores: Float[Tensor, " n"], k: int, *, generator: torch.Generator | None = None
) -> Int[Tensor, " k"]:
    """Return the positions of the ``k`` largest scores.

    Parameters
    ----------
    scores : shape (n,)
        Finite numbers.
    k
        How many to choose, 0 <= k <= n.
    generator
        Breaks ties at the k-th score at random; without it the lowest position wins.

    Returns
    -------
    int64, shape (k,)
        Positions, in no particular order.

    Examples
    --------
    >>> best(torch.tensor([1.0, 3.0, 1.0, 1.0]), 2).tolist()
    [1, 0]
    """
    n = scores.numel()
    if k <= 0:
        return torch.empty(0, dtype=torch.long, device=scores.device)
    if k >= n:
        return torch.arange(n, device=scores.device)
    threshold = scores.kthvalue(n - k + 1).values
    above = (scores > threshold).nonzero().squeeze(1)
    tied = (scores == threshold).nonzero().squeeze(1)
    missing = k - above.numel()
    if generator is not None:
        tied = tied[torch.randperm(tied.numel(), generator=generator).to(tied.device)]
    return torch.cat([above, tied[:missing]])


def draw(
    log_weights: Float[Tensor, " n"], k: int, *, generator: torch.Generator
) -> Int[Tensor, " k"]:
    """Draw ``k`` positions without replacement, with probability proportional to exp(log_weights).

    Positions of weight zero (``-inf``) are never drawn before the others are used up; if they are
    needed to reach ``k``, they are drawn uniformly.

    Parameters
    ----------
    log_weights : shape (n,)
        Logarithms of the weights, ``-inf`` allowed.
    k
        How many to draw, 0 <= k <= n.

    Returns
    -------
    int64, shape (k,)
        Distinct positions, in no particular order.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> sorted(draw(torch.tensor([0.0, -torch.inf, 1.0]), 2, generator=generator).tolist())
    [0, 2]
    """
    positive = log_weights.isfinite().nonzero().squeeze(1)
    if positive.numel() < k:
        zero = log_weights.isneginf().nonzero().squeeze(1)
        order = torch.randperm(zero.numel(), generator=generator).to(zero.device)
        return torch.cat([positive, zero[order[: k - positive.numel()]]])
    # float64: with millions of candidates float32 arrival times would collide.
    arrival = torch.empty(positive.numel(), dtype=torch.float64).exponential_(generator=generator)
    keys = log_weights[positive].double() - arrival.log_().to(log_weights.device)
    return positive[best(keys, k)]
