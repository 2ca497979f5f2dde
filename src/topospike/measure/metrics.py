"""What is measured of the answers: accuracy and its relatives, as sums that add up over batches.

A metric is a function of outputs and targets that returns a sum and a count; the value is their
ratio unless the metric says otherwise. Targets are checked once a batch, so that labels of another
shape are an error and never a number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from topospike.errors import ConfigError, ShapeError
from topospike.registry import Registry

IGNORED = -100
"""A label that is not counted, as in `torch.nn.functional.cross_entropy`."""

Totals: TypeAlias = tuple[Tensor | float, Tensor | float]


def ratio(total: Tensor, count: Tensor) -> float:
    """Return sum over count."""
    return float(total / count)


def accept_anything(outputs: Tensor, targets: Any) -> None:
    """Check nothing: what a user's own function takes is its own matter."""


@dataclass(frozen=True)
class Metric:
    """One thing to measure.

    Parameters
    ----------
    name
        Its key in ``Evaluation.metrics``.
    function
        ``(outputs, targets) -> (sum, count)``, numbers or tensors of one shape.
    lower_is_better
        Whether a small value is good.
    value
        ``(sum, count) -> float`` once all batches are added up; default their ratio.
    check
        ``(outputs, targets)``; raises if the targets do not fit. Called once a batch.
    against_ann
        Whether the targets are the ANN's outputs on the same images, so that no labels are needed.
    unanswered
        Its value at steps without an answer: 0 where it is a share of right ones, else not a
        number.

    Examples
    --------
    >>> error = Metric("error", lambda out, y: ((out - y).abs().sum(), y.numel()), True)
    >>> error.value(*map(torch.tensor, (3.0, 4.0)))
    0.75
    """

    name: str
    function: Callable[[Tensor, Any], Totals]
    lower_is_better: bool = False
    value: Callable[[Tensor, Tensor], float] = ratio
    check: Callable[[Tensor, Any], None] = accept_anything
    against_ann: bool = False
    unanswered: float = math.nan


def metrics_of(given: str | Callable[..., Any] | Metric | Sequence[Any]) -> tuple[Metric, ...]:
    """Return the metrics that an argument stands for: names, functions or metrics, one or several.

    Raises
    ------
    ConfigError
        If a name is unknown, or there is none, or two of one name.
    """
    several = given if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    found = tuple(one_metric(one) for one in several)
    names = [metric.name for metric in found]
    if not found or len(set(names)) < len(names):
        raise ConfigError(
            f"the metrics are {names}; at least one, each of another name, is required. Give a "
            "function of your own a name with Metric(name, function)."
        )
    return found


def one_metric(given: Any) -> Metric:
    """Return one metric by its name, or around a function."""
    if isinstance(given, Metric):
        return given
    if isinstance(given, str):
        return METRICS[given]
    if callable(given):
        name = getattr(given, "__name__", type(given).__name__)
        return Metric("custom" if name == "<lambda>" else name, given)  # pyright: ignore[reportArgumentType]
    raise ConfigError(
        f"metric is {given!r}; a name ({', '.join(METRICS)}), a function (outputs, targets) -> "
        "(sum, count), a Metric, or several of these are required."
    )


def class_axis(outputs: Tensor, labels: Tensor) -> int:
    """Return the axis of the classes: what labels of shape (batch, ...) lack.

    ``(batch, classes)``, ``(batch, classes, height, width)`` and ``(batch, tokens, classes)`` are
    told apart by the labels' shape.

    Raises
    ------
    ShapeError
        If no axis fits, or two do.
    """
    shape, wanted = tuple(outputs.shape), tuple(labels.shape)
    places = sorted({1, outputs.ndim - 1}) if outputs.ndim > 1 else []
    fitting = [axis for axis in places if shape[:axis] + shape[axis + 1 :] == wanted]
    if len(fitting) == 1 and shape[fitting[0]] > 1:
        return fitting[0]
    if wanted and outputs.ndim and wanted[0] != shape[0]:
        raise ShapeError(
            f"{wanted[0]} labels came with {shape[0]} images; one label per image is required."
        )
    needed = " or ".join(str(shape[:axis] + shape[axis + 1 :]) for axis in places) or "none"
    reason = "both axes fit" if len(fitting) > 1 else f"labels of shape {needed} would fit"
    raise ShapeError(
        f"labels of shape {wanted} do not belong to outputs of shape {shape}: {reason}, with at "
        "least two classes. Pass class indices (one-hot labels: labels.argmax(1)), metric='mse' "
        "for targets of the outputs' own shape, or a function (outputs, targets) -> (sum, count)."
    )


