"""Stage direct: loss and learning rate of training through time, for the loop of stage train.

    mse            mean over images and classes of (r - onehot)^2, r the output rate in [0, 1]
    cross_entropy  of r as logits, with label smoothing

    epoch e of E, by epoch   e < 5: 1e-6 + e (l - 1e-6) / 5
                             else:  1e-5 + (l - 1e-5) (1 + cos(pi e / E)) / 2

The cosine runs over e / E, not over what is left after the warm-up. The optimizer is the one of
`topospike.train`: AdamW that decays tensors of two axes or more, as the released code has it.
"""

from __future__ import annotations

import dataclasses
import math

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from topospike.recipe import DirectSettings, TrainSettings
from topospike.registry import Registry
from topospike.train import TrainingMethod, learning_rate_at
from topospike.train.optim import LearningRate, Loss, cross_entropy

WARMUP_EPOCHS = 5
WARMUP_START = 1e-6
FLOOR = 1e-5


def rate_error(
    rates: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"], settings: TrainSettings
) -> Float[Tensor, ""]:
    """Return the mean squared difference of output rates and one-hot labels.

    Examples
    --------
    >>> import torch
    >>> rate_error(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), TrainSettings())
    tensor(0.2500)
    """
    return F.mse_loss(rates, F.one_hot(labels, rates.shape[1]).to(rates.dtype))


def epoch_rate(epoch: int, epochs: int, learning_rate: float) -> float:
    """Return the learning rate of an epoch, counted from 0, by the released schedule.

    A base rate below the schedule's floor lowers the floor to itself.

    Examples
    --------
    >>> [round(epoch_rate(e, 300, 2.44140625e-4) * 1e4, 4) for e in (0, 4, 5, 299)]
    [0.01, 1.9551, 2.4398, 0.1001]
    """
    start, floor = min(WARMUP_START, learning_rate), min(FLOOR, learning_rate)
    if epoch < WARMUP_EPOCHS:
        return start + epoch * (learning_rate - start) / WARMUP_EPOCHS
    return floor + 0.5 * (learning_rate - floor) * (1 + math.cos(math.pi * epoch / epochs))


def rate_by_epoch(settings: TrainSettings, step: int, *, steps_per_epoch: int) -> float:
    """Return the learning rate of an optimizer step; all steps of an epoch have the same."""
    return epoch_rate(step // steps_per_epoch, settings.epochs, settings.learning_rate)


LOSS_TABLE: dict[str, Loss] = {"mse": rate_error, "cross_entropy": cross_entropy}
LOSSES: Registry[Loss] = Registry("loss", LOSS_TABLE)
LEARNING_RATES: Registry[LearningRate] = Registry(
    "direct schedule", {"epoch": rate_by_epoch, "step": learning_rate_at}
)


def training_method(settings: DirectSettings) -> TrainingMethod:
    """Return what `topospike.train.fit` needs to train a spiking model.

    Raises
    ------
    ConfigError
        If the loss or the schedule is unknown.

    Examples
    --------
    >>> method = training_method(DirectSettings())
    >>> round(method.learning_rate(TrainSettings(learning_rate=0.01), 0, steps_per_epoch=9), 9)
    1e-06
    """
    return TrainingMethod(
        loss=LOSSES[settings.loss],
        learning_rate=LEARNING_RATES[settings.schedule],
        identity={"direct": dataclasses.asdict(settings)},
    )
