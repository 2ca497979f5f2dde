"""Stage train: one readable loop from a model and its data to trained weights.

After the batches of an epoch: the topology update if the controller wants one, validation, a line
of metrics, a checkpoint. The weights of the last epoch (or their average) are the result; the test
split is never read. The loop knows nothing about rules, scores or masks beyond the controller's
protocol, and of several processes only that each calls the same things and the main one writes.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from topospike.contracts import TopologyUpdate
from topospike.errors import CheckpointError, ConfigError, NonFiniteError
from topospike.progress import progress
from topospike.recipe import TrainSettings
from topospike.train.checkpoint import (
    LoadedCheckpoint,
    clear_checkpoints,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    save_checkpoint,
)
from topospike.train.compact import check_execution
from topospike.train.distributed import (
    LostProcessError,
    Processes,
    connect,
    current_processes,
    losses_explained,
    take_buffers,
    wrap,
)
from topospike.train.epoch import Score, change_topology, due, score, train_epoch
from topospike.train.finite import check_weights
from topospike.train.optim import (
    CLASSIFICATION,
    SCHEDULES,
    TrainingMethod,
    optimizer_steps,
    weight_average,
)
from topospike.train.protocols import TopologyController, TrainingData
from topospike.train.resume import (
    FitResult,
    MetricsLog,
    Run,
    Trainee,
    identity_of,
    restore,
    seeded,
    snapshot,
)

logger = logging.getLogger(__name__)


def fit(
    model: nn.Module,
    data: TrainingData,
    settings: TrainSettings,
    *,
    folder: str | Path | None,
    seed: int,
    sparsifier: TopologyController | None = None,
    device: str | torch.device = "cpu",
    resume: bool = True,
    label: str = "",
    method: TrainingMethod = CLASSIFICATION,
    after_update: Callable[[TopologyUpdate], None] | None = None,
) -> FitResult:
    """Train a model in place, sparse if a topology controller is given.

    Parameters
    ----------
    model
        Maps ``(batch, chan, height, width)`` to logits ``(batch, classes)``, or tokens ``(batch,
        token)`` to ``(batch, token, classes)``; moved to ``device``, left in eval mode. In a model
        in training mode, a part in eval mode (a frozen batch norm) stays so. With ``ema_decay`` it
        ends with the averaged weights.
    data
        Train and validation batches, number of classes; with an ``identity`` if other data are to
        be told from these when a run is resumed.
    settings
        Optimizer, schedule, precision, checkpoint interval.
    folder
        Gets ``metrics.jsonl`` and ``checkpoint/``; ``None`` writes nothing.
    seed
        Of torch's global generator during training (dropout); the caller's state comes back.
    sparsifier
        Owns the masks of this very model; it is attached to the optimizer made here.
    device
        Where to train.
    resume
        Go on from the newest checkpoint in ``folder`` if there is one. ``False`` deletes the
        checkpoints and metrics there.
    label
        Shown beside the progress bar and in the log.
    method
        Loss, optimizer and learning rate; by default cross-entropy, SGD and a schedule by step.
    after_update
        Called in every process with the record of each topology update, the new links in place.
        Updates after the checkpoint that a run goes on from are made, and told, again.

    Returns
    -------
    FitResult
        Of the whole run; a run already complete is loaded, not trained again.

    Raises
    ------
    ConfigError
        Settings that cannot be trained with, no training batches, or a topology controller planned
        for another number of epochs or for steps.
    ShapeError
        The model does not return one logit per label and class.
    NonFiniteError
        The loss or a weight became NaN or infinite; names the layer, the epoch and the step. The
        last checkpoint stays.
    CheckpointError
        The checkpoint is damaged, or of a run with another method, other settings, data or model.
    LostProcessError
        Another process of a run on several has ended. The last checkpoint stays.

    Notes
    -----
    Inside a process group (`topospike.train.process_group`, ``torchrun``) every process calls this
    with an equal model, controller and data; each takes its part of every batch. Batch norm sees
    the whole batch, so the run is that of one process up to the order of sums, dropout's noise
    apart.

    A resumed run equals an uninterrupted one bit for bit (see ``resume``). Unlike the reference
    code of Zhang et al. (2025), no optimizer step is skipped when the topology changes, and no
    epoch is chosen by its test accuracy.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> class Batches(list):
    ...     def set_epoch(self, epoch):
    ...         pass
    >>> batches = Batches([(torch.eye(2), torch.tensor([0, 1]))])
    >>> data = SimpleNamespace(train=batches, validation=batches, classes=2)
    >>> settings = TrainSettings(epochs=40, learning_rate=0.5)
    >>> fit(nn.Linear(2, 2), data, settings, folder=None, seed=0).validation_accuracy
    1.0
    """
    _ = SCHEDULES[settings.schedule]
    batches = len(data.train)
    if batches == 0:
        raise ConfigError("there are no training batches: the training split is empty.")
    if sparsifier is not None:
        steps = optimizer_steps(settings, batches=batches)
        sparsifier.check_schedule(settings.epochs, steps)
    device, processes = torch.device(device), current_processes()
    folder = None if folder is None else Path(folder)
    metrics = MetricsLog(
        folder / "metrics.jsonl" if folder is not None and processes.is_main else None
    )
    identity = identity_of(model, settings, data, method, seed=seed, sparsifier=sparsifier)
    run = Run(data, settings, folder, metrics, label, method, after_update, identity)
    try:
        with losses_explained(), seeded(processes.seed(seed), device):
            trainee = prepare(model, run, sparsifier, device=device, processes=processes)
            result = train(trainee, run, begin(trainee, run, resume=resume))
    except (KeyboardInterrupt, NonFiniteError, LostProcessError) as stop:
        stop.add_note(how_to_go_on(stop, folder))
        raise
    if trainee.average is not None:
        model.load_state_dict(trainee.average.module.state_dict())
    model.eval()
    return dataclasses.replace(result, folder=folder)


def train(trainee: Trainee, run: Run, history: FitResult) -> FitResult:
    """Train the epochs that are left, each with its record and, when due, its checkpoint."""
    epochs = run.settings.epochs
    steps = optimizer_steps(run.settings, batches=len(run.data.train))
    with progress(
        run.label or "training",
        total=epochs * steps,
        done=history.epochs * steps,
        unit="steps",
        shown=trainee.processes.is_main,
    ) as advance:
        while history.epochs < epochs:
            history = train_and_record(trainee, run, history, advance=advance)
            logger.info("%s: %s", run.label or "training", history)
            due = history.epochs % run.settings.checkpoint_every == 0 or history.epochs == epochs
            if run.folder is not None and due:
                payload = snapshot(
                    trainee, history, identity=run.identity, metrics_offset=run.metrics.offset
                )
                if trainee.processes.is_main:
                    save_checkpoint(run.folder / "checkpoint", history.epochs, payload)
    return history


def train_and_record(
    trainee: Trainee, run: Run, history: FitResult, *, advance: Callable[[], None]
) -> FitResult:
    """Train one epoch, update the topology, validate, and write the metrics."""
    started = time.perf_counter()
    epoch = history.epochs
    summary = train_epoch(trainee, run, epoch=epoch, advance=advance)
    check_weights(trainee.model, epoch=epoch)
    settle_buffers(trainee)
    if due(trainee, "epoch", epoch):
        change_topology(trainee, run, epoch)
    found = validate(trainee, run)
    seconds = time.perf_counter() - started
    history = history.after_epoch(
        train_loss=summary.train_loss,
        validation_accuracy=None if found is None else found.accuracy,
        validation_loss=None if found is None else found.loss,
        seconds=seconds,
        best=run.method.best,
    )
    judged = "validation_accuracy", "validation_loss"
    best = "best_epoch", "best_validation_accuracy", "best_validation_loss"
    record = {
        "epoch": epoch,
        **dataclasses.asdict(summary),
        **{name: getattr(history, name) for name in (*judged, *best)},
        "seconds": seconds,
    }
    run.metrics.write("epoch", record)
    return history


def settle_buffers(trainee: Trainee) -> None:
    """Let all processes have process 0's buffers; the last step may have left each its own."""
    take_buffers(trainee.model, trainee.processes)
    if trainee.average is not None:
        take_buffers(trainee.average.module, trainee.processes)


