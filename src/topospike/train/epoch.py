"""Stage train: one pass over the training batches, and loss and accuracy over any.

A batch is forward (in bf16 if asked), the method's loss, backward; after one
batch, or as many as gradients are accumulated over: mask the gradients, clip, step. The gradient is
always that of the mean over the images of a step, whatever number of batches and processes they
are spread over; layers may run on their links alone (see ``compact``). Sums stay on the device; the
host waits once a batch for one flag, "the loss is finite". Masks change where the controller's
schedule counts steps; one that counts epochs has its turn after the pass.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import islice

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from topospike.contracts import to_json
from topospike.errors import ConfigError, ShapeError
from topospike.modes import evaluating
from topospike.recipe import TrainSettings
from topospike.topology import copy_masks
from topospike.train.compact import EXECUTIONS, CompactLayers
from topospike.train.distributed import ALONE, Processes, whole_batch_norm, without_averaging
from topospike.train.finite import LossGuard, diagnose
from topospike.train.optim import optimizer_steps, set_learning_rate
from topospike.train.resume import Run, Trainee


@dataclass(frozen=True)
class EpochSummary:
    """Means over the answers of one epoch, seen while the weights moved.

    An image has one answer, a text one for every token.

    ``train_loss`` is in the unit of the loss (nats, label smoothing included, for cross-entropy),
    ``train_accuracy`` a fraction, ``learning_rate`` that of the last step; ``compact_layers`` ran
    on their links alone.
    """

    train_loss: float
    train_accuracy: float
    learning_rate: float
    compact_layers: tuple[str, ...] = ()


def train_epoch(
    trainee: Trainee, run: Run, *, epoch: int, advance: Callable[[], None] = lambda: None
) -> EpochSummary:
    """Train on every batch once, in the order of ``epoch``; ``advance`` is called after each step.

    Raises
    ------
    NonFiniteError
        The loss of a batch is NaN or infinite; the weights are still those before the batch.
    ShapeError
        The model does not return one logit per label and class.
    ConfigError
        The data gave another number of batches than their ``len()``; or layers cannot run on their
        links alone, as was asked.
    """
    data, settings, processes = run.data, run.settings, trainee.processes
    batches, start = len(data.train), EXECUTIONS[settings.execution]
    steps = optimizer_steps(settings, batches=batches)
    totals, guard = Totals(trainee.device), LossGuard(trainee.device, processes)
    learning_rate, seen = 0.0, 0
    data.train.set_epoch(epoch)
    if not trainee.model.training:  # in training mode, a module that is in eval mode stays frozen
        trainee.network.train()
    with ExitStack() as stack:
        layers = stack.enter_context(start(trainee.model, trainee.optimizer))
        names = layers.names
        for step, group in enumerate(groups(data.train, settings.accumulate)):
            number, is_last = epoch * steps + step, step == steps - 1
            if step == 0:
                order = int(order_of(group[0][1]))
                processes.require_same("the order of the first training batch", order)
            changes = due(trainee, "step", number)
            if changes or (is_last and due(trainee, "epoch", epoch)):
                layers.leave()  # rules may look at all gradients of the step before an update
            learning_rate = run.method.learning_rate(settings, number, steps_per_epoch=steps)
            set_learning_rate(trainee.optimizer, learning_rate)
            trainee.optimizer.zero_grad()
            backward(trainee, run, group, layers, totals, guard, epoch=epoch, seen=seen)
            seen += len(group)
            descend(trainee, settings, layers)
            if changes:
                change_topology(trainee, run, number)
                layers = stack.enter_context(start(trainee.model, trainee.optimizer))
            advance()
    if seen != batches:
        raise ConfigError(
            f"the training batches announced {batches} (their len()) but gave {seen} in epoch "
            f"{epoch}; the learning-rate schedule needs the two to agree."
        )
    loss, correct, answers = totals.over(processes)
    return EpochSummary(loss / answers, correct / answers, learning_rate, names)


def backward(
    trainee: Trainee,
    run: Run,
    group: list[tuple[Tensor, Tensor]],
    layers: CompactLayers,
    totals: Totals,
    guard: LossGuard,
    *,
    epoch: int,
    seen: int,
) -> None:
    """Compute the gradient of the mean loss over the images of a step's batches."""
    settings, processes, model = run.settings, trainee.processes, trainee.model
    images = sum(len(y) for _, y in group)
    for number, (x, whole) in enumerate(group):
        x, y, counted = processes.share(x, whole)
        x, y = move(x, trainee.device, settings), y.to(trainee.device, non_blocking=True)
        is_last = number == len(group) - 1
        averaging = nullcontext() if is_last else without_averaging(trainee.network)
        with whole_batch_norm(model, processes, counted, images=len(whole)), averaging:
            logits = forward(trainee.network, x, settings)
            check_logits(logits, y, classes=run.data.classes, model=model)
            loss = run.method.loss(logits.float(), y, settings)
            guard.watch(loss)
            (loss * (counted * processes.count / images)).backward()
        if not guard.passed():
            layers.write_weights()
            place = f"epoch {epoch}, step {seen + number}"
            again = partial(forward, model, x, settings)
            raise diagnose(model, x, again, loss=float(loss.detach()), place=place)
        totals.add(logits, y, counted=counted, loss=loss)


