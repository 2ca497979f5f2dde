"""Stage 2 (evolve): which absent links a topology update grows.

Candidates are all absent links, those removed a moment ago included. ``grow_drawn`` draws them in
proportion to a score (Cannistraci-Hebb soft rule), ``grow_best`` takes the best with random ties
(hard rule, and gradient rules with score = abs(gradient)), ``grow_uniform`` ignores scores.
All three grow exactly ``min(count, candidates)`` links; when fewer candidates have a positive score
than are needed, the rest is uniform among those of score zero. Weights are set elsewhere.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.evolve.removal import check_shapes
from topospike.topology.ranking import best, draw


def grow_drawn(
    scores: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    count: int,
    *,
    generator: torch.Generator,
) -> Bool[Tensor, "*shape"]:
    """Draw absent links without replacement with probability proportional to their score.

    Parameters
    ----------
    scores, mask : same shape
        Scores >= 0 of the absent links (values on present links are ignored); present links.
    count
        How many links to grow.

    Returns
    -------
    bool, same shape
        The grown links, disjoint from ``mask``.

    Notes
    -----
    Successive sampling (Bao et al. 2026, equation A5). One of the public reference codes takes the
    top k under the same name; that is `grow_best` here.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> mask = torch.tensor([True, False, False, False])
    >>> grow_drawn(torch.tensor([0.0, 0.0, 2.0, 1.0]), mask, 2, generator=generator).tolist()
    [False, False, True, True]
    """
    check_shapes(scores, mask)
    return draw(scores, ~mask, count, generator=generator)


def grow_best(
    scores: Float[Tensor, "*shape"],
    mask: Bool[Tensor, "*shape"],
    count: int,
    *,
    generator: torch.Generator,
) -> Bool[Tensor, "*shape"]:
    """Grow the absent links with the largest scores; ties at the last place fall at random.

    Parameters and result as for `grow_drawn`. Links of score zero tie with each other, so filling
    up with them is uniform as well.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> mask = torch.tensor([True, False, False])
    >>> grow_best(torch.tensor([9.0, 1.0, 2.0]), mask, 1, generator=generator).tolist()
    [False, False, True]
    """
    check_shapes(scores, mask)
    return best(scores, ~mask, count, generator=generator)


def grow_uniform(
    mask: Bool[Tensor, "*shape"], count: int, *, generator: torch.Generator
) -> Bool[Tensor, "*shape"]:
    """Grow absent links uniformly at random.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> grow_uniform(torch.tensor([True, False]), 5, generator=generator).tolist()
    [False, True]
    """
    absent = (~mask).flatten().nonzero().squeeze(1)
    order = torch.randperm(absent.numel(), generator=generator).to(absent.device)
    grown = torch.zeros(mask.numel(), dtype=torch.bool, device=mask.device)
    grown[absent[order[:count]]] = True
    return grown.view(mask.shape)