def validate(trainee: Trainee, run: Run) -> Score | None:
    """Measure accuracy and loss of validation, of the averaged weights if there are any."""
    if len(run.data.validation) == 0:
        return None
    model = trainee.model if trainee.average is None else trainee.average.module
    plain = dataclasses.replace(run.settings, label_smoothing=0.0)
    return score(
        model,
        run.data.validation,
        lambda logits, y: run.method.loss(logits, y, plain),
        trainee.processes,
    )


def prepare(
    model: nn.Module,
    run: Run,
    sparsifier: TopologyController | None,
    *,
    device: torch.device,
    processes: Processes,
) -> Trainee:
    """Move the model, make its optimizer, attach the controller and join the processes.

    Moving replaces buffers, masks among them, so the controller must look them up afterwards.
    """
    settings = run.settings
    model.to(device)
    if settings.channels_last:
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = run.method.optimizer(model, settings)
    check_execution(settings.execution, model, processes=processes.count)
    if sparsifier is not None:
        sparsifier.attach(optimizer)
    connect(sparsifier, processes)
    network = wrap(model, processes, device=device)
    average = weight_average(model, settings.ema_decay) if settings.ema_decay else None
    return Trainee(model, optimizer, sparsifier, device, network, average, processes)


def begin(trainee: Trainee, run: Run, *, resume: bool) -> FitResult:
    """Take up the newest checkpoint, or start with an empty metrics file."""
    if run.folder is None:
        return FitResult()
    run.folder.mkdir(parents=True, exist_ok=True)
    checkpoints = run.folder / "checkpoint"
    loaded = newest(checkpoints, trainee.processes, resume=resume)
    if loaded is None:
        run.metrics.truncate(0)
        return FitResult()
    history, offset = restore(trainee, loaded, identity=run.identity)
    run.metrics.truncate(offset)
    for complaint in loaded.complaints:
        run.metrics.write("warning", {"message": complaint, "resumed_from": loaded.path.name})
    logger.info("%s: going on after %d epochs", run.label or "training", history.epochs)
    return history