def due(trainee: Trainee, unit: str, number: int) -> bool:
    """Say whether the topology changes after this epoch or step, whichever its schedule counts."""
    controller = trainee.sparsifier
    if controller is None or controller.unit != unit:
        return False
    return controller.is_update_epoch(number)


def change_topology(trainee: Trainee, run: Run, number: int) -> None:
    """Let the controller change the topology, and write down what it did and how long it took."""
    assert trainee.sparsifier is not None
    started = time.perf_counter()
    update = trainee.sparsifier.update_topology(number)
    seconds = time.perf_counter() - started
    run.metrics.write("topology_update", {**to_json(update), "seconds": seconds})
    if trainee.average is not None:
        copy_masks(trainee.model, trainee.average)
    if run.after_update is not None:
        run.after_update(update)


class Totals:
    """Sums over the answers of this process, on the device: reading a number would make it wait."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.answers = 0

    def add(self, logits: Tensor, y: Tensor, *, counted: int, loss: Tensor) -> None:
        """Take up a batch and its mean loss; the first ``counted`` images or texts count."""
        answers = class_numbers(y[:counted]).numel()
        self.correct += count_correct(logits[:counted], y[:counted]).to(self.correct.device)
        self.loss += loss.detach().double() * answers
        self.answers += answers

    def over(self, processes: Processes) -> list[float]:
        """Return loss, correct answers and answers of all processes."""
        own = [float(self.loss), float(self.correct), float(self.answers)]
        return processes.sum(torch.tensor(own, dtype=torch.float64)).tolist()


def groups(
    batches: Iterable[tuple[Tensor, Tensor]], size: int
) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Yield the batches of each optimizer step; the last step may have fewer."""
    rest = iter(batches)
    while group := list(islice(rest, size)):
        yield group


def order_of(labels: Tensor) -> Tensor:
    """Compute a number that changes when labels change places."""
    classes = class_numbers(labels).flatten()
    return (classes * torch.arange(1, len(classes) + 1, device=labels.device)).sum()


def move(x: Tensor, device: torch.device, settings: TrainSettings) -> Tensor:
    """Bring images to the device, in channels-last order if asked."""
    if settings.channels_last and x.dim() == 4:
        return x.to(device, non_blocking=True, memory_format=torch.channels_last)
    return x.to(device, non_blocking=True)


