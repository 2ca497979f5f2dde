r"""Stage prune: adjust the weights that stay, so that the layer's output changes least.

Optimal brain surgeon, column by column (Frantar and Alistarh 2023, algorithm 1). With the second
moment :math:`H = \frac{2}{N} \sum x x^T` of the inputs and U the upper Cholesky factor of its
inverse, pruning :math:`w_{ij}` costs :math:`w_{ij}^2 / U_{jj}^2`, and the best answer of the
columns after j is :math:`w_{i,j:} \leftarrow w_{i,j:} - (w_{ij} / U_{jj}) \, U_{j,j:}`. Columns are
taken in blocks; what a block does to later ones is applied once.

With a mask given, only the weights are adjusted (RIA and Wanda with reconstruction); without one
the mask is chosen block by block from the weights as they are by then (SparseGPT).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import ConfigError, NonFiniteError
from topospike.pruning.methods import keep_largest
from topospike.topology import check_shares

DAMPING_RETRIES = (1.0, 10.0, 100.0)


class Reconstruction(NamedTuple):
    """Adjusted weights, zero off the mask; the mask; and the damping that was needed."""

    weight: Float[Tensor, "groups outputs inputs"]
    mask: Bool[Tensor, "groups outputs inputs"]
    damping: float


def reconstruct(
    weight: Float[Tensor, "groups outputs inputs"],
    moments: Float[Tensor, "groups inputs inputs"],
    *,
    mask: Bool[Tensor, "groups outputs inputs"] | None = None,
    sparsity: float | None = None,
    block: int = 128,
    damping: float = 0.01,
    layer: str = "weight",
) -> Reconstruction:
    """Prune to a mask, or to one chosen on the way, and compensate with what stays.

    Parameters
    ----------
    weight
        Matrices of one layer; the result has their dtype.
    moments
        H of the inputs, in the precision to compute in.
    mask
        What stays; fixed from the start.
    sparsity
        Without a mask: the share to prune of every block of columns.
    block
        Columns in a block; the last one may be smaller.
    damping
        Added to the diagonal, as a share of its mean. If the inverse does not exist, ten and a
        hundred times as much are tried.
    layer
        Name for messages.

    Raises
    ------
    ConfigError
        If neither or both of mask and sparsity are given, or block or damping is not positive.
    NonFiniteError
        If no damping makes H invertible; names the layer.

    Notes
    -----
    Inputs that were never active (H_jj = 0) get H_jj = 1 and lose their weights, as in the
    reference. A mask chosen on the way prunes exactly ``floor(sparsity * n)`` of the n weights of
    each block; the reference prunes one more.

    Examples
    --------
    >>> weight, moments = torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[2.0, 1.9], [1.9, 2.0]]])
    >>> keep = torch.tensor([[[False, True]]])
    >>> done = reconstruct(weight, moments, mask=keep, damping=1e-6)
    >>> [round(value, 2) for value in done.weight.flatten().tolist()]
    [0.0, 1.95]
    """
    if (mask is None) == (sparsity is None):
        raise ConfigError("reconstruct takes either a mask or a sparsity; give exactly one.")
    if block < 1 or not damping > 0:
        raise ConfigError(
            f"{layer}: block is {block} and damping {damping}; both must be positive."
        )
    if sparsity is not None:
        check_shares("sparsity", sparsity)
    current = weight.to(moments.dtype, copy=True)
    dead = moments.diagonal(dim1=1, dim2=2) == 0
    current.masked_fill_(dead.unsqueeze(1), 0.0)
    factor, used = inverse_factor(moments, dead, damping=damping, layer=layer)
    keep = torch.ones_like(current, dtype=torch.bool) if mask is None else mask
    for start in range(0, current.shape[2], block):
        columns = slice(start, min(start + block, current.shape[2]))
        if sparsity is not None:
            cost = (current[:, :, columns] / diagonal(factor)[:, None, columns]).square()
            keep[:, :, columns] = keep_largest(cost, sparsity)
        reconstruct_block(current, keep, factor, columns)
    return Reconstruction(current.masked_fill_(~keep, 0.0).to(weight.dtype), keep, used)


def reconstruct_block(current: Tensor, keep: Tensor, factor: Tensor, columns: slice) -> None:
    """Prune the columns of one block in place, and pass their errors on to all later columns."""
    part, absent = current[:, :, columns], ~keep[:, :, columns]
    rows = factor[:, columns, columns]
    errors = torch.zeros_like(part)
    for column in range(part.shape[2]):
        pruned = part[:, :, column] * absent[:, :, column]
        error = pruned / rows[:, column, column, None]
        part[:, :, column:] -= error.unsqueeze(2) * rows[:, None, column, column:]
        part[:, :, column].masked_fill_(absent[:, :, column], 0.0)
        errors[:, :, column] = error
    current[:, :, columns.stop :] -= errors @ factor[:, columns, columns.stop :]


def inverse_factor(
    moments: Tensor, dead: Tensor, *, damping: float, layer: str
) -> tuple[Tensor, float]:
    """Return the upper Cholesky factor of the inverse of the damped H, and the damping used."""
    base = moments.clone()
    diagonal(base).masked_fill_(dead, 1.0)
    mean = diagonal(base).mean(1, keepdim=True)
    for factor in DAMPING_RETRIES:
        damped = base.clone()
        diagonal(damped).add_(damping * factor * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not bool(failed.any()):
            inverse = torch.cholesky_inverse(lower)
            upper, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            if not bool(failed.any()) and bool(upper.isfinite().all()):
                return upper, damping * factor
    raise NonFiniteError(
        f"{layer}: the second moment of its inputs cannot be inverted, even with damping "
        f"{damping * DAMPING_RETRIES[-1]:g}. Check the calibration images and the activations "
        "before this layer, or compute in precision=torch.float64."
    )


def diagonal(matrices: Tensor) -> Tensor:
    """Return the diagonals of the last two axes, as a view that can be written to."""
    return matrices.diagonal(dim1=-2, dim2=-1)


def output_error(change: Tensor, weight: Tensor, moments: Tensor) -> float:
    r"""Return :math:`\lVert \Delta W X \rVert_F / \lVert W X \rVert_F`, from H alone.

    Examples
    --------
    >>> weight = torch.tensor([[[3.0, 4.0]]])
    >>> output_error(torch.tensor([[[3.0, 0.0]]]), weight, torch.eye(2).unsqueeze(0))
    0.6
    """
    total = energy(weight, moments)
    return float((energy(change, moments) / total).sqrt()) if total > 0 else 0.0


def energy(weight: Tensor, moments: Tensor) -> Tensor:
    """Return the squared norm of the outputs, up to the factor of H (float64)."""
    weight = weight.to(moments.dtype)
    return ((weight @ moments) * weight).sum(dtype=torch.float64).clamp_min(0.0)
