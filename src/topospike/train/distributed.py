"""Stage train: everything about several processes; a single one never gets here.

Started by ``torchrun --nproc-per-node N``, every process trains a copy of the model on its share of
each batch, and gradients are averaged (DDP), so N processes do what one does with the whole batch,
up to the order of sums. Batch norms take mean and variance over all images, ``mu = sum(x) / n`` and
``sum((x - mu)^2) / n`` with both sums over processes; outside of training steps they are torch's
own. Process 0 decides the topology and alone writes files. Which links change is not known here.
"""

from __future__ import annotations

import inspect
import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from topospike.errors import ConfigError, TopospikeError
from topospike.train.protocols import SharedController

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT = timedelta(minutes=30)
T = TypeVar("T")


class LostProcessError(TopospikeError):
    """A run on several processes cannot go on, because one of them has ended."""


@dataclass(frozen=True)
class Processes:
    """Where a process stands among those that train one model; by default it is on its own.

    Attributes
    ----------
    rank
        Number of this process, from 0.
    count
        How many there are.
    device
        Where tensors must be to be sent: the CPU with gloo, this process's accelerator with NCCL.

    Examples
    --------
    >>> alone = Processes()
    >>> alone.is_main, alone.sum(torch.tensor([2.0])).tolist()
    (True, [2.0])
    """

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and decides."""
        return self.rank == 0

    def broadcast(self, message: T) -> T:
        """Return process 0's object, whatever the others pass."""
        if self.count == 1:
            return message
        sent = [message if self.is_main else None]
        dist.broadcast_object_list(sent, src=0, device=self.device)
        return sent[0]  # pyright: ignore[reportReturnType]

    def gather(self, value: T) -> list[T]:
        """Return the objects of all processes, by rank; every process gets them."""
        received: list[Any] = [value] * self.count
        if self.count > 1:
            dist.all_gather_object(received, value)
        return received

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over processes; the same on all of them."""
        if self.count == 1:
            return value
        total = value.detach().to(self.device, copy=True)
        dist.all_reduce(total)
        return total.to(value.device)

    def wait(self) -> None:
        """Go on when every process has come here."""
        self.gather(None)

    def everywhere(self, flag: Tensor) -> Tensor:
        """Return whether a flag holds on all processes, without waiting for the answer."""
        if self.count == 1:
            return flag
        holds = flag.to(self.device, torch.float32)
        dist.all_reduce(holds, dist.ReduceOp.MIN)
        return holds.to(flag.device) > 0

    def seed(self, seed: int) -> int:
        """Return the seed of this process's generators: different noise on every share."""
        if self.is_main:
            return seed
        sequence = np.random.SeedSequence(seed, spawn_key=(self.rank,))
        return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))

    def share(
        self, x: Shaped[Tensor, "part ..."], y: Shaped[Tensor, "batch ..."]
    ) -> tuple[Tensor, Tensor, int]:
        """Return this process's part of a batch, and how many of its images count.

        Parts are contiguous and differ by at most one image. A process for which nothing is left
        gets an image that does not count, because all must take part in every step. Images of which
        there are fewer than labels are this process's part already.

        Examples
        --------
        >>> x, y = torch.arange(3.0).view(3, 1), torch.tensor([0, 1, 2])
        >>> [Processes(rank, 4).share(x, y)[1:] for rank in (0, 3)]
        [(tensor([0]), 1), (tensor([0]), 0)]
        """
        if self.count == 1:
            return x, y, len(y)
        part_y = y.tensor_split(self.count)[self.rank]
        # Data may have read this process's part of the images alone; labels are always whole.
        part_x = x.tensor_split(self.count)[self.rank] if len(x) == len(y) else x
        return (part_x, part_y, len(part_y)) if len(part_y) else (x[:1], y[:1], 0)

    def require_same(self, what: str, value: object) -> None:
        """Raise `ConfigError` where a value that must be equal on all processes is not."""
        values = self.gather(value)
        for rank, other in enumerate(values):
            if other != values[0]:
                raise ConfigError(
                    f"{what} of process {rank} is {other}, that of process 0 {values[0]}; all "
                    "processes must get the same. Make it depend on the seed and the epoch alone."
                )


ALONE = Processes()


def current_processes() -> Processes:
    """Return the processes of torch's default group, or this one alone if there is none."""
    if not (dist.is_available() and dist.is_initialized()):
        return Processes()
    nccl = dist.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")
    return Processes(dist.get_rank(), dist.get_world_size(), device)


def local_device(device: torch.device) -> torch.device:
    """Return the accelerator of this process: the n-th for the n-th process of a machine."""
    number = os.environ.get("LOCAL_RANK")
    if device.type == "cpu" or device.index is not None or number is None:
        return device
    return torch.device(device.type, int(number))


