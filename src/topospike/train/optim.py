"""Stage train: loss, optimizer, and the learning rate, a pure function of the step.

Factor of step ``t`` of ``T``, with warm-up ``w`` and progress ``p = (t - w) / (T - w)``::

    t < w      t / w
    constant   1
    cosine     f + (1 - f) (1 + cos(pi p)) / 2
    linear     1 - (1 - f) min(p / 0.9, 1)
    step       1, 0.1 from p = 1/2, 0.01 from p = 3/4

times ``(t mod r) / v`` while ``t mod r < v`` if restarts every ``r`` steps are on. Nothing here
remembers a step, so a resumed run cannot drift; nothing here knows about masks. Loss, optimizer and
learning rate together are a `TrainingMethod`, so that a stage which trains something else (spiking
networks through time, say) uses the loop, its checkpoints and its checks unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel

from topospike.errors import ConfigError
from topospike.recipe import TrainSettings
from topospike.registry import Registry

LINEAR_SHARE = 0.9

# From float32 logits (batch, ..., classes) and labels (batch, ...) to the mean loss of a batch.
Loss = Callable[[Tensor, Tensor, TrainSettings], Tensor]
# Makes an optimizer over every trainable parameter.
OptimizerBuilder = Callable[[nn.Module, TrainSettings], torch.optim.Optimizer]
# From ``(settings, step, *, steps_per_epoch)`` to a rate, by the step alone (counted over the run),
# so that a resumed run cannot drift.
LearningRate = Callable[..., float]


def cosine_decay(progress: float, final: float) -> float:
    """Follow half a cosine wave from 1 down to ``final``."""
    return final + (1.0 - final) * 0.5 * (1.0 + math.cos(math.pi * progress))


def linear_decay(progress: float, final: float) -> float:
    """Go straight from 1 to ``final`` over the first 0.9 of the run, then constant."""
    return 1.0 - (1.0 - final) * min(progress / LINEAR_SHARE, 1.0)


def step_decay(progress: float, final: float) -> float:
    """Divide by 10 at one half and again at three quarters of the run; ``final`` has no part.

    Milestones of one's own replace these, see `learning_rate_at`.
    """
    return 0.1 ** ((progress >= 0.5) + (progress >= 0.75))


def constant(progress: float, final: float) -> float:
    """Stay at 1."""
    return 1.0


SCHEDULES: Registry[Callable[[float, float], float]] = Registry(
    "learning-rate schedule",
    {"cosine": cosine_decay, "linear": linear_decay, "step": step_decay, "constant": constant},
)


def learning_rate_at(settings: TrainSettings, step: int, *, steps_per_epoch: int) -> float:
    """Compute the learning rate of an optimizer step of a whole run.

    Parameters
    ----------
    settings
        Rate, schedule, warm-up and restarts.
    step
        Optimizer steps done so far, 0 at the first.
    steps_per_epoch
        Optimizer steps of an epoch; what the settings count in epochs is rounded to steps.

    Notes
    -----
    Iterative warm-up, so that links just grown are not moved by a full-size step with fresh
    optimizer slots, and the 0.9 of the linear schedule are those of Zhang et al. (2025), CHTs; the
    first step of a ramp has rate exactly 0, as in their code. The step schedule's milestones are
    those of He et al. (2016) for CIFAR.

    Examples
    --------
    >>> settings = TrainSettings(epochs=8, learning_rate=1.0, warmup_epochs=4)
    >>> [round(learning_rate_at(settings, t, steps_per_epoch=1), 3) for t in range(8)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 0.854, 0.5, 0.146]
    >>> settings = TrainSettings(epochs=8, learning_rate=1.0, schedule="step", milestones=(5,))
    >>> [learning_rate_at(settings, t, steps_per_epoch=1) for t in (4, 5, 7)]
    [1.0, 0.1, 0.1]
    """
    total, factor = settings.epochs * steps_per_epoch, 1.0
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    restart_every = round(settings.restart_every_epochs * steps_per_epoch)
    restart_warmup = round(settings.restart_warmup_epochs * steps_per_epoch)
    if restart_every > 0 and step % restart_every < restart_warmup:
        factor = (step % restart_every) / restart_warmup
    if step < warmup:
        factor = factor * step / warmup
    elif settings.schedule == "step" and settings.milestones:
        reached = sum(step >= round(epoch * steps_per_epoch) for epoch in settings.milestones)
        factor *= settings.milestone_factor**reached
    else:
        progress = (step - warmup) / max(1, total - warmup)
        factor *= SCHEDULES[settings.schedule](progress, settings.final_learning_rate_fraction)
    return settings.learning_rate * factor


def optimizer_steps(settings: TrainSettings, *, batches: int) -> int:
    """Return the optimizer steps of an epoch of so many batches; the last may have fewer.

    Examples
    --------
    >>> optimizer_steps(TrainSettings(accumulate=4), batches=10)
    3
    """
    return -(-batches // settings.accumulate)


def build_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Make the optimizer of the settings over every trainable parameter.

    ``sgd`` has momentum, and its weight decay applies to all parameters, biases and batch-norm
    scales included, as in the CIFAR reference. ``adamw`` has ``settings.momentum`` as the decay of
    its first moment and 0.999 of its second, and decays weights only, not parameters with one axis
    (biases, scales of norms), as DeiT is trained (Touvron et al. 2021). On absent links weight
    decay acts on a zero.

    Raises
    ------
    ConfigError
        No parameter of the model requires a gradient.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not parameters:
        raise ConfigError(
            f"{type(model).__name__} has no parameter with requires_grad=True, so there is "
            "nothing to train. Unfreeze at least one layer."
        )
    return OPTIMIZERS[settings.optimizer](parameters, settings)


def sgd(parameters: Sequence[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Make stochastic gradient descent with momentum."""
    return torch.optim.SGD(
        parameters,
        lr=settings.learning_rate,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.nesterov,
    )