def newest(folder: Path, processes: Processes, *, resume: bool) -> LoadedCheckpoint | None:
    """Load the newest checkpoint; with several processes, the one that process 0 has chosen."""
    loaded = None
    if processes.is_main:
        if not resume:
            clear_checkpoints(folder)
        loaded = load_latest(folder)
    number = processes.broadcast(None if loaded is None else loaded.number)
    if processes.is_main or number is None:
        return loaded
    path = dict(list_checkpoints(folder)).get(number)
    if path is None:
        raise CheckpointError(
            f"process {processes.rank} does not find the checkpoint after {number} epochs in "
            f"{folder}, which process 0 goes on from. All processes must see the same folder."
        )
    return LoadedCheckpoint(path, number, load_checkpoint(path))


def how_to_go_on(stop: BaseException, folder: Path | None) -> str:
    """Say what is on disk after an interrupted or failed run, and what to do with it."""
    saved = [] if folder is None else list_checkpoints(folder / "checkpoint")
    if not saved:
        return "Training stopped before the first checkpoint; nothing was saved."
    number, path = saved[-1]
    kept = f"Training stopped; the checkpoint after {number} epochs is intact in {path}."
    if isinstance(stop, NonFiniteError):
        return f"{kept} Other settings need another folder, or resume=False."
    return f"{kept} Run the same command again to go on from there."
