"""Stage data: calibration images from whatever the user gave, checked as they come.

Conversion and pruning look at the activations of a few training images. Both take one tensor, or
batches of ``x`` or ``(x, y)``, and both find the same things wrong with them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor

from topospike.errors import ConfigError, NonFiniteError, ShapeError

Batch: TypeAlias = Tensor | tuple[Tensor, ...] | list[Tensor]


def calibration_batches(calibration: Iterable[Batch] | Tensor | None) -> Iterator[Tensor]:
    """Yield the images of every batch that has some; ``None`` has none.

    Raises
    ------
    ConfigError
        If a batch is neither a tensor nor ``(x, y)`` with a tensor x; names its number.
    ShapeError
        If images differ in size or type from those of the first batch.
    NonFiniteError
        If a value is NaN or infinite.

    Examples
    --------
    >>> x, y = torch.rand(4, 1, 8, 8), torch.zeros(4)
    >>> [tuple(images.shape) for images in calibration_batches([(x, y), x[:0], x[:2]])]
    [(4, 1, 8, 8), (2, 1, 8, 8)]
    """
    if calibration is None:
        return
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    first: Tensor | None = None
    for number, batch in enumerate(batches):
        images = images_of(batch, number)
        first = images if first is None else first
        if images.shape[1:] != first.shape[1:] or images.dtype != first.dtype:
            raise ShapeError(
                f"calibration batch {number} has images of shape {tuple(images.shape[1:])} and "
                f"dtype {images.dtype}, batch 0 of {tuple(first.shape[1:])} and {first.dtype}; all "
                "must agree. Resize or crop the images, and normalise all of them."
            )
        if not bool(torch.isfinite(images).all()):
            raise NonFiniteError(
                f"calibration batch {number} holds NaN or infinite values; finite images are "
                "required. Check the data loading and normalisation."
            )
        if len(images):
            yield images


def images_of(batch: Batch, number: int) -> Tensor:
    """Return the images of one batch: ``x``, or the first of ``(x, y)``."""
    is_pair = isinstance(batch, tuple | list) and len(batch) > 0
    images = next(iter(batch)) if is_pair else batch
    if not isinstance(images, Tensor) or images.ndim == 0:
        inside = f" of {type(images).__name__}" if is_pair else ""
        raise ConfigError(
            f"calibration batch {number} is {type(batch).__name__}{inside}; x or (x, y) with a "
            "tensor x, batch first, is required. Take the images out of a dictionary."
        )
    return images