def adamw(parameters: Sequence[nn.Parameter], settings: TrainSettings) -> torch.optim.Optimizer:
    """Make Adam with decoupled weight decay on the parameters of two axes or more.

    Fused: one pass over memory, and the square roots of the many zeros of a sparse layer's second
    moments do not cost what they cost one operation at a time.
    """
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.momentum, 0.999),
        fused=True,
    )


OPTIMIZERS: Registry[Callable[[Sequence[nn.Parameter], TrainSettings], torch.optim.Optimizer]] = (
    Registry("optimizer", {"sgd": sgd, "adamw": adamw})
)


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use one learning rate in every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate


def cross_entropy(logits: Tensor, labels: Tensor, settings: TrainSettings) -> Tensor:
    """Return the mean cross-entropy of all labels in nats, with the settings' label smoothing.

    Examples
    --------
    >>> logits, labels = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
    >>> round(math.exp(cross_entropy(logits, labels, TrainSettings())), 3)
    4.0
    """
    if logits.ndim > 2:
        logits, labels = logits.flatten(0, -2), labels.flatten()
    return F.cross_entropy(logits, labels, label_smoothing=settings.label_smoothing)


@dataclass(frozen=True)
class TrainingMethod:
    """Loss, optimizer and learning rate of a run.

    Attributes
    ----------
    loss, optimizer, learning_rate
        Functions; see `Loss`, `OptimizerBuilder` and `LearningRate`.
    best
        What the best epoch is best in: the highest ``accuracy``, or the lowest ``loss`` of
        validation.
    identity
        Plain values that must be the same when a run is resumed, besides the train settings.
    """

    loss: Loss = cross_entropy
    optimizer: OptimizerBuilder = build_optimizer
    learning_rate: LearningRate = learning_rate_at
    best: Literal["accuracy", "loss"] = "accuracy"
    identity: Mapping[str, object] = field(default_factory=dict)


CLASSIFICATION = TrainingMethod()
NEXT_TOKEN = TrainingMethod(best="loss")
"""A language model is judged by its cross-entropy, of which perplexity is the exponential."""


def weight_average(model: nn.Module, decay: float) -> AveragedModel:
    """Follow the weights of a model by an exponential moving average over optimizer steps.

    After step n it is ``a_1 = w_1``, ``a_n = d a_(n-1) + (1 - d) w_n``, for every floating-point
    parameter and buffer; counters and masks are those of the model.

    Parameters
    ----------
    model
        Copied here; call ``update_parameters(model)`` after every step.
    decay
        Share ``d`` of the average kept at every step, in (0, 1).

    Examples
    --------
    >>> layer = nn.Linear(1, 1, bias=False)
    >>> average = weight_average(layer, decay=0.75)
    >>> for value in (1.0, 5.0):
    ...     _ = layer.weight.data.fill_(value)
    ...     average.update_parameters(layer)
    >>> average.module.weight.item()
    2.0
    """

    @torch.no_grad()
    def follow(averaged: Any, current: Any, _: Any) -> None:
        if averaged[0].is_floating_point():
            torch._foreach_lerp_(averaged, current, 1.0 - decay)  # pyright: ignore[reportPrivateImportUsage]
        else:
            torch._foreach_copy_(averaged, current)  # pyright: ignore[reportPrivateImportUsage]

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)
