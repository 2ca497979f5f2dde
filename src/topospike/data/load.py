"""Data stage: the one call that turns settings into training, validation and test batches.

The training split is cut in training and validation; the test split stays apart. Sets that fit are
decoded once and kept in memory; larger ones are decoded batch by batch by worker processes. Of
recordings of events an ANN is given the mean of the frames; `DataBundle.over_time` gives the frames
themselves, for networks that read one after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.data.augment import Augmenter, Mixer
from topospike.data.bundle import DataBundle, settings_compared
from topospike.data.digits import open_digits
from topospike.data.events.augment import EventAugmenter
from topospike.data.events.recordings import EMBEDDED as EMBEDDED_EVENTS
from topospike.data.events.recordings import open_events
from topospike.data.hub import Source, open_source
from topospike.data.loader import Batches
from topospike.data.normalisation import (
    Normalisation,
    checked_normalisation,
    known_normalisation,
    measure_normalisation,
)
from topospike.data.ondemand import Images, OnDemand, TensorImages
from topospike.data.seeds import sample_seed, split_seed
from topospike.data.splits import limited_rows, train_validation_rows
from topospike.data.text.load import load_text
from topospike.data.text.sources import EMBEDDED as EMBEDDED_TEXT
from topospike.errors import ConfigError
from topospike.recipe import DataSettings

EMBEDDED = "digits"
GIB = 1024**3
MEASURED_IMAGES = 4096
PIECE = 1024


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
        (rank, processes) of this process among those that train together. Of training and
        validation images that are not held in memory, it decodes its part of every batch only.

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
    if settings.text.context:
        return load_text(settings, seed=seed, device=device)
    opened = opened_source(settings)
    cut = split_seed(seed)
    train_rows, validation_rows = train_validation_rows(
        opened.train.labels, settings.validation_fraction, seed=cut, limit=settings.limit_train
    )
    test_rows = limited_rows(opened.test.labels, settings.limit_test, seed=cut)
    parts = [
        opened.train.take(train_rows),
        opened.train.take(validation_rows),
        opened.test.take(test_rows),
    ]
    limit = GIB * settings.memory_gib if in_memory_bytes is None else in_memory_bytes
    in_memory = decoded_bytes(parts) <= limit
    if in_memory:
        parts = [p.decoded() if isinstance(p, OnDemand) else p for p in parts]
    counts = settings.events.frames > 0
    normalisation = (
        Normalisation((0.0,) * opened.channels, (1.0,) * opened.channels)
        if counts
        else choose_normalisation(settings, opened.channels, parts[0], seed)
    )
    # Moved here, so that training and calibration share one copy.
    train, validation, test = (p.to(device) if isinstance(p, TensorImages) else p for p in parts)

    def batches(images: Images, augment: tuple[str, ...] = (), **options: Any) -> Batches:
        augmenter = (
            EventAugmenter(augment, "stack" if settings.events.stack else "mean")
            if counts
            else Augmenter(augment, image_size=opened.image_size, normalisation=normalisation)
        )
        given = {"batch_size": settings.eval_batch_size, "workers": settings.workers, **options}
        return Batches(images, augmenter, seed=seed, device=device, **given)

    own = (0, 1) if in_memory else part
    mixer = Mixer(settings.mix, classes=opened.classes) if settings.mix else None
    return DataBundle(
        name=PurePath(settings.source).name or settings.source,
        train=batches(
            train,
            settings.augment,
            batch_size=settings.batch_size,
            shuffle=True,
            mixer=mixer,
            part=own,
        ),
        validation=batches(validation, part=own),
        test=batches(test),
        calibration=batches(train, shuffle=True),
        classes=opened.classes,
        channels=opened.channels,
        image_size=opened.image_size,
        mean=normalisation.mean,
        std=normalisation.std,
        label_names=opened.label_names,
        in_memory=in_memory,
        identity=identity_of(settings, parts[:2], normalisation, seed),
    )


def opened_source(settings: DataSettings) -> Source:
    """Open what the settings name: an embedded set, a folder or hub id of images, recordings."""
    if settings.events.frames == 0 and settings.source == EMBEDDED_EVENTS:
        raise ConfigError(
            f"data.source is {EMBEDDED_EVENTS!r} and data.events.frames is 0; give the number of "
            "frames a recording is cut into, for example 8."
        )
    if settings.source == EMBEDDED_TEXT:
        raise ConfigError(
            f"data.source is {EMBEDDED_TEXT!r} and data.text.context is 0; give the number of "
            "tokens of a context, for example 128."
        )
    if settings.events.frames and settings.source == EMBEDDED:
        raise ConfigError(
            f"data.events.frames is {settings.events.frames}, and {EMBEDDED!r} are images; choose "
            f"data.source {EMBEDDED_EVENTS!r}, or leave data.events out."
        )
    if settings.events.frames:
        return open_events(settings)
    return open_digits(settings) if settings.source == EMBEDDED else open_source(settings)


def identity_of(
    settings: DataSettings, trained: Sequence[Images], normalisation: Normalisation, seed: int
) -> dict[str, Any]:
    """Collect what a training run depends on; images are known by their labels, not read."""
    labels = hashlib.sha256()
    for images in trained:
        labels.update(np.asarray(images.labels, dtype="<i8").tobytes() + b"|")
    return {
        **settings_compared(settings, seed=seed),
        "data.labels": labels.hexdigest()[:16],
        "data.mean": normalisation.mean,
        "data.std": normalisation.std,
    }


def decoded_bytes(parts: list[Images]) -> int:
    """Memory all parts take once decoded; 0 for what is in memory already."""
    return sum(part.bytes for part in parts if isinstance(part, OnDemand))


def choose_normalisation(
    settings: DataSettings, channels: int, train: Images, seed: int
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


def pieces(train: Images, seed: int) -> Iterator[Tensor]:
    """Give the training images in pieces small enough for wide arithmetic."""
    rows = np.arange(len(train))
    if isinstance(train, OnDemand) and len(train) > MEASURED_IMAGES:
        generator = np.random.default_rng(sample_seed(seed))
        rows = np.sort(generator.choice(rows, MEASURED_IMAGES, replace=False))
    sample = train.take(rows)
    yield from sample.batches(torch.arange(len(sample)).split(PIECE))
