"""Stage train: accuracy of an ordinary network over batches, in the model's own precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from topospike.errors import ConfigError, ShapeError
from topospike.train.distributed import ALONE, Processes


def evaluate_accuracy(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    processes: Processes = ALONE,
) -> float:
    """Compute the share of images whose largest logit is the label's.

    Parameters
    ----------
    model
        Maps ``(batch, chan, height, width)`` to logits ``(batch, classes)``. Evaluated in eval
        mode, on the device of its first parameter; its mode is given back afterwards.
    batches
        Pairs of images and int64 labels ``(batch,)``.
    processes
        Take turns with whole batches, the same ones on every process, and add up their counts.

    Returns
    -------
    float
        Accuracy in [0, 1].

    Raises
    ------
    ConfigError
        There is no image.

    Examples
    --------
    >>> import torch
    >>> images = torch.tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 2.0]])
    >>> evaluate_accuracy(torch.nn.Identity(), [(images, torch.tensor([0, 1, 1]))])
    0.6666666666666666
    """
    parameter = next(model.parameters(), None)
    training = model.training
    model.eval()
    correct, images = torch.zeros((), dtype=torch.int64), 0
    try:
        with torch.no_grad():
            for x, y in processes.every_nth(iter(batches)):
                device = x.device if parameter is None else parameter.device
                logits = model(x.to(device, non_blocking=True))
                hits = count_correct(logits, y.to(device, non_blocking=True))
                # Summed on the device: reading a number every batch would make it wait.
                correct = correct.to(hits.device) + hits
                images += len(y)
    finally:
        model.train(training)
    correct, images = processes.sum(torch.tensor([int(correct), images])).tolist()
    if images == 0:
        raise ConfigError("there are no images to evaluate on: give at least one batch.")
    return correct / images


def count_correct(logits: Float[Tensor, "batch classes"], labels: Tensor) -> Int[Tensor, ""]:
    """Count the images whose largest logit is the label's, on the device."""
    return (logits.detach().argmax(dim=1) == class_numbers(labels)).sum()


def class_numbers(labels: Tensor) -> Int[Tensor, " batch"]:
    """Return the class of every label; of probabilities of classes, the most probable one."""
    return labels.argmax(dim=1) if labels.dim() == 2 else labels


def check_logits(logits: object, *, batch: int, classes: int, model: nn.Module) -> None:
    """Refuse an output that is not one logit per image and class.

    Raises
    ------
    ShapeError
        Says what came out and what was needed.
    """
    if not isinstance(logits, Tensor):
        raise ShapeError(
            f"{type(model).__name__} returned a {type(logits).__name__}; training needs the logits "
            f"as a tensor of shape ({batch}, {classes}). Wrap the model so that it returns them."
        )
    if logits.shape != (batch, classes):
        raise ShapeError(
            f"{type(model).__name__} returned shape {tuple(logits.shape)} for {batch} images of "
            f"{classes} classes; it must be ({batch}, {classes}). Build the model with "
            f"classes={classes}."
        )
