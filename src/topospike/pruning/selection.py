"""Stage prune: from scores to a mask, with exact counts.

Within a comparison group (a row, or the whole layer) exactly ``floor(sparsity * n)`` weights go:
those with the smallest scores, ties by position. The reference codes prune everything at or below
a threshold, hence one weight too many and every tie; see docs/stages/pruning.md.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import ConfigError
from topospike.registry import suggestion
from topospike.topology import share_count

Comparison = Literal["row", "layer"]


def keep_largest(
    scores: Float[Tensor, "groups outputs inputs"],
    sparsity: float,
    *,
    comparison: Comparison = "layer",
) -> Bool[Tensor, "groups outputs inputs"]:
    """Return the mask of what stays when the smallest scores are pruned.

    Parameters
    ----------
    scores
        Finite scores.
    sparsity
        Share to prune, in [0, 1).
    comparison
        Rank weights within each output's ``row``, or within the whole ``layer``.

    Returns
    -------
    Tensor
        True where the link stays; every comparison group loses exactly
        ``floor(sparsity * n + 1e-6)`` of its n links, the lower position first among equals.

    Raises
    ------
    ConfigError
        If the comparison is unknown, or sparsity leaves no link or lies outside [0, 1).

    Examples
    --------
    >>> scores = torch.tensor([[[1.0, 1.0, 9.0], [5.0, 6.0, 7.0]]])
    >>> keep_largest(scores, 0.5, comparison="layer")[0].tolist()
    [[False, False, True], [False, True, True]]
    >>> keep_largest(scores, 0.5, comparison="row")[0].tolist()
    [[False, True, True], [False, True, True]]
    """
    check_comparison(comparison)
    check_sparsity(sparsity)
    size = scores.shape[-1] if comparison == "row" else scores.numel()
    ranked = scores.reshape(-1, size)
    count = share_count(size, sparsity)
    if count >= size:
        raise ConfigError(
            f"sparsity {sparsity!r} leaves none of the {size} links of a {comparison}; prune less."
        )
    keep = torch.ones_like(ranked, dtype=torch.bool)
    if count:
        smallest = ranked.sort(dim=1, stable=True).indices[:, :count]
        keep.scatter_(1, smallest, False)
    return keep.view(scores.shape)


def check_comparison(comparison: str) -> None:
    """Raise `ConfigError` unless the comparison group is known."""
    known = get_args(Comparison)
    if comparison not in known:
        raise ConfigError(
            f"unknown comparison {comparison!r}. Known: {', '.join(known)}."
            f"{suggestion(str(comparison), known)}"
        )


def check_sparsity(sparsity: float) -> None:
    """Raise `ConfigError` unless 0 <= sparsity < 1."""
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(
            f"sparsity is {sparsity!r}; it must lie in [0, 1): 0 prunes nothing, 1 would leave an "
            "empty layer."
        )
