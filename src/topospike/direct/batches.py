"""Stage direct: training batches as the released code has them: whole, and normalised its own way.

The statistics of DPAP need batches of one size, so the incomplete last one is dropped. The released
scripts normalise training images by ImageNet's constants and test images by CIFAR-10's, an accident
of a default; `renormalised` repeats it. Which images and augmentations there are is stage data's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from topospike.data import DataBundle
from topospike.errors import ConfigError
from topospike.recipe import DirectSettings
from topospike.train import ImageBatches

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class WholeBatches:
    """The batches of a source that have their full size.

    Parameters
    ----------
    source
        Batches of one split; larger ones are cut, smaller ones dropped.
    batch_size, images
        Images of a batch, and of the split.
    axis
        Where ``x`` counts images: 0, or 1 of frames.

    Raises
    ------
    ConfigError
        If there are fewer images than one batch has.

    Examples
    --------
    >>> x, y = torch.zeros(4, 2), torch.zeros(4, dtype=torch.int64)
    >>> class Split(list):
    ...     def set_epoch(self, epoch):
    ...         pass
    >>> batches = WholeBatches(Split([(x, y), (x[:1], y[:1])]), batch_size=4, images=5)
    >>> len(batches), [len(labels) for _, labels in batches]
    (1, [4])
    """

    def __init__(
        self, source: ImageBatches, *, batch_size: int, images: int, axis: int = 0
    ) -> None:
        if images < batch_size:
            raise ConfigError(
                f"data.batch_size is {batch_size}, but there are {images} training images; whole "
                "batches are required here. Use a smaller batch_size."
            )
        self.source = source
        self.batch_size = batch_size
        self.images = images
        self.axis = axis

    def set_epoch(self, epoch: int) -> None:
        """Fix order and augmentation of the passes that follow."""
        self.source.set_epoch(epoch)

    def __len__(self) -> int:
        return self.images // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.source:
            if len(y) >= self.batch_size:
                yield x.narrow(self.axis, 0, self.batch_size), y[: self.batch_size]


class Renormalised:
    """Batches normalised by other constants: each channel shifted and scaled.

    Parameters
    ----------
    source
        Batches of images ``(batch, chan, height, width)``.
    scale, shift
        Per channel; the result is ``scale x + shift``.
    """

    def __init__(
        self, source: ImageBatches, *, scale: Sequence[float], shift: Sequence[float]
    ) -> None:
        self.source = source
        self.scale = torch.tensor(scale).view(1, -1, 1, 1)
        self.shift = torch.tensor(shift).view(1, -1, 1, 1)

    def set_epoch(self, epoch: int) -> None:
        """Fix order and augmentation of the passes that follow."""
        self.source.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.source)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x, y in self.source:
            yield x * self.scale.to(x.device) + self.shift.to(x.device), y


def renormalised(
    source: ImageBatches, *, mean: Sequence[float], std: Sequence[float]
) -> Renormalised:
    """Turn batches normalised by ``mean`` and ``std`` into ones normalised by ImageNet's.

    Raises
    ------
    ConfigError
        If the images do not have three channels.
    """
    if len(mean) != 3:
        raise ConfigError(
            f"direct.released_normalisation needs colour images; these have {len(mean)} channel(s)."
        )
    scale = [s / t for s, t in zip(std, IMAGENET_STD, strict=True)]
    shift = [(m - n) / t for m, n, t in zip(mean, IMAGENET_MEAN, IMAGENET_STD, strict=True)]
    return Renormalised(source, scale=scale, shift=shift)


@dataclass(frozen=True)
class DirectData:
    """What the training loop reads: batches, the number of classes, and what they come from."""

    train: ImageBatches
    validation: ImageBatches
    classes: int
    identity: Mapping[str, Any]


def direct_data(
    data: DataBundle, settings: DirectSettings, *, batch_size: int, frames: bool = False
) -> DirectData:
    """Return the data of training through time: whole batches, normalised as the settings say.

    With ``frames`` the batches of the data are frames, (frame, batch, ...).
    """
    train: ImageBatches = WholeBatches(
        data.train, batch_size=batch_size, images=data.train.images, axis=int(frames)
    )
    if settings.released_normalisation:
        train = renormalised(train, mean=data.mean, std=data.std)
    return DirectData(train, data.validation, data.classes, data.identity)
