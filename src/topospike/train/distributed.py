"""Stage train: everything about several processes; a single one never gets here.

Started by ``torchrun --nproc-per-node N``, every process trains a copy of the model on its share
of each batch, and gradients are averaged (DDP), so N processes do what one does with the whole
batch, up to the order of sums. Process 0 decides the topology and alone writes files. The model
may also be spread over the processes (FSDP2). Which links change is not known here.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from types import FrameType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from topospike.errors import ConfigError, TopospikeError
from topospike.topology import masks_of
from topospike.train.protocols import SharedController

ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TIMEOUT = timedelta(minutes=30)
RANK_STRIDE = 1_000_003
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

    def broadcast(self, message: Tensor) -> Tensor:
        """Return process 0's tensor; the others pass one of the same shape and dtype."""
        if self.count == 1:
            return message
        sent = message.detach().to(self.device, copy=True).contiguous()
        dist.broadcast(sent, src=0)
        return sent.to(message.device)

    def gather(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, of equal shape and dtype, by rank."""
        if self.count == 1:
            return [value]
        own = value.detach().to(self.device).contiguous()
        received = [torch.empty_like(own) for _ in range(self.count)]
        dist.all_gather(received, own)
        return [tensor.to(value.device) for tensor in received]

    def sum(self, value: Tensor) -> Tensor:
        """Return the sum over processes; the same on all of them."""
        return torch.stack(self.gather(value)).sum(0) if self.count > 1 else value

    def wait(self) -> None:
        """Go on when every process has come here."""
        self.gather(torch.zeros(1))

    def everywhere(self, flag: Tensor) -> Tensor:
        """Return whether a flag holds on all processes, without waiting for the answer."""
        if self.count == 1:
            return flag
        holds = flag.to(self.device, torch.float32)
        dist.all_reduce(holds, dist.ReduceOp.MIN)
        return holds.to(flag.device) > 0

    def number_of_main(self, number: int) -> int:
        """Return process 0's whole number."""
        return int(self.broadcast(torch.tensor(number, dtype=torch.int64)))

    def seed(self, seed: int) -> int:
        """Return the seed of this process's generators: different noise on every share."""
        return seed + RANK_STRIDE * self.rank

    def share(
        self, x: Float[Tensor, "part ..."], y: Shaped[Tensor, "batch ..."]
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

    def every_nth(self, batches: Iterator[T]) -> Iterator[T]:
        """Yield this process's turn of whole batches, for evaluation."""
        return islice(batches, self.rank, None, self.count)

    def require_same(self, what: str, value: Tensor) -> None:
        """Raise `ConfigError` where a number that must be equal on all processes is not."""
        if self.count == 1:
            return
        values = [tensor.tolist() for tensor in self.gather(value)]
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
    """Average gradients over processes; masks stay out of DDP's broadcast of buffers.

    Call it after the model has its masks. Without that, DDP would send every mask, a byte a link,
    before every forward pass, and hide a process whose mask is wrong.
    """
    if processes.count == 1:
        return model
    ignored = set(getattr(model, "_ddp_params_and_buffers_to_ignore", ()))
    # This setter of torch replaces what was set before, so names already there are kept by hand.
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(
        model, sorted(ignored | {f"{name}_mask" for name in masks_of(model)})
    )
    on_cpu = device.type == "cpu"
    return DistributedDataParallel(model, device_ids=None if on_cpu else [device])


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
    """Take process 0's buffers (running means and variances), masks excepted, as DDP does."""
    if processes.count == 1:
        return
    masks = {f"{name}_mask" for name in masks_of(model)}
    for name, buffer in model.named_buffers():
        if name not in masks:
            buffer.copy_(processes.broadcast(buffer))


def shard_fully(
    model: nn.Module,
    controller: SharedController | None = None,
    *,
    processes: Processes,
    shard: Callable[[nn.Module], object] | None = None,
) -> nn.Module:
    """Spread the weights of a model over the processes with FSDP2, and its masks alike.

    Parameters
    ----------
    model
        Changed in place; masked already if it is to be sparse. Make the optimizer afterwards.
    controller
        The sparsifier of the model.
    processes
        Every process must call this.
    shard
        Applies ``torch.distributed.fsdp.fully_shard`` to the modules it chooses; the default makes
        the whole model one unit.

    Returns
    -------
    nn.Module
        The model itself, for a loop of one's own; `fit` trains with copies (DDP).
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(processes.device.type, (processes.count,))
    apply = shard if shard is not None else lambda whole: fully_shard(whole, mesh=mesh)
    if controller is None:
        apply(model)
    else:
        controller.shard(apply, peers=processes)
    return model
