r"""Stage topology: how much a link is worth, and choosing exactly k of the candidates of a layer.

Importance is read from weight or gradient, one measure each for sparse training and for pruning.
Relative importance is

.. math:: RI_{ij} = \frac{|w_{ij}|}{\sum_k |w_{ik}| + \epsilon}
                  + \frac{|w_{ij}|}{\sum_k |w_{kj}| + \epsilon}

with one epsilon, added once to each sum: a row or column of zeros gives 0, not 0 / 0.

Choosing has two ways: the k best, and k successive draws without replacement with probability
proportional to a weight. The second is the exponential race: candidate i arrives at time
:math:`E_i / w_i` with :math:`E_i \sim Exp(1)`, the first k arrivals are the sample; in logarithms,
so that no weight under- or overflows. Random numbers are drawn on the CPU, so the choice is the
same on every device. Candidates and choice are masks, so no list of millions of indices is made.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.topology.bipartite import bipartite_graphs

RI_EPSILON = 1e-5
MEST_GRADIENT_WEIGHT = 0.01


def magnitude(weight: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return |w|; of a gradient it is the instant benefit of a link of weight 0.

    Examples
    --------
    >>> import torch
    >>> magnitude(torch.tensor([-2.0, 1.0])).tolist()
    [2.0, 1.0]
    """
    return weight.abs()


def relative_importance(
    weight: Float[Tensor, " n_out *rest"], *, groups: int = 1, epsilon: float = RI_EPSILON
) -> Float[Tensor, " n_out *rest"]:
    """Return the relative importance of every weight, in its row and in its column.

    Parameters
    ----------
    weight : shape (n_out, n_in) or (c_out, c_in / groups, kh, kw)
        Absent links are 0. A convolution kernel is read as its im2col matrix.
    groups
        Groups of the convolution. Columns of different groups are different inputs.
    epsilon
        Added to each sum.

    Notes
    -----
    Formula in the module text (Zhang et al. 2024, equation 3).

    Examples
    --------
    >>> import torch
    >>> relative_importance(torch.tensor([[1.0, 3.0], [0.0, 1.0]])).round(decimals=2).tolist()
    [[1.25, 1.5], [0.0, 1.25]]
    """
    size = bipartite_graphs(weight, groups=groups).abs()
    by_row = size / (size.sum(2, keepdim=True) + epsilon)
    by_column = size / (size.sum(1, keepdim=True) + epsilon)
    return (by_row + by_column).view(weight.shape)


def mest_importance(
    weight: Float[Tensor, "*shape"], gradient: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Return |w| + 0.01 |g| (MEST, Yuan et al. 2021).

    Examples
    --------
    >>> import torch
    >>> mest_importance(torch.tensor([1.0, -1.0]), torch.tensor([0.0, 200.0])).tolist()
    [1.0, 3.0]
    """
    return weight.abs() + MEST_GRADIENT_WEIGHT * gradient.abs()


# Size of the sample that narrows a selection.
SAMPLE = 2**14


def best(
    scores: Float[Tensor, "*shape"],
    candidates: Bool[Tensor, "*shape"],
    k: int,
    *,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "*shape"]:
    """Choose the ``k`` candidates with the largest scores.

    Parameters
    ----------
    scores, candidates : same shape
        Finite numbers; which of them take part.
    k
        How many to choose; all candidates if there are no more.
    generator
        Breaks ties at the k-th score at random; without it the lowest flat index wins.

    Returns
    -------
    bool, same shape
        A subset of ``candidates`` with exactly ``min(k, candidates)`` entries.

    Examples
    --------
    >>> best(torch.tensor([1.0, 3.0, 1.0, 9.0]), torch.tensor([True, True, True, False]), 2)
    tensor([ True,  True, False, False])
    """
    if k >= int(candidates.count_nonzero()):
        return candidates.clone(memory_format=torch.contiguous_format)
    if k <= 0:
        return torch.zeros_like(candidates, memory_format=torch.contiguous_format)
    ranked = scores.contiguous().masked_fill(~candidates, -torch.inf)
    threshold = kth_largest(ranked.flatten(), k)
    chosen = ranked > threshold
    missing = k - int(chosen.count_nonzero())
    tied = (ranked == threshold).flatten().nonzero().squeeze(1)
    if generator is not None:
        tied = tied[torch.randperm(tied.numel(), generator=generator).to(tied.device)]
    chosen.view(-1)[tied[:missing]] = True
    return chosen


def kth_largest(values: Float[Tensor, " n"], k: int) -> Float[Tensor, ""]:
    """Return the k-th largest of n numbers, 1 <= k <= n.

    Long lists are narrowed first (Floyd and Rivest, 1975): two members of a sample enclose the
    answer with high probability, counting proves it, and only what lies between them is ranked.
    """
    if values.numel() >= 16 * SAMPLE:
        sample = values[:: values.numel() // SAMPLE].sort(descending=True).values
        place = k * sample.numel() // values.numel()
        # Four standard deviations of the place of the answer within the sample.
        margin = 2 * math.isqrt(sample.numel())
        upper = sample[max(place - margin, 0)]
        lower = sample[min(place + margin, sample.numel() - 1)]
        rest = k - int((values > upper).count_nonzero())
        between = values.masked_select((values <= upper) & (values >= lower))
        if 0 < rest <= between.numel():
            return between.kthvalue(between.numel() - rest + 1).values
    return values.kthvalue(values.numel() - k + 1).values


def draw(
    weights: Float[Tensor, "*shape"],
    candidates: Bool[Tensor, "*shape"],
    k: int,
    *,
    generator: torch.Generator,
    exponent: float = 1.0,
) -> Bool[Tensor, "*shape"]:
    """Draw ``k`` candidates without replacement, with probability ~ weights**exponent.

    Candidates of weight zero are never drawn before the others are used up; if they are needed to
    reach ``k``, they are drawn uniformly.

    Parameters
    ----------
    weights, candidates : same shape
        Numbers >= 0; which of them take part.
    k
        How many to draw; all candidates if there are no more.

    Returns
    -------
    bool, same shape
        A subset of ``candidates`` with exactly ``min(k, candidates)`` entries.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> weights, everyone = torch.tensor([1.0, 0.0, 3.0]), torch.ones(3, dtype=torch.bool)
    >>> draw(weights, everyone, 2, generator=generator)
    tensor([ True, False,  True])
    """
    if k <= 0:
        return torch.zeros_like(candidates, memory_format=torch.contiguous_format)
    weights = weights.contiguous()
    positive = (weights > 0) & candidates
    n_positive = int(positive.count_nonzero())
    if n_positive < k:
        zero = (candidates & ~positive).flatten().nonzero().squeeze(1)
        order = torch.randperm(zero.numel(), generator=generator).to(zero.device)
        positive.view(-1)[zero[order[: k - n_positive]]] = True
        return positive
    # float64: with millions of candidates float32 arrival times would collide.
    arrival = torch.empty(n_positive, dtype=torch.float64).exponential_(generator=generator)
    keys = weights.masked_select(positive).double().log_().mul_(exponent)
    keys -= arrival.log_().to(keys.device)
    taken = best(keys, torch.ones_like(keys, dtype=torch.bool), k)
    return torch.zeros_like(positive).masked_scatter_(positive, taken)
