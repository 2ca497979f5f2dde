"""Stage train: accuracy of an ordinary network over batches, in the model's own precision."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from topospike.errors import ConfigError, ShapeError


def evaluate_accuracy(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> float:
    """Compute the share of images whose largest logit is the label's.

    Parameters
    ----------
    model
        Maps ``(batch, chan, height, width)`` to logits ``(batch, classes)``. Evaluated in eval
        mode, on the device of its first parameter; its mode is given back afterwards.
    batches
        Pairs of images and int64 labels ``(batch,)``.

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
    correct, images = None, 0
    try:
        with torch.no_grad():
            for x, y in batches:
                device = x.device if parameter is None else parameter.device
                logits = model(x.to(device, non_blocking=True))
                hits = count_correct(logits, y.to(device, non_blocking=True))
                # Summed on the device: reading a number every batch would make it wait.
                correct = hits if correct is None else correct + hits
                images += len(y)
    finally:
        model.train(training)
    if correct is None or images == 0:
        raise ConfigError("there are no images to evaluate on: give at least one batch.")
    return int(correct) / images


def count_correct(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Int[Tensor, ""]:
    """Count the images whose largest logit is the label's, on the device."""
    return (logits.detach().argmax(dim=1) == labels).sum()


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
