"""Stage train: batch norm over the whole batch while its images lie in several processes.

Mean and variance are taken over all images, ``mu = sum(x) / n`` and ``sum((x - mu)^2) / n`` with
both sums over processes, so N processes normalise exactly as one does. The layers themselves are
not replaced; outside the block, and in evaluation, they are torch's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from topospike.train.distributed import Processes


class SumOverProcesses(torch.autograd.Function):
    """Sum a tensor over processes; so is the gradient, for every process used the sum."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        """Return the sum, the same on every process."""
        total = tensor.detach().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """Return the sum of what the processes need of this process's tensor."""
        total = gradients[0].clone()
        dist.all_reduce(total)
        return total


@contextmanager
def whole_batch_norm(model: nn.Module, processes: Processes) -> Iterator[None]:
    """Let every batch norm that trains see the images of all processes, inside a block."""
    layers = layers_of(model) if processes.count > 1 else []
    for layer in layers:
        # An attribute of the instance comes before the method of its class.
        layer.forward = partial(normalise, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def layers_of(model: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a model that do not look beyond their process themselves."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    ]


def normalise(layer: _BatchNorm, input: Float[Tensor, "batch chan ..."]) -> Tensor:
    """Do what the layer does, with the statistics of all processes when it trains."""
    if not layer.training:
        return type(layer).forward(layer, input)
    x = input
    axes = [0, *range(2, x.dim())]
    values = x.float()
    count = torch.full((1,), float(x.numel() / x.shape[1]), device=x.device)
    total = SumOverProcesses.apply(torch.cat([values.sum(axes), count]))
    n = total[-1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    centred = values - (total[:-1] / n).view(shape)
    variance = SumOverProcesses.apply(centred.square().sum(axes)) / n
    follow(layer, total[:-1].detach() / n.detach(), variance.detach(), n.detach())
    result = centred * torch.rsqrt(variance + layer.eps).view(shape)
    if layer.affine:
        result = result * layer.weight.view(shape) + layer.bias.view(shape)
    return result.to(x.dtype)


@torch.no_grad()
def follow(layer: _BatchNorm, mean: Tensor, variance: Tensor, n: Tensor) -> None:
    """Move the running mean and the running (unbiased) variance, as torch does."""
    if layer.running_mean is None or layer.running_var is None:
        return
    share: float | Tensor = 0.0 if layer.momentum is None else layer.momentum
    if layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if layer.momentum is None:
            share = 1.0 / layer.num_batches_tracked.to(mean.dtype)
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance * n / (n - 1), share)