def forward(model: nn.Module, x: Tensor, settings: TrainSettings) -> Tensor:
    """Compute the logits, under bf16 autocast if asked."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        return model(x)


def descend(trainee: Trainee, settings: TrainSettings, layers: CompactLayers) -> None:
    """Clip the gradients if asked, take one optimizer step, and average the weights if asked.

    Absent links get gradients too. The controller's pre-step hook zeroes them in any case; before
    clipping they must be gone already, or they would count in the norm.
    """
    layers.check_step()
    if settings.gradient_clip is not None:
        if trainee.sparsifier is not None:
            trainee.sparsifier.mask_gradients()
        nn.utils.clip_grad_norm_(trained_parameters(trainee), settings.gradient_clip)
    trainee.optimizer.step()
    if trainee.average is not None:
        layers.write_weights()
        trainee.average.update_parameters(trainee.model)


def trained_parameters(trainee: Trainee) -> list[Tensor]:
    """Return what the optimizer holds at this moment: weights, or the links of compact layers."""
    return [p for group in trainee.optimizer.param_groups for p in group["params"]]


@dataclass(frozen=True)
class Score:
    """Mean loss over the answers to some batches, and the share of right ones."""

    loss: float
    accuracy: float


def evaluate_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    processes: Processes = ALONE,
) -> float:
    """Compute the share of images, or of tokens, whose largest logit is the label's.

    Parameters
    ----------
    model
        Maps ``(batch, chan, height, width)`` to logits ``(batch, classes)``, or tokens
        ``(batch, token)`` to ``(batch, token, classes)``. Evaluated in eval mode, on the device of
        its first parameter; every module gets its own mode back.
    batches
        Pairs of images and int64 labels ``(batch,)``, or of tokens and labels ``(batch, token)``.
    processes
        Share every batch, the same ones on every process, and add up their counts.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    ConfigError
        There is no image.
    ShapeError
        The model does not return one row of logits per label.

    Examples
    --------
    >>> import torch
    >>> images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]])
    >>> evaluate_accuracy(torch.nn.Identity(), [(images, torch.tensor([0, 1, 1]))])
    0.6666666666666666
    """
    return score(model, batches, lambda logits, y: logits.new_zeros(()), processes).accuracy


def score(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    loss: Callable[[Tensor, Tensor], Tensor],
    processes: Processes = ALONE,
) -> Score:
    """Compute accuracy, as `evaluate_accuracy` does, and the mean of a loss (logits, labels)."""
    device = next((parameter.device for parameter in model.parameters()), None)
    totals = Totals(torch.device("cpu") if device is None else device)
    with evaluating(model), torch.no_grad():
        for x, whole in batches:
            x, y, counted = processes.share(x, whole)
            x, y = (t.to(device or t.device, non_blocking=True) for t in (x, y))
            with whole_batch_norm(model, processes, counted, images=len(whole)):
                logits = model(x)
            check_logits(logits, y, classes=None, model=model)
            totals.add(logits, y, counted=counted, loss=loss(logits.float(), y))
    total, correct, answers = totals.over(processes)
    if answers == 0:
        raise ConfigError("there are no images to evaluate on: give at least one batch.")
    return Score(total / answers, correct / answers)


def count_correct(logits: Float[Tensor, "*answers classes"], labels: Tensor) -> Int[Tensor, ""]:
    """Count the labels that have the largest logit, on the device."""
    return (logits.detach().argmax(dim=-1) == class_numbers(labels)).sum()


def class_numbers(labels: Tensor) -> Int[Tensor, "*answers"]:
    """Return the class of every label; of probabilities of classes, the most probable one."""
    return labels.argmax(dim=-1) if labels.is_floating_point() else labels


def check_logits(logits: object, labels: Tensor, *, classes: int | None, model: nn.Module) -> None:
    """Refuse an output that is not one logit per label and class, of any number if ``None``.

    Raises
    ------
    ShapeError
        Says what came out and what was needed.
    """
    name, answers = type(model).__name__, tuple(class_numbers(labels).shape)
    wanted = f"({', '.join(map(str, answers))}, {classes or 'classes'})"
    if not isinstance(logits, Tensor):
        raise ShapeError(
            f"{name} returned a {type(logits).__name__}; the logits are needed as a tensor of "
            f"shape {wanted}. Wrap the model so that it returns them."
        )
    fits = logits.ndim == len(answers) + 1 and tuple(logits.shape[:-1]) == answers
    if not fits or classes not in (None, logits.shape[-1]):
        kind = "images" if len(answers) == 1 else "texts"
        raise ShapeError(
            f"{name} returned shape {tuple(logits.shape)} for {len(labels)} {kind}; it must be "
            f"{wanted}. Build the model with as many classes as the data have."
        )
