"""Stage train: what may differ between two ways to train in the same loop.

Loss, optimizer and learning rate are functions here, so that a stage which trains something else
(spiking networks through time, say) uses the loop, its checkpoints and its checks unchanged. The
default is the classification of `topospike.train.optim`: cross-entropy, SGD, a schedule by step.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from topospike.recipe import TrainSettings
from topospike.train.optim import build_optimizer, learning_rate_at


class Loss(Protocol):
    """Mean loss of a batch."""

    def __call__(self, logits: Tensor, labels: Tensor, settings: TrainSettings, /) -> Tensor:
        """Return a scalar from float32 logits (batch, classes) and int64 labels (batch,)."""
        ...


class OptimizerBuilder(Protocol):
    """Makes the optimizer of a model."""

    def __call__(self, model: nn.Module, settings: TrainSettings) -> Optimizer:
        """Return an optimizer over every trainable parameter."""
        ...


class LearningRate(Protocol):
    """Learning rate as a function of the step alone, so that a resumed run cannot drift."""

    def __call__(self, settings: TrainSettings, step: int, *, steps_per_epoch: int) -> float:
        """Return the rate of optimizer step ``step``, counted from 0 over the whole run."""
        ...


def cross_entropy(logits: Tensor, labels: Tensor, settings: TrainSettings) -> Tensor:
    """Return the cross-entropy in nats, with the settings' label smoothing."""
    return F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)


@dataclass(frozen=True)
class TrainingMethod:
    """Loss, optimizer and learning rate of a run.

    Attributes
    ----------
    loss, optimizer, learning_rate
        See the protocols of this module.
    identity
        Plain values that must be the same when a run is resumed, besides the train settings.
    """

    loss: Loss = cross_entropy
    optimizer: OptimizerBuilder = build_optimizer
    learning_rate: LearningRate = learning_rate_at
    identity: Mapping[str, object] = field(default_factory=dict)


CLASSIFICATION = TrainingMethod()