def check_labels(outputs: Tensor, labels: Any) -> None:
    """Refuse labels that the network cannot answer."""
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.is_complex():
        kind = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise ShapeError(
            f"the labels are {kind}; a tensor of whole numbers, the index of the right class, is "
            "required. Pass labels.argmax(1) of soft labels, metric='mse' for a regression, or a "
            "function (outputs, targets) -> (sum, count)."
        )
    classes = outputs.shape[class_axis(outputs, labels)]
    counted = labels[labels != IGNORED]
    if not counted.numel():
        return
    highest, lowest = int(counted.max()), int(counted.min())
    if highest >= classes or lowest < 0:
        wrong = highest if highest >= classes else lowest
        raise ShapeError(
            f"a label is {wrong}, but the network has {classes} classes (0 to {classes - 1}). "
            "Check the label column, convert a network with as many outputs as classes, or set "
            f"what is not to be counted to {IGNORED}."
        )


def accuracy(outputs: Tensor, labels: Tensor) -> Totals:
    """Count the right answers among those with a label."""
    right = outputs.argmax(class_axis(outputs, labels)) == labels
    return right.sum(), (labels != IGNORED).sum()


def top5(outputs: Tensor, labels: Tensor) -> Totals:
    """Count the answers whose right class is among the five highest."""
    axis = class_axis(outputs, labels)
    right = outputs.topk(5, axis).indices == labels.unsqueeze(axis)
    return right.any(axis).sum(), (labels != IGNORED).sum()


def check_five(outputs: Tensor, labels: Any) -> None:
    """Refuse labels that do not fit, and networks of fewer than six classes."""
    check_labels(outputs, labels)
    classes = outputs.shape[class_axis(outputs, labels)]
    if classes < 6:
        raise ConfigError(
            f"metric is 'top5', but the network has {classes} classes; at least 6 are required. "
            "Use 'accuracy'."
        )


def negative_log_likelihood(outputs: Tensor, labels: Tensor) -> Totals:
    """Add up the cross entropy of all labels."""
    scores = outputs.movedim(class_axis(outputs, labels), 1).float()
    whole = F.cross_entropy(scores, labels.long(), ignore_index=IGNORED, reduction="sum")
    return whole, (labels != IGNORED).sum()


def exponential(total: Tensor, count: Tensor) -> float:
    """Return exp(sum / count); infinite where that is too large for a number."""
    mean = ratio(total, count)
    return math.exp(mean) if mean < 700 else math.inf


def squared_error(outputs: Tensor, targets: Tensor) -> Totals:
    """Add up the squared differences."""
    return (outputs.double() - targets.double()).square().sum(), targets.numel()


def check_same_shape(outputs: Tensor, targets: Any) -> None:
    """Refuse targets that are not of the outputs' shape: they would be broadcast."""
    shape = tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__
    if shape != tuple(outputs.shape):
        raise ShapeError(
            f"the targets have shape {shape}, the outputs {tuple(outputs.shape)}; metric 'mse' "
            "compares them value by value. Reshape the targets, for example targets[:, None]."
        )


def overlaps(outputs: Tensor, labels: Tensor) -> Totals:
    """Return, for each class, how many places are both it and answered so, and how many either."""
    axis = class_axis(outputs, labels)
    classes, counted = outputs.shape[axis], labels != IGNORED
    found, wanted = outputs.argmax(axis)[counted], labels[counted]
    both = torch.bincount(wanted[found == wanted].long(), minlength=classes)
    either = sum(torch.bincount(x.long(), minlength=classes) for x in (found, wanted)) - both
    return both, either


