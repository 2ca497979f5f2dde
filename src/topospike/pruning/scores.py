"""Stage prune: how much each weight of a layer is worth; the smallest are pruned.

A layer is seen as ``groups`` matrices of shape (outputs, inputs): one for a linear layer, one a
group for a convolution unfolded as in im2col. Input norms are the L2 norms of the inputs over all
calibration positions. Nothing is pruned here; see `topospike.pruning.selection`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Matrices = Float[Tensor, "groups outputs inputs"]
Norms = Float[Tensor, "groups inputs"]


def magnitude(weight: Matrices) -> Matrices:
    r"""Return :math:`|W_{ij}|` (Zhu and Gupta 2017).

    Examples
    --------
    >>> magnitude(torch.tensor([[[-2.0, 1.0]]])).tolist()
    [[[2.0, 1.0]]]
    """
    return weight.abs()


def relative_importance(weight: Matrices) -> Matrices:
    r"""Return each weight's share of its input's column plus its share of its output's row.

    Notes
    -----
    :math:`RI_{ij} = |W_{ij}| / \sum_{i'} |W_{i'j}| + |W_{ij}| / \sum_{j'} |W_{ij'}|` (Zhang et al.
    2024, equation 3). The reference code gives NaN for a column or row of zeros, which then is
    never pruned; here 0 / 0 = 0, so such weights go first.

    Examples
    --------
    >>> relative_importance(torch.tensor([[[3.0, 1.0], [1.0, 0.0]]]))[0].tolist()
    [[1.5, 1.25], [1.25, 0.0]]
    """
    size = weight.abs()
    return share(size, size.sum(1, keepdim=True)) + share(size, size.sum(2, keepdim=True))


def wanda(weight: Matrices, norms: Norms) -> Matrices:
    r"""Return :math:`|W_{ij}| \, \lVert x_j \rVert_2` (Sun et al. 2023, equation 1).

    Examples
    --------
    >>> wanda(torch.tensor([[[-2.0, 1.0]]]), torch.tensor([[1.0, 5.0]])).tolist()
    [[[2.0, 5.0]]]
    """
    return weight.abs() * norms.unsqueeze(1)


def relative_importance_and_activations(
    weight: Matrices, norms: Norms, *, exponent: float = 0.5
) -> Matrices:
    r"""Return :math:`RI_{ij} \, \lVert x_j \rVert_2^a` (Zhang et al. 2024, equation 4).

    Parameters
    ----------
    weight, norms
        As everywhere in this module.
    exponent
        The power a of the norm; 0 gives `relative_importance`.

    Examples
    --------
    >>> weight, norms = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[1.0, 4.0]])
    >>> relative_importance_and_activations(weight, norms).tolist()
    [[[1.5, 3.0]]]
    """
    return relative_importance(weight) * norms.unsqueeze(1).pow(exponent)


def share(part: Tensor, total: Tensor) -> Tensor:
    """Return ``part / total``, 0 where the total is 0."""
    return torch.where(total > 0, part / total, torch.zeros_like(part))
