"""Stage train: what a run writes down, and how it takes it up again.

A checkpoint holds weights, buffers and masks (the model's state), optimizer slots, the topology
controller's state, the average of the weights, torch's generators in every process, the record of
the run so far, and the length of the metrics file. Together they fix every later number, bit for
bit, on the same kind of machine, torch build and number of threads and processes (on CUDA only with
``torch.use_deterministic_algorithms``). A run may only be resumed with the settings, the method and
the data it began with: schedules depend on them, the number of epochs included.
"""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from topospike.contracts import TopologyUpdate
from topospike.errors import CheckpointError
from topospike.recipe import TrainSettings
from topospike.train.checkpoint import CheckpointWarning, LoadedCheckpoint
from topospike.train.distributed import Processes
from topospike.train.optim import TrainingMethod
from topospike.train.protocols import TopologyController, TrainingData

# Settings that change no number of the run.
FREE_SETTINGS = ("checkpoint_every",)
# Differences that a message names.
NAMED = 6


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
    average: AveragedModel | None
    processes: Processes


@dataclass(frozen=True)
class FitResult:
    """What a training run was, or has been so far.

    Attributes
    ----------
    epochs
        Epochs trained, those before an interruption included.
    train_loss
        Mean loss over the answers of the last epoch (in nats for cross-entropy).
    validation_accuracy, validation_loss
        Of the last epoch's weights; ``None`` without validation images. Accuracy is in [0, 1], the
        loss without label smoothing; its exponential is the perplexity of a language model.
    best_epoch, best_validation_accuracy, best_validation_loss
        The first epoch (from 0) with the highest accuracy, or lowest loss if the method is judged
        by it, and what it reached; its weights are not kept.
    seconds
        Time spent in epochs, those before an interruption included.
    folder
        The run's folder, once it has finished.
    """

    epochs: int = 0
    train_loss: float = float("nan")
    validation_accuracy: float | None = None
    best_epoch: int | None = None
    best_validation_accuracy: float | None = None
    seconds: float = 0.0
    folder: Path | None = None
    validation_loss: float | None = None
    best_validation_loss: float | None = None

    def after_epoch(
        self,
        *,
        train_loss: float,
        validation_accuracy: float | None,
        seconds: float,
        validation_loss: float | None = None,
        best: Literal["accuracy", "loss"] = "accuracy",
    ) -> FitResult:
        """Return the history with one more epoch; of equally good epochs the earlier is best."""
        history = dataclasses.replace(
            self,
            epochs=self.epochs + 1,
            train_loss=train_loss,
            validation_accuracy=validation_accuracy,
            validation_loss=validation_loss,
            seconds=self.seconds + seconds,
        )
        if not self.is_beaten_by(validation_accuracy, validation_loss, best):
            return history
        return dataclasses.replace(
            history,
            best_epoch=self.epochs,
            best_validation_accuracy=validation_accuracy,
            best_validation_loss=validation_loss,
        )

    def is_beaten_by(
        self, accuracy: float | None, loss: float | None, best: Literal["accuracy", "loss"]
    ) -> bool:
        """Say whether an epoch is better than the best so far."""
        if best == "accuracy":
            known = self.best_validation_accuracy
            return accuracy is not None and (known is None or accuracy > known)
        known = self.best_validation_loss
        return loss is not None and (known is None or loss < known)