def mean_of_classes(total: Tensor, count: Tensor) -> float:
    """Return the mean ratio of the classes that occur."""
    return float((total / count)[count > 0].mean())


def same_class(outputs: Tensor, of_ann: Tensor) -> Totals:
    """Count the places where the spiking network answers as its ANN."""
    axis = answer_axis(outputs)
    same = outputs.argmax(axis) == of_ann.argmax(axis)
    return same.sum(), same.numel()


def answer_axis(outputs: Tensor) -> int:
    """Return the axis of the classes where no label says it: the last of three, else the second."""
    return outputs.ndim - 1 if outputs.ndim == 3 else 1


def check_classes(outputs: Tensor, of_ann: Any) -> None:
    """Refuse outputs without classes."""
    if outputs.ndim < 2 or outputs.shape[answer_axis(outputs)] < 2:
        raise ShapeError(
            f"the outputs have shape {tuple(outputs.shape)}; metric 'agreement' compares the "
            "largest of several classes. Use 'mse' or a function (outputs, targets) -> (sum, "
            "count) for outputs of one value."
        )


METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "accuracy": Metric("accuracy", accuracy, check=check_labels, unanswered=0.0),
        "top5": Metric("top5", top5, check=check_five, unanswered=0.0),
        "perplexity": Metric(
            "perplexity", negative_log_likelihood, True, value=exponential, check=check_labels
        ),
        "mse": Metric("mse", squared_error, True, check=check_same_shape),
        "mean_iou": Metric(
            "mean_iou", overlaps, value=mean_of_classes, check=check_labels, unanswered=0.0
        ),
        "agreement": Metric(
            "agreement", same_class, check=check_classes, against_ann=True, unanswered=0.0
        ),
    },
)
"""Accuracy, top 5, perplexity, mean squared error, mean intersection over union, and agreement."""


class MetricSums:
    """Running sums of one metric: of the ANN, and of the spiking network at each time step."""

    def __init__(self, metric: Metric, timesteps: int) -> None:
        self.metric = metric
        self.steps: list[tuple[Tensor, Tensor] | None] = [None] * (timesteps + 1)
        self.targets: Any = None

    def begin_batch(
        self, outputs: Tensor, targets: Any, batch: str, *, of_ann: bool = True
    ) -> None:
        """Take the targets of a batch, check them, and add the ANN's answers.

        With ``of_ann=False`` the outputs are others, and only say what targets have to fit.

        Raises
        ------
        ConfigError
            If there are no targets and the metric needs them.
        ShapeError
            If they do not fit the outputs.
        """
        if self.metric.against_ann:
            targets = outputs
        elif targets is None:
            raise ConfigError(
                f"{batch} has no labels, which metric {self.metric.name!r} needs. Pass (x, y), or "
                "metric='agreement', which compares with the ANN."
            )
        elif isinstance(targets, Tensor):
            targets = targets.to(outputs.device)
        self.metric.check(outputs, targets)
        self.targets = targets
        if of_ann:
            self.add(0, outputs)

    def add(self, t: int, outputs: Tensor) -> None:
        """Add the answers of step t (0: of the ANN)."""
        found = self.metric.function(outputs, self.targets)
        total, count = (torch.as_tensor(part).to(torch.float64) for part in found)
        before = self.steps[t]
        self.steps[t] = (total, count) if before is None else (before[0] + total, before[1] + count)

    @property
    def answered(self) -> int:
        """At how many time steps there was an answer."""
        return sum(sums is not None for sums in self.steps[1:])

    def values(self) -> list[float]:
        """Return the value of the ANN, then those of t = 1, 2, ..."""
        nothing = self.metric.unanswered
        return [nothing if sums is None else self.metric.value(*sums) for sums in self.steps]