@contextmanager
def process_group(device: str | torch.device = "cpu") -> Iterator[Processes]:
    """Join the processes that ``torchrun`` has started, for the length of a block.

    Parameters
    ----------
    device
        Where this process trains: gloo connects CPUs, NCCL accelerators.

    Yields
    ------
    Processes
        A process on its own if torchrun started none or one.

    Raises
    ------
    ConfigError
        The environment names more than one process but not how to reach them.
    LostProcessError
        Another process has ended, or this one was told to end (SIGTERM), inside the block.

    Examples
    --------
    >>> with process_group() as processes:
    ...     processes.count
    1
    """
    if int(os.environ.get("WORLD_SIZE", "1")) <= 1 or dist.is_initialized():
        yield current_processes()
        return
    missing = [name for name in ENVIRONMENT if name not in os.environ]
    if missing:
        raise ConfigError(
            f"the environment says WORLD_SIZE={os.environ['WORLD_SIZE']} but lacks "
            f"{', '.join(missing)}. Start the processes with torchrun, or unset WORLD_SIZE."
        )
    device = local_device(torch.device(device))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        with ending_on_sigterm(), losses_explained():
            yield current_processes()
    finally:
        dist.destroy_process_group()


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM, which torchrun sends when another process failed, into an error of ours."""

    def end(number: int, frame: FrameType | None) -> None:
        raise LostProcessError(
            "told to end (SIGTERM), most likely because another process of this run has ended."
        )

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def losses_explained() -> Iterator[None]:
    """Turn the error of a broken connection into `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        reason = " ".join(str(error).split())[:200]
        raise LostProcessError(
            f"the connection to another process of this run is broken, most likely because that "
            f"process has ended; its own output says why. ({reason})"
        ) from error


def wrap(model: nn.Module, processes: Processes, *, device: torch.device) -> nn.Module:
    """Average gradients over processes (DDP); buffers, masks among them, are not sent in steps.

    Otherwise DDP would send every mask, a byte a link, before every forward pass, and hide a
    process whose mask is wrong. `take_buffers` settles the other buffers once an epoch.
    """
    if processes.count == 1:
        return model
    devices = None if device.type == "cpu" else [device]
    # Torch 2.13 renames the option, and warns of the old name.
    known = inspect.signature(DistributedDataParallel).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(model, device_ids=devices, **options)


def without_averaging(network: nn.Module) -> AbstractContextManager[Any]:
    """Leave gradients local in a backward pass that is followed by another before the step."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


def connect(controller: object, processes: Processes) -> None:
    """Let process 0 decide the topology, and compare all masks.

    Raises
    ------
    ConfigError
        The controller cannot share decisions.
    """
    if processes.count == 1 or controller is None:
        return
    if not isinstance(controller, SharedController):
        raise ConfigError(
            f"{type(controller).__name__} has no share_decisions method, so {processes.count} "
            "processes would each change the topology on their own. Add the method (see "
            "SharedController), or train on one process."
        )
    controller.share_decisions(processes)


@torch.no_grad()
def take_buffers(model: nn.Module, processes: Processes) -> None:
    """Take process 0's floating-point buffers, such as running means; masks are compared instead.

    Those of batch norms are equal already; a layer of one's own may have seen its share alone.
    """
    for buffer in model.buffers():
        if processes.count > 1 and buffer.is_floating_point():
            sent = buffer.to(processes.device, copy=True).contiguous()
            dist.broadcast(sent, src=0)
            buffer.copy_(sent)


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
def whole_batch_norm(
    model: nn.Module, processes: Processes, counted: int, *, images: int
) -> Iterator[None]:
    """Let every batch norm that uses statistics of a batch see all processes, inside a block.

    Parameters
    ----------
    model
        Its layers are not replaced, and ``SyncBatchNorm`` is left alone.
    processes
        Of one process nothing changes.
    counted
        How many of this process's images count; 0 leaves its one image out of all statistics.
    images
        How many images the whole batch has.
    """
    layers = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm)
    ]
    layers = layers if processes.count > 1 else []
    for layer in layers:
        # An attribute of the instance comes before the method of its class.
        layer.forward = partial(normalise, layer, counts=counted > 0, alone=images == 1)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def normalise(
    layer: _BatchNorm, input: Float[Tensor, "batch chan ..."], *, counts: bool, alone: bool
) -> Tensor:
    """Do what the layer does, with the statistics of all processes where it takes any."""
    if not layer.training and layer.running_mean is not None:
        return type(layer).forward(layer, input)
    x = input
    axes = [0, *range(2, x.dim())]
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    if layer.training and alone and x.numel() == x.shape[1]:
        raise ConfigError(
            "batch norm needs more than one value per channel to train on, and this batch has one "
            "image of one pixel. Leave the last, smaller batch out, or change the batch size."
        )
    seen = values if counts else values[:0]
    count = values.new_full((1,), seen.numel() / x.shape[1])
    total = SumOverProcesses.apply(torch.cat([seen.sum(axes), count]))
    n = total[-1]
    shape = [1, -1, *[1] * (x.dim() - 2)]
    centred = values - (total[:-1] / n).view(shape)
    variance = SumOverProcesses.apply(centred[: len(seen)].square().sum(axes)) / n
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
