r"""Stage topology: how much a link is worth, read from its weight or its gradient.

One measure each for sparse training and for pruning. Relative importance is

.. math:: RI_{ij} = \frac{|w_{ij}|}{\sum_k |w_{ik}| + \epsilon}
                  + \frac{|w_{ij}|}{\sum_k |w_{kj}| + \epsilon}

with one epsilon, added once to each sum: a row or column of zeros gives 0, not 0 / 0.
"""

from __future__ import annotations

from jaxtyping import Float
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
