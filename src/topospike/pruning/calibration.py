"""Stage prune: the calibration images, checked, a few at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError, MissingDataError, ShapeError
from topospike.models.inputs import Batch, Inputs, calibration_batches, leaves


class CalibrationImages:
    """Images from whatever the user gave; checked as they come, and counted.

    Parameters
    ----------
    calibration
        One tensor of images, or batches of ``x`` or ``(x, y)``.
    model
        What they are for.
    chunk
        Images handed on at a time.

    Attributes
    ----------
    first : Tensor
        The first batch, for shapes.
    count : int
        Images handed on so far.

    Raises
    ------
    MissingDataError
        If there is not a single image.
    """

    def __init__(
        self, calibration: Iterable[Batch] | Tensor, model: nn.Module, *, chunk: int
    ) -> None:
        if chunk < 1:
            raise ConfigError(f"chunk is {chunk}; 1 or more images at a time are required.")
        self.chunk = chunk
        self.count = 0
        self.batches = map(only_tensor, calibration_batches(calibration, model))
        first = next(self.batches, None)
        if first is None:
            raise MissingDataError(
                "there are no calibration images; pass calibration=batches with at least one "
                "batch of training images, normalised as in training."
            )
        self.first = first

    def __iter__(self) -> Iterator[Tensor]:
        """Hand on the images, once."""
        batch: Tensor | None = self.first
        while batch is not None:
            for images in batch.split(self.chunk):
                self.count += len(images)
                yield images
            batch = next(self.batches, None)


def only_tensor(x: Inputs) -> Tensor:
    """Return the one input tensor of a model; pruning walks through layers with one value."""
    found = leaves(x)
    if len(found) != 1:
        raise ConfigError(
            f"the model takes {len(found)} input tensors; pruning with images walks through models "
            "of one. Use magnitude or ri, which need no images."
        )
    return found[0]


@torch.no_grad()
def check_fit(model: nn.Module, images: Tensor) -> None:
    """Raise `ShapeError` unless the model can be run on such images."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()(images[:1])
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ShapeError(
            f"{type(model).__name__} cannot be run on calibration images of shape "
            f"{tuple(images.shape)} ({reason}). Pass batches as in training: (batch, channel, "
            "height, width) for images, on the device and in the dtype of the model."
        ) from error
    finally:
        for module, mode in modes.items():
            module.training = mode