class MetricsLog:
    """``metrics.jsonl``: one JSON object a line, on disk before `write` returns.

    The length of the file goes into every checkpoint; a resumed run cuts the file back to it, so
    the epochs it trains again appear once. Without a path nothing is written.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def offset(self) -> int:
        """Length of the file in bytes."""
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def write(self, kind: str, record: Mapping[str, Any]) -> None:
        """Append ``{"kind": kind, **record}``; NaN and infinity are not JSON and are refused."""
        if self.path is None:
            return
        line = json.dumps({"kind": kind, **record}, allow_nan=False) + "\n"
        with self.path.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def truncate(self, offset: int) -> None:
        """Cut the file back to ``offset`` bytes.

        Raises
        ------
        CheckpointError
            The file is shorter than that: it is not the one the checkpoint was written with.
        """
        if self.path is not None and self.offset < offset:
            raise CheckpointError(
                f"{self.path} has {self.offset} bytes, but the checkpoint was written when it had "
                f"{offset}. Restore the file, or start over with resume=False."
            )
        if self.path is not None and self.path.exists():
            os.truncate(self.path, offset)


@dataclass(frozen=True)
class Run:
    """What stays the same during a run: data, settings, and where it is written down."""

    data: TrainingData
    settings: TrainSettings
    folder: Path | None
    metrics: MetricsLog
    label: str
    method: TrainingMethod
    after_update: Callable[[TopologyUpdate], None] | None
    identity: Mapping[str, Any]


def identity_of(
    model: nn.Module,
    settings: TrainSettings,
    data: TrainingData,
    method: TrainingMethod,
    *,
    seed: int,
    sparsifier: TopologyController | None,
) -> dict[str, Any]:
    """Collect what must be the same before and after an interruption, as JSON values."""
    identity = {
        **{k: v for k, v in dataclasses.asdict(settings).items() if k not in FREE_SETTINGS},
        "seed": seed,
        "classes": data.classes,
        "batches per epoch": len(data.train),
        "topology controller": "none" if sparsifier is None else type(sparsifier).__name__,
        **getattr(data, "identity", {}),
        **{f"method.{name}": value for name, value in method.identity.items()},
        **{f"module {name!r}": type(module).__name__ for name, module in model.named_modules()},
    }
    return json.loads(json.dumps(identity))


def check_identity(stored: Mapping[str, Any], current: Mapping[str, Any], path: Path) -> None:
    """Refuse to go on with a run of something else, naming each entry that differs."""
    missing = "not there"
    differences = [
        f"{name} was {stored.get(name, missing)!r} and is now {current.get(name, missing)!r}"
        for name in {**stored, **current}
        if stored.get(name, missing) != current.get(name, missing)
    ]
    if differences:
        more = f" ({len(differences) - NAMED} more)" if len(differences) > NAMED else ""
        raise CheckpointError(
            f"checkpoint {path} is of another run: {'; '.join(differences[:NAMED])}{more}. The "
            "numbers depend on them, so the run cannot go on: use the old values, another folder, "
            "or resume=False to start over."
        )


def snapshot(
    trainee: Trainee, history: FitResult, *, identity: Mapping[str, Any], metrics_offset: int
) -> dict[str, Any]:
    """Collect the payload of a checkpoint (references, not copies), on every process."""
    sparsifier, average = trainee.sparsifier, trainee.average
    optimizer = trainee.optimizer.state_dict()
    slots = {str(number): slots for number, slots in optimizer["state"].items()}
    generators = {"cpu": torch.get_rng_state()}
    if trainee.device.type == "cuda":
        generators["cuda"] = torch.cuda.get_rng_state(trainee.device)
    return {
        "identity": identity,
        "history": dataclasses.asdict(history),
        "metrics_offset": metrics_offset,
        "model": trainee.model.state_dict(),
        "optimizer": {**optimizer, "state": slots},
        "sparsifier": None if sparsifier is None else sparsifier.state_dict(),
        "average": None if average is None else average.state_dict(),
        "generators": trainee.processes.gather(generators),
        "platform": platform_of(trainee),
    }


def restore(
    trainee: Trainee, loaded: LoadedCheckpoint, *, identity: Mapping[str, Any]
) -> tuple[FitResult, int]:
    """Put a checkpoint's state into the trainee: model, optimizer, controller, generators.

    Returns
    -------
    tuple of FitResult and int
        The run so far, and the length of the metrics file at that time.

    Raises
    ------
    CheckpointError
        The checkpoint is of another run, or of another model.
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
    optimizer = payload["optimizer"]
    slots = {int(number): slots for number, slots in optimizer["state"].items()}
    trainee.optimizer.load_state_dict({**optimizer, "state": slots})
    match_memory_format(trainee.optimizer)
    if trainee.sparsifier is not None:
        trainee.sparsifier.load_state_dict(payload["sparsifier"])
    if trainee.average is not None:
        trainee.average.load_state_dict(payload["average"])
    # A process that had no part in the run before keeps its seed.
    for states in payload["generators"][trainee.processes.rank :][:1]:
        torch.set_rng_state(states["cpu"])
        if trainee.device.type == "cuda" and "cuda" in states:
            torch.cuda.set_rng_state(states["cuda"], trainee.device)
    warn_if_moved(payload["platform"], platform_of(trainee), path)
    return FitResult(**payload["history"]), payload["metrics_offset"]


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


def platform_of(trainee: Trainee) -> dict[str, Any]:
    """Collect what the order of floating-point sums depends on."""
    return {
        "torch": torch.__version__,
        "device": trainee.device.type,
        "threads": torch.get_num_threads(),
        "processes": trainee.processes.count,
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
