"""Stage train: what a checkpoint of a training run holds, and how a run takes it up again.

Weights, buffers and masks (the model's state), optimizer slots, the topology controller's state,
the average of the weights, torch's generators in every process, the record of the run so far, and
the length of the metrics file. Together they fix every later number, bit for bit, on the same kind
of machine, torch build and number of threads and processes (on CUDA only with
``torch.use_deterministic_algorithms``). A run may only be resumed with the settings it began with:
schedules depend on them, the number of epochs included.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from topospike.errors import CheckpointError
from topospike.recipe import TrainSettings
from topospike.train.average import WeightAverage
from topospike.train.checkpoint import CheckpointWarning, LoadedCheckpoint
from topospike.train.distributed import Processes
from topospike.train.protocols import TopologyController, TrainingData

# Settings that change no number of the run.
FREE_SETTINGS = ("checkpoint_every",)


@dataclass(frozen=True)
class Trainee:
    """The objects whose state a run changes, and where they live.

    ``network`` is what is called in training: the model itself, or what averages its gradients
    over processes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    sparsifier: TopologyController | None
    device: torch.device
    network: nn.Module
    average: WeightAverage | None
    processes: Processes


@dataclass(frozen=True)
class History:
    """The run so far; accuracies are fractions, ``None`` without validation images."""

    epochs: int = 0
    train_loss: float = float("nan")
    validation_accuracy: float | None = None
    best_epoch: int | None = None
    best_validation_accuracy: float | None = None
    seconds: float = 0.0

    def after_epoch(
        self, *, train_loss: float, validation_accuracy: float | None, seconds: float
    ) -> History:
        """Return the history with one more epoch; of equal accuracies the earlier one is best."""
        best, best_epoch = self.best_validation_accuracy, self.best_epoch
        if validation_accuracy is not None and (best is None or validation_accuracy > best):
            best, best_epoch = validation_accuracy, self.epochs
        return History(
            self.epochs + 1,
            train_loss,
            validation_accuracy,
            best_epoch,
            best,
            self.seconds + seconds,
        )


def identity_of(
    settings: TrainSettings,
    data: TrainingData,
    *,
    seed: int,
    sparsifier: TopologyController | None,
) -> dict[str, Any]:
    """Collect what must be the same before and after an interruption, as plain values."""
    fields = dataclasses.asdict(settings)
    return {
        **{name: value for name, value in fields.items() if name not in FREE_SETTINGS},
        "seed": seed,
        "classes": data.classes,
        "batches per epoch": len(data.train),
        "topology controller": "none" if sparsifier is None else type(sparsifier).__name__,
    }


def snapshot(
    trainee: Trainee, history: History, *, identity: Mapping[str, Any], metrics_offset: int
) -> dict[str, Any]:
    """Collect the payload of a checkpoint (references, not copies), on every process."""
    sparsifier, average = trainee.sparsifier, trainee.average
    return {
        "identity": dict(identity),
        "history": dataclasses.asdict(history),
        "metrics_offset": metrics_offset,
        "model": trainee.model.state_dict(),
        "optimizer": trainee.optimizer.state_dict(),
        "sparsifier": None if sparsifier is None else sparsifier.state_dict(),
        "average": None if average is None else average.state_dict(),
        "generators": generator_states(trainee),
        "platform": platform_of(trainee.device, trainee.processes),
    }


def generator_states(trainee: Trainee) -> list[dict[str, torch.Tensor]]:
    """Collect the states of torch's global generators, by process."""
    states = {"cpu": torch.get_rng_state()}
    if trainee.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(trainee.device)
    gathered = {name: trainee.processes.gather(state) for name, state in states.items()}
    return [dict(zip(gathered, row, strict=True)) for row in zip(*gathered.values(), strict=True)]


def restore_generators(trainee: Trainee, stored: list[dict[str, torch.Tensor]]) -> None:
    """Put this process's generators where they were; one without a state keeps its seed."""
    if trainee.processes.rank >= len(stored):
        return
    states = stored[trainee.processes.rank]
    torch.set_rng_state(states["cpu"])
    if trainee.device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], trainee.device)


def restore(
    trainee: Trainee, loaded: LoadedCheckpoint, *, identity: Mapping[str, Any]
) -> tuple[History, int]:
    """Put a checkpoint's state into the trainee: model, optimizer, controller, generators.

    Returns
    -------
    tuple of History and int
        The run so far, and the length of the metrics file at that time.

    Raises
    ------
    CheckpointError
        The checkpoint is of a run with other settings, or of another model.
    """
    payload, path = loaded.payload, loaded.path
    check_identity(payload["identity"], identity, path)
    try:
        trainee.model.load_state_dict(payload["model"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"checkpoint {path} belongs to another model: {reason} Build the model (and its masks) "
            "as in the interrupted run, or start over with resume=False."
        ) from error
    trainee.optimizer.load_state_dict(payload["optimizer"])
    match_memory_format(trainee.optimizer)
    if trainee.sparsifier is not None:
        trainee.sparsifier.load_state_dict(payload["sparsifier"])
    if trainee.average is not None:
        trainee.average.load_state_dict(payload["average"])
    restore_generators(trainee, payload["generators"])
    warn_if_moved(payload["platform"], platform_of(trainee.device, trainee.processes), path)
    return History(**payload["history"]), payload["metrics_offset"]


def check_identity(stored: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    """Refuse to resume a run under other settings, naming each field that differs.

    A field that did not exist when the checkpoint was written counts as its default, which is what
    was done before there was a choice.
    """
    stored = {**dataclasses.asdict(TrainSettings()), **stored}
    differences = [
        f"{name} was {stored.get(name)!r} and is now {current.get(name)!r}"
        for name in current
        if stored.get(name) != current[name]
    ]
    if differences:
        raise CheckpointError(
            f"checkpoint {path} was written with other settings: {'; '.join(differences)}. The "
            "schedules depend on them, so the run cannot go on: use the old values, another "
            "folder, or resume=False to start over."
        )


def match_memory_format(optimizer: torch.optim.Optimizer) -> None:
    """Lay out same-shaped slots as their parameters (channels-last survives no file)."""
    for parameter, slots in optimizer.state.items():
        for name, slot in slots.items():
            if (
                isinstance(slot, torch.Tensor)
                and slot.shape == parameter.shape
                and slot.stride() != parameter.stride()
            ):
                slots[name] = torch.empty_like(parameter, dtype=slot.dtype).copy_(slot)


def platform_of(device: torch.device, processes: Processes) -> dict[str, Any]:
    """Collect what the order of floating-point sums depends on."""
    return {
        "torch": torch.__version__,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "processes": processes.count,
    }


def warn_if_moved(stored: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    """Warn once when the run goes on where sums are rounded in another order."""
    moved = [
        f"{name} {stored[name]!r} -> {current[name]!r}"
        for name in stored
        if stored[name] != current[name]
    ]
    if moved:
        warnings.warn(
            f"checkpoint {path} was written under other conditions ({', '.join(moved)}): the run "
            "goes on, but not bit for bit as it would have.",
            CheckpointWarning,
            stacklevel=5,
        )


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators inside the block and give the caller's back after it."""
    devices = []
    if device.type == "cuda":
        devices.append(torch.cuda.current_device() if device.index is None else device.index)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield
