"""Stage topology: a weight tensor read as a bipartite graph. Axis order lives here and only here.

One matrix convention: row = output node, column = input node. A linear weight is that matrix
already. A convolution is unfolded as in im2col: one column for each (input channel, kernel row,
kernel column), so that every weight is exactly one link. Transposed convolutions, whose weights
have the input axis first, are not handled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from topospike.errors import ConfigError, ShapeError


def to_bipartite(weight: Shaped[Tensor, " n_out *rest"]) -> Shaped[Tensor, "n_out n_in"]:
    """Unfold a weight or mask into its (n_out, n_in) matrix.

    Parameters
    ----------
    weight : shape (n_out, n_in) or (c_out, c_in, kh, kw)
        Any dtype; any number of axes from two on.

    Returns
    -------
    same dtype, shape (n_out, n_in)
        ``n_in = c_in * kh * kw`` in row-major order for a convolution. A view where the strides
        allow one (always for a contiguous tensor), otherwise a copy: read it, do not write to it.

    Raises
    ------
    ShapeError
        If ``weight`` has fewer than two axes.

    Notes
    -----
    The columns of a grouped convolution mean other inputs in each group; use `bipartite_graphs`.

    Examples
    --------
    >>> to_bipartite(torch.zeros(8, 3, 5, 5)).shape
    torch.Size([8, 75])
    """
    if weight.dim() < 2:
        raise ShapeError(
            f"a weight of shape {tuple(weight.shape)} is not a bipartite graph; "
            "at least two axes (n_out, n_in) are required."
        )
    return weight.reshape(weight.shape[0], -1)


def matrix_shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return (n_out, n_in) of a weight shape; n_in is the fan-in of every output neuron.

    Raises
    ------
    ShapeError
        If the shape has fewer than two axes or an axis of size 0.

    Examples
    --------
    >>> matrix_shape((8, 3, 5, 5))
    (8, 75)
    """
    if len(shape) < 2 or min(shape) < 1:
        raise ShapeError(
            f"weight shape {tuple(shape)} has no links; at least two axes of size 1 are required."
        )
    return int(shape[0]), math.prod(int(size) for size in shape[1:])


def bipartite_graphs(
    weight: Shaped[Tensor, " n_out *rest"], *, groups: int = 1
) -> Shaped[Tensor, "groups n_out_group n_in"]:
    """Unfold a weight into its independent bipartite graphs, one a group.

    Parameters
    ----------
    weight : shape (n_out, n_in) or (c_out, c_in / groups, kh, kw)
    groups
        ``groups`` of the convolution; 1 for linear layers. A depthwise convolution has one row in
        each graph.

    Returns
    -------
    same dtype, shape (groups, n_out / groups, n_in)
        A view where the strides allow one. ``graphs.reshape(weight.shape)`` undoes it.

    Raises
    ------
    ShapeError
        If the rows cannot be split into ``groups`` equal parts.

    Examples
    --------
    >>> bipartite_graphs(torch.zeros(4, 2, 3, 3), groups=2).shape
    torch.Size([2, 2, 18])
    """
    matrix = to_bipartite(weight)
    if groups < 1 or matrix.shape[0] % groups:
        raise ShapeError(
            f"{matrix.shape[0]} output channels cannot be split into {groups} groups of equal size."
        )
    return matrix.reshape(groups, -1, matrix.shape[1])


def require_links(shape: tuple[int, int], links: int) -> None:
    """Raise `ConfigError` unless a (n_out, n_in) layer can hold exactly ``links`` links, 1 or more.

    Examples
    --------
    >>> require_links((2, 3), 6)
    """
    size = shape[0] * shape[1]
    if not 1 <= links <= size:
        raise ConfigError(
            f"{links} links were asked for in a {shape[0]} x {shape[1]} layer; "
            f"1 to {size} are possible."
        )


def mask_of(flat_index: Int[Tensor, " link"], shape: tuple[int, int]) -> Bool[Tensor, "n_out n_in"]:
    """Return the mask with links at the given row-major positions.

    Examples
    --------
    >>> mask_of(torch.tensor([1, 2]), (2, 2)).tolist()
    [[False, True], [True, False]]
    """
    mask = torch.zeros(shape[0] * shape[1], dtype=torch.bool, device=flat_index.device)
    mask[flat_index] = True
    return mask.view(shape)
