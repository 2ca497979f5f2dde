"""Data stage: the one call that turns settings into training, validation and test batches.

The training split is cut in training and validation; the test split stays apart. Sets that fit are
decoded once and kept in memory; larger ones are decoded batch by batch by worker processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
import torch
from torch import Tensor

from topospike.data.augment import Augmenter
from topospike.data.digits import digits
from topospike.data.hub import open_source
from topospike.data.images import EncodedImages, TensorImages
from topospike.data.loader import Batches
from topospike.data.mix import Mixer
from topospike.data.normalisation import (
    Normalisation,
    checked_normalisation,
    known_normalisation,
    measure_normalisation,
)
from topospike.data.seeds import stream_seed
from topospike.data.splits import limited_rows, train_validation_rows
from topospike.errors import ConfigError
from topospike.recipe import DataSettings

EMBEDDED = "digits"
GIB = 1024**3
MEASURED_IMAGES = 4096
PIECE = 1024
SPLIT_STREAM, MEASURE_STREAM = 100, 101


@dataclass(frozen=True)
class DataBundle:
    """A dataset ready for training, with what the other stages need to know of it.

    ``calibration`` holds the training images without augmentation, in a seeded order: what a
    conversion takes its thresholds from.
    ``image_size`` is (height, width); ``mean`` and ``std`` are per channel for pixels in [0, 1];
    ``in_memory`` tells which of the two loading paths was taken.
    """

    name: str
    train: Batches
    validation: Batches
    test: Batches
    calibration: Batches
    classes: int
    channels: int
    image_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_names: tuple[str, ...] | None
    in_memory: bool = True


@dataclass(frozen=True)
class Opened:
    """The two splits of a source before anything is cut or decoded."""

    train: TensorImages | EncodedImages
    test: TensorImages | EncodedImages
    classes: int
    channels: int
    image_size: tuple[int, int]
    label_names: tuple[str, ...] | None


def load_data(
    settings: DataSettings,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    in_memory_bytes: int | None = None,
    part: tuple[int, int] = (0, 1),
) -> DataBundle:
    """Open a dataset and make its batches.

    Parameters
    ----------
    settings
        What to load; see `topospike.recipe.DataSettings`.
    seed
        Seed of the run: decides subset, validation cut, order and augmentation.
    device
        Where batches are wanted. Augmentation and normalisation run there.
    in_memory_bytes
        Decoded images of all parts together are held in memory up to this size; ``None`` takes
        that of the settings.
    part
        (rank, processes) of this process among those that train together. Of training images that
        are not held in memory, it decodes its part of every batch only.

    Returns
    -------
    DataBundle
        ``train`` shuffles and augments; ``validation`` and ``test`` do neither; ``calibration``
        shuffles.

    Raises
    ------
    MissingDataError
        If a folder, split or column is missing, or a picture cannot be read.
    ConfigError
        If a setting has an impossible value.
    ShapeError
        If pictures differ in size or channels and the settings do not say what to do.

    Examples
    --------
    >>> data = load_data(DataSettings(), seed=0)
    >>> data.name, data.train.images, data.validation.images, data.test.images, data.classes
    ('digits', 1293, 144, 360, 10)
    >>> x, y = next(iter(data.train))
    >>> tuple(x.shape), x.dtype
    ((128, 1, 8, 8), torch.float32)
    """
    opened = open_digits(settings) if settings.source == EMBEDDED else open_hub(settings)
    split_seed = stream_seed(seed, SPLIT_STREAM)
    train_rows, validation_rows = train_validation_rows(
        opened.train.labels,
        settings.validation_fraction,
        seed=split_seed,
        limit=settings.limit_train,
    )
    test_rows = limited_rows(opened.test.labels, settings.limit_test, seed=split_seed)
    parts = [
        opened.train.take(train_rows),
        opened.train.take(validation_rows),
        opened.test.take(test_rows),
    ]
    limit = GIB * settings.memory_gib if in_memory_bytes is None else in_memory_bytes
    in_memory = decoded_bytes(parts) <= limit
    if in_memory:
        parts = [p.decoded() if isinstance(p, EncodedImages) else p for p in parts]
    normalisation = choose_normalisation(settings, opened.channels, parts[0], seed)

    def unchanged(images: TensorImages | EncodedImages, *, shuffle: bool = False) -> Batches:
        return Batches(
            images,
            Augmenter((), image_size=opened.image_size, normalisation=normalisation),
            batch_size=settings.eval_batch_size,
            seed=seed,
            shuffle=shuffle,
            device=device,
            workers=settings.workers,
        )

    train, validation, test = parts
    return DataBundle(
        name=PurePath(settings.source).name or settings.source,
        train=Batches(
            train,
            Augmenter(settings.augment, image_size=opened.image_size, normalisation=normalisation),
            batch_size=settings.batch_size,
            seed=seed,
            shuffle=True,
            device=device,
            workers=settings.workers,
            mixer=Mixer(settings.mix, classes=opened.classes) if settings.mix else None,
            part=(0, 1) if in_memory else part,
        ),
        validation=unchanged(validation),
        test=unchanged(test),
        calibration=unchanged(train, shuffle=True),
        classes=opened.classes,
        channels=opened.channels,
        image_size=opened.image_size,
        mean=normalisation.mean,
        std=normalisation.std,
        label_names=opened.label_names,
        in_memory=in_memory,
    )


def open_digits(settings: DataSettings) -> Opened:
    """Open the embedded set; the options that only concern other sources must be at rest."""
    for option in ("image_column", "label_column", "image_size", "channels"):
        if getattr(settings, option) is not None:
            raise ConfigError(
                f"data.{option} = {getattr(settings, option)!r} has no meaning for the embedded "
                "'digits'; leave it out, or name another data.source"
            )
    train, test = digits()
    return Opened(train, test, 10, 1, (8, 8), tuple(str(digit) for digit in range(10)))


def open_hub(settings: DataSettings) -> Opened:
    """Open a folder or a hub dataset."""
    splits = open_source(settings)
    frame = splits.train.frame
    size = settings.image_size or (frame.height, frame.width)
    return Opened(
        splits.train,
        splits.test,
        splits.classes,
        frame.channels,
        (int(size[0]), int(size[1])),
        splits.label_names,
    )


def decoded_bytes(parts: list[TensorImages | EncodedImages]) -> int:
    """Memory all parts take once decoded; 0 for what is in memory already."""
    return sum(len(part) * part.frame.bytes for part in parts if isinstance(part, EncodedImages))


def choose_normalisation(
    settings: DataSettings, channels: int, train: TensorImages | EncodedImages, seed: int
) -> Normalisation:
    """Take the settings' own constants, else the customary ones, else measured on training images.

    Images in memory are all measured; otherwise a seeded sample is.
    """
    if settings.mean is not None and settings.std is not None:
        return checked_normalisation(settings.mean, settings.std, channels=channels)
    base = known_normalisation(settings.source, channels)
    if base is None:
        base = measure_normalisation(pieces(train, seed), scale=train.scale)
    return checked_normalisation(
        settings.mean or base.mean, settings.std or base.std, channels=channels
    )


def pieces(train: TensorImages | EncodedImages, seed: int) -> Iterator[Tensor]:
    """Give the training images in pieces small enough for wide arithmetic."""
    rows = np.arange(len(train))
    if isinstance(train, EncodedImages) and len(train) > MEASURED_IMAGES:
        generator = np.random.default_rng(stream_seed(seed, MEASURE_STREAM))
        rows = np.sort(generator.choice(rows, MEASURED_IMAGES, replace=False))
    sample = train.take(rows)
    yield from sample.batches(torch.arange(len(sample)).split(PIECE))
