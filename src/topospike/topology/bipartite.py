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


def from_bipartite(
    matrix: Shaped[Tensor, "n_out n_in"], shape: Sequence[int]
) -> Shaped[Tensor, " n_out *rest"]:
    """Fold a (n_out, n_in) matrix back into a weight of ``shape``; undoes `to_bipartite`.

    Raises
    ------
    ShapeError
        If the matrix does not belong to a weight of this shape.

    Examples
    --------
    >>> from_bipartite(torch.zeros(8, 75), (8, 3, 5, 5)).shape
    torch.Size([8, 3, 5, 5])
    """
    if tuple(matrix.shape) != matrix_shape(shape):
        raise ShapeError(
            f"a matrix of shape {tuple(matrix.shape)} cannot fold into a weight of shape "
            f"{tuple(shape)}; {matrix_shape(shape)} is required."
        )
    return matrix.reshape(tuple(shape))


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
) -> tuple[Shaped[Tensor, "n_out_group n_in"], ...]:
    """Unfold a weight into its independent bipartite graphs, one a group.

    Parameters
    ----------
    weight : shape (n_out, n_in) or (c_out, c_in / groups, kh, kw)
    groups
        ``groups`` of the convolution; 1 for linear layers. A depthwise convolution has one row in
        each graph.

    Raises
    ------
    ShapeError
        If the rows cannot be split into ``groups`` equal parts.

    Examples
    --------
    >>> [tuple(graph.shape) for graph in bipartite_graphs(torch.zeros(4, 2, 3, 3), groups=2)]
    [(2, 18), (2, 18)]
    """
    matrix = to_bipartite(weight)
    if groups < 1 or matrix.shape[0] % groups:
        raise ShapeError(
            f"{matrix.shape[0]} output channels cannot be split into {groups} groups of equal size."
        )
    return tuple(matrix.chunk(groups))


def from_bipartite_graphs(
    graphs: Sequence[Shaped[Tensor, "n_out_group n_in"]], shape: Sequence[int]
) -> Shaped[Tensor, " n_out *rest"]:
    """Join the graphs of all groups into a weight of ``shape``; undoes `bipartite_graphs`.

    Raises
    ------
    ShapeError
        If the graphs do not make up a weight of this shape.

    Examples
    --------
    >>> halves = bipartite_graphs(torch.arange(8).reshape(4, 2), groups=2)
    >>> from_bipartite_graphs(halves, (4, 2)).tolist()
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    """
    if not graphs or len({graph.shape[1] for graph in graphs}) != 1:
        raise ShapeError(
            f"graphs of shapes {[tuple(graph.shape) for graph in graphs]} cannot be joined; "
            "one or more with the same number of columns are required."
        )
    return from_bipartite(torch.cat(tuple(graphs)), shape)


def channel_links(
    mask: Bool[Tensor, " n_out *rest"], *, channels: int
) -> Bool[Tensor, "n_out channels"]:
    """Say which output node has any link from which input channel.

    Parameters
    ----------
    mask : bool, shape (n_out, n_in) or (c_out, c_in, kh, kw)
        Present links of a convolution without groups, or of the linear layer behind a flattened
        (chan, height, width) map.
    channels
        Input channels; the columns of one channel are neighbours.

    Raises
    ------
    ShapeError
        If the columns do not divide into ``channels`` equal blocks.

    Examples
    --------
    >>> channel_links(torch.tensor([[True, False, False, False]]), channels=2).tolist()
    [[True, False]]
    """
    matrix = to_bipartite(mask)
    if channels < 1 or matrix.shape[1] % channels:
        raise ShapeError(f"{matrix.shape[1]} columns cannot be split into {channels} channels.")
    return matrix.reshape(matrix.shape[0], channels, -1).any(dim=-1)


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
