"""Stage prune: the methods by name; how each ranks the links of a layer, and which then go.

A layer is seen as ``groups`` matrices of shape (outputs, inputs): one for a linear layer, one a
group for a convolution unfolded as in im2col. Input norms are the L2 norms of the inputs over all
calibration positions. Within a comparison group (a row, or the whole layer) exactly
``floor(sparsity * n + 1e-6)`` weights go: those with the smallest scores, ties by position. The
reference codes prune everything at or below a threshold, hence one weight too many and every tie;
see docs/stages/pruning.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import ConfigError
from topospike.registry import Registry, suggestion
from topospike.topology import check_shares, magnitude, relative_importance, share_count

Comparison = Literal["row", "layer"]
Matrices = Float[Tensor, "groups outputs inputs"]
Norms = Float[Tensor, "groups inputs"]
Score = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Method:
    """How weights are ranked, and whether the rest are adjusted; a method of your own is one more.

    Attributes
    ----------
    name
        As users write it.
    comparison
        Within what weights are ranked unless the user says otherwise: ``row``, ``layer``;
        ``block`` (of columns) and ``group`` (of coupled channels) cannot be changed.
    score
        Function of (matrices, input norms, exponent); ``None``: ranked while reconstructing, or
        by channel.
    needs_inputs
        Whether calibration images are required.
    reconstructs
        Whether remaining weights are adjusted.
    """

    name: str
    comparison: Comparison | Literal["block", "group"]
    score: Score | None
    needs_inputs: bool
    reconstructs: bool


def by_magnitude(weight: Matrices, norms: Tensor, exponent: float) -> Matrices:
    r"""Return :math:`|W_{ij}|` (Zhu and Gupta 2017); inputs play no part."""
    return magnitude(weight)


def by_relative_importance(weight: Matrices, norms: Tensor, exponent: float) -> Matrices:
    r"""Return each weight's share of its input's column plus its share of its output's row.

    Notes
    -----
    `topospike.topology.relative_importance` with 0 / 0 = 0 and no epsilon, as Zhang et al. (2024,
    equation 3) have it: the scale of the weights plays no part. The reference code gives NaN for a
    column or row of zeros, which then is never pruned; here such weights go first.

    Examples
    --------
    >>> weight = torch.tensor([[[3.0, 1.0], [1.0, 0.0]]])
    >>> by_relative_importance(weight, torch.ones(()), 0.0)[0].tolist()
    [[1.5, 1.25], [1.25, 0.0]]
    """
    smallest = torch.finfo(weight.dtype).tiny
    rows = weight.flatten(0, 1)
    return relative_importance(rows, groups=len(weight), epsilon=smallest).view_as(weight)


def by_wanda(weight: Matrices, norms: Norms, exponent: float) -> Matrices:
    r"""Return :math:`|W_{ij}| \, \lVert x_j \rVert_2` (Sun et al. 2023, equation 1).

    Examples
    --------
    >>> by_wanda(torch.tensor([[[-2.0, 1.0]]]), torch.tensor([[1.0, 5.0]]), 1.0).tolist()
    [[[2.0, 5.0]]]
    """
    return weight.abs() * norms.unsqueeze(1)


def by_ria(weight: Matrices, norms: Norms, exponent: float) -> Matrices:
    r"""Return :math:`RI_{ij} \, \lVert x_j \rVert_2^a` (Zhang et al. 2024, equation 4).

    Examples
    --------
    >>> by_ria(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[1.0, 4.0]]), 0.5).tolist()
    [[[1.5, 3.0]]]
    """
    return by_relative_importance(weight, norms, exponent) * norms.unsqueeze(1).pow(exponent)


PRUNING_METHODS: Registry[Method] = Registry(
    "pruning method",
    {
        method.name: method
        for method in (
            Method("magnitude", "layer", by_magnitude, False, False),
            Method("ri", "layer", by_relative_importance, False, False),
            Method("ria", "layer", by_ria, True, False),
            Method("ria-rec", "layer", by_ria, True, True),
            Method("wanda", "row", by_wanda, True, False),
            Method("wanda-rec", "row", by_wanda, True, True),
            Method("sparsegpt", "block", None, True, True),
            Method("depgraph", "group", None, True, False),
        )
    },
)


def require_known(what: str, given: str, known: Sequence[str]) -> None:
    """Raise `ConfigError` for a value that an option does not have."""
    if given not in known:
        raise ConfigError(
            f"unknown {what} {given!r}. Known: {', '.join(known)}.{suggestion(str(given), known)}"
        )


def comparison_of(method: Method, given: str | None) -> str:
    """Return within what weights are ranked: what was asked for, or the method's own."""
    known = get_args(Comparison)
    if given is None:
        return method.comparison
    require_known("comparison", given, known)
    if method.comparison not in known:
        raise ConfigError(
            f"comparison={given!r} does not go with method {method.name!r}, which ranks within "
            f"its own {method.comparison}s; leave comparison out."
        )
    return given


def keep_largest(
    scores: Matrices, sparsity: float, *, comparison: str = "layer"
) -> Bool[Tensor, "groups outputs inputs"]:
    """Return the mask of what stays when the smallest scores are pruned.

    Every comparison group (a ``row``, or the whole ``layer``) loses exactly
    ``floor(sparsity * n + 1e-6)`` of its n links, the lower position first among equals.

    Examples
    --------
    >>> scores = torch.tensor([[[1.0, 1.0, 9.0], [5.0, 6.0, 7.0]]])
    >>> keep_largest(scores, 0.5, comparison="layer")[0].tolist()
    [[False, False, True], [False, True, True]]
    >>> keep_largest(scores, 0.5, comparison="row")[0].tolist()
    [[False, True, True], [False, True, True]]
    """
    check_shares("sparsity", sparsity)
    size = scores.shape[-1] if comparison == "row" else scores.numel()
    ranked = scores.reshape(-1, size)
    count = share_count(size, sparsity)
    if count >= size:
        raise ConfigError(
            f"sparsity {sparsity!r} leaves none of the {size} links of a {comparison}; prune less."
        )
    smallest = ranked.sort(dim=1, stable=True).indices[:, :count]
    return torch.ones_like(ranked, dtype=torch.bool).scatter_(1, smallest, False).view(scores.shape)
