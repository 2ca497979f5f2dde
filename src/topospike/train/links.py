"""Stage train: the product of a linear layer with its links alone, and its two gradients.

With E links (r, c) of values w, ``Y = X W^T`` and what comes back as G::

    Y[b, r]  = sum over links (r, c) of w X[b, c]
    dX[b, c] = sum over links (r, c) of w G[b, r]
    dw       = sum over b of G[b, r] X[b, c]            for every link

Each costs B E multiply-adds, where the dense layer needs B R C. All three are torch's own kernels
for compressed rows, on CPU and CUDA. Nothing here knows about modules or optimizers.
"""

from __future__ import annotations

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# The only words of torch on compressed rows that are no news to a user of this library.
BETA_NOTICE = "Sparse CSR tensor support is in beta state"


class LinkProduct:
    """The links of one layer in the order of their rows, ready to be multiplied.

    Parameters
    ----------
    mask : bool, (n_out, n_in)
        At least one link.
    values : (links,)
        Weights of the links in row order. The memory is shared: an optimizer that changes them in
        place changes the product.

    Examples
    --------
    >>> mask = torch.tensor([[True, False], [True, True]])
    >>> product = LinkProduct(mask, torch.tensor([1.0, 2.0, 3.0]))
    >>> product(torch.tensor([[1.0, 10.0]]), torch.tensor([1.0, 2.0, 3.0]), None)
    tensor([[ 1., 32.]])
    """

    def __init__(self, mask: Bool[Tensor, "n_out n_in"], values: Float[Tensor, " links"]) -> None:
        rows, columns = mask.nonzero(as_tuple=True)
        values = values.detach()
        self.by_row = compressed(rows, columns, values, (mask.shape[0], mask.shape[1]))
        # Stable, so links stay in row order within a column.
        self.order = columns.argsort(stable=True)
        self.column_values = values[self.order]
        self.by_column = compressed(
            columns[self.order],
            rows[self.order],
            self.column_values,
            (mask.shape[1], mask.shape[0]),
        )

    def __call__(
        self,
        x: Float[Tensor, "*batch n_in"],
        values: Float[Tensor, " links"],
        bias: Float[Tensor, " n_out"] | None,
    ) -> Float[Tensor, "*batch n_out"]:
        """Compute what ``F.linear`` computes, in the dtype of ``values`` also under autocast."""
        rows = x if x.dim() == 2 else x.reshape(-1, x.shape[-1])
        with without_autocast(x.device.type):
            y = OnLinks.apply(rows.to(values.dtype), values, bias, self)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], y.shape[-1])

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        """Return ``X W^T + b``.

        The memory of the result runs along the batch, as the next product wants it. Turning it
        round would make a step a fifth slower.
        """
        y = multiply(self.by_row, x.t())
        return y.t() if bias is None else y.add_(bias.unsqueeze(1)).t()

    def input_gradient(self, gradient: Tensor) -> Tensor:
        """Return ``G W``."""
        torch.index_select(self.by_row.values(), 0, self.order, out=self.column_values)
        return multiply(self.by_column, gradient.t()).t()

    def value_gradient(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return ``G^T X`` where there is a link."""
        return torch.sparse.sampled_addmm(self.by_row, gradient.t(), x, beta=0.0).values()


class OnLinks(torch.autograd.Function):
    """The three products of `LinkProduct` as one differentiable function."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, values: Tensor, bias: Tensor | None, product: LinkProduct
    ) -> Tensor:
        """Multiply; ``values`` are those the product shares."""
        ctx.product = product
        # Saved so that autograd notices values changed between forward and backward.
        ctx.save_for_backward(x, values)
        return product.forward(x, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the gradients of input, values and bias that are asked for."""
        x, _ = ctx.saved_tensors
        product: LinkProduct = ctx.product
        of_input, of_values, of_bias, _ = ctx.needs_input_grad
        with without_autocast(gradient.device.type):
            return (
                product.input_gradient(gradient) if of_input else None,
                product.value_gradient(gradient, x) if of_values else None,
                gradient.sum(0) if of_bias else None,
                None,
            )


def without_autocast(device: str) -> AbstractContextManager[Any]:
    """Switch autocast off where it is on; the switch costs as much as a small product."""
    if torch.is_autocast_enabled(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


def compressed(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return a CSR matrix that shares the memory of ``values``; links come sorted by row."""
    starts = torch.zeros(shape[0] + 1, dtype=torch.int64, device=rows.device)
    starts[1:] = torch.bincount(rows, minlength=shape[0]).cumsum(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=BETA_NOTICE, category=UserWarning)
        # MKL and cuSPARSE index with 32 bits; 64 would be converted at every product.
        return torch.sparse_csr_tensor(
            starts.int(), columns.int(), values, shape, check_invariants=True
        )


def multiply(matrix: Tensor, dense: Tensor) -> Tensor:
    """Return the product of a CSR matrix and a dense one."""
    if matrix.is_cuda or torch.backends.mkl.is_available():
        return matrix @ dense
    # Without MKL (ARM) torch multiplies compressed rows by this kernel of its own alone.
    return torch.sparse.mm(matrix, dense, "sum")
