"""Stage train: one pass over the training batches.

A batch is forward (in bf16 if asked), cross-entropy with label smoothing, backward, mask the
gradients, clip, step. Sums stay on the device; the host waits once a step for one flag, "the loss
is finite". It changes no mask and writes no file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from topospike.errors import ConfigError
from topospike.recipe import TrainSettings
from topospike.train.evaluation import check_logits, count_correct
from topospike.train.finite import LossGuard, diagnose
from topospike.train.optim import learning_rate_at, set_learning_rate
from topospike.train.protocols import TrainingData
from topospike.train.resume import Trainee


@dataclass(frozen=True)
class EpochSummary:
    """Means over the images of one epoch, seen while the weights moved.

    ``train_loss`` is in nats (label smoothing included), ``train_accuracy`` a fraction,
    ``learning_rate`` that of the last step.
    """

    train_loss: float
    train_accuracy: float
    learning_rate: float


def train_epoch(
    trainee: Trainee,
    data: TrainingData,
    settings: TrainSettings,
    *,
    epoch: int,
    advance: Callable[[], None] = lambda: None,
) -> EpochSummary:
    """Train on every batch once.

    Parameters
    ----------
    trainee
        Model, optimizer, topology controller and device.
    data
        Its ``train`` batches are gone through in the order of ``epoch``.
    settings
        Loss, precision, clipping and learning rate.
    epoch
        Counted from 0.
    advance
        Called after each step.

    Raises
    ------
    NonFiniteError
        The loss of a batch is NaN or infinite; the weights are still those before the batch.
    ShapeError
        The model does not return one logit per image and class.
    ConfigError
        The data gave another number of batches than their ``len()``.
    """
    model, device = trainee.model, trainee.device
    steps = len(data.train)
    guard = LossGuard(device)
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    correct = torch.zeros((), dtype=torch.int64, device=device)
    images = learning_rate = step = 0
    data.train.set_epoch(epoch)
    model.train()
    for step, (x, y) in enumerate(data.train, start=1):
        learning_rate = learning_rate_at(settings, epoch * steps + step - 1, steps_per_epoch=steps)
        set_learning_rate(trainee.optimizer, learning_rate)
        x, y = move(x, device, settings), y.to(device, non_blocking=True)
        logits = forward(model, x, settings)
        check_logits(logits, batch=len(y), classes=data.classes, model=model)
        loss = F.cross_entropy(logits.float(), y, label_smoothing=settings.label_smoothing)
        guard.watch(loss)
        trainee.optimizer.zero_grad()
        loss.backward()
        if not guard.passed():
            raise diagnose(
                model,
                x,
                lambda x=x: forward(model, x, settings),
                loss=float(loss.detach()),
                epoch=epoch,
                step=step - 1,
            )
        descend(trainee, settings)
        loss_sum += loss.detach().double() * len(y)
        correct += count_correct(logits, y)
        images += len(y)
        advance()
    if step != steps:
        raise ConfigError(
            f"the training batches announced {steps} (their len()) but gave {step} in epoch "
            f"{epoch}; the learning-rate schedule needs the two to agree."
        )
    return EpochSummary(float(loss_sum) / images, int(correct) / images, learning_rate)


def move(x: Tensor, device: torch.device, settings: TrainSettings) -> Tensor:
    """Bring images to the device, in channels-last order if asked."""
    if settings.channels_last and x.dim() == 4:
        return x.to(device, non_blocking=True, memory_format=torch.channels_last)
    return x.to(device, non_blocking=True)


def forward(model: nn.Module, x: Tensor, settings: TrainSettings) -> Tensor:
    """Compute the logits, under bf16 autocast if asked."""
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
        return model(x)


def descend(trainee: Trainee, settings: TrainSettings) -> None:
    """Clip the gradients if asked and take one optimizer step.

    Absent links get gradients too. The controller's pre-step hook zeroes them in any case; before
    clipping they must be gone already, or they would count in the norm.
    """
    if settings.gradient_clip is not None:
        if trainee.sparsifier is not None:
            trainee.sparsifier.mask_gradients()
        nn.utils.clip_grad_norm_(trainee.model.parameters(), settings.gradient_clip)
    trainee.optimizer.step()
