"""A set of recordings as the loader reads it: frames of counts, made when they are asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from topospike.data.augment import parsed
from topospike.data.events.augment import EVENT_AUGMENTATIONS
from topospike.data.events.camera import FIELD, digit_events
from topospike.data.events.folders import find_recordings
from topospike.data.events.frames import POLARITIES, FrameForm, event_frames
from topospike.data.events.readers import sensor_of
from topospike.data.hub import Source, find_source
from topospike.data.ondemand import OnDemand
from topospike.errors import ConfigError, MissingDataError
from topospike.recipe import DataSettings

EMBEDDED = "digits-events"
IMAGES_ONLY = ("image_column", "label_column", "image_size", "channels", "mean", "std")


@runtime_checkable
class Readable(Protocol):
    """Something whose events can be read."""

    def read(self, sensor: tuple[int, int]) -> np.ndarray:
        """Return the events of a sensor of this size."""
        ...


class Recordings(OnDemand):
    """Labelled recordings; a batch of them is ``(batch, frame, polarity, height, width)`` counts.

    Parameters
    ----------
    sources
        One for each recording.
    labels
        Their classes.
    form
        Number and size of the frames.
    """

    scale = 1.0

    def __init__(
        self, sources: Sequence[Readable], labels: Int64[np.ndarray, " image"], form: FrameForm
    ) -> None:
        super().__init__(labels, form.shape)
        self.sources, self.form = tuple(sources), form

    def __getitems__(self, rows: list[int]) -> UInt8[Tensor, "batch frame polarity height width"]:
        """Read these recordings and count their events in frames."""
        found = [self.sources[row].read(self.form.sensor) for row in rows]
        return torch.from_numpy(np.stack([event_frames(events, self.form) for events in found]))

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Recordings:
        """Return the recordings of these rows, in this order; nothing is read."""
        return Recordings([self.sources[row] for row in rows], self.labels[rows], self.form)


@dataclass(frozen=True)
class SimulatedDigit:
    """A scan as the simulated camera sees it; see `topospike.data.events.digit_events`."""

    scan: np.ndarray
    row: int
    noise: float

    def read(self, sensor: tuple[int, int]) -> np.ndarray:
        """Return its events."""
        return digit_events(self.scan, row=self.row, noise=self.noise)


def open_events(settings: DataSettings) -> Source:
    """Open recordings of events as the settings describe them.

    Raises
    ------
    ConfigError
        If a setting is for images only, or contradicts another.
    MissingDataError
        If the folder is not there, or is no set of recordings.
    """
    for option in IMAGES_ONLY:
        if getattr(settings, option) is not None:
            raise ConfigError(
                f"data.{option} = {getattr(settings, option)!r} has no meaning for events, whose "
                "frames are counts; leave it out, or set data.events.frames to 0 for images."
            )
    if settings.mix:
        raise ConfigError(
            f"data.mix = {list(settings.mix)} would make fractions of events; leave it out."
        )
    for entry in settings.augment:  # before anything is read
        parsed(entry, EVENT_AUGMENTATIONS)
    if settings.source == EMBEDDED:
        parts, sensor, names = simulated(settings), (FIELD, FIELD), tuple("0123456789")
    else:
        parts, sensor, names = on_disk(settings)
    form = FrameForm.of(settings.events, settings.events.sensor or sensor)
    _, _, height, width = form.shape
    train, test = (Recordings(sources, labels, form) for sources, labels in parts)
    channels = POLARITIES * (form.frames if settings.events.stack else 1)
    return Source(train, test, len(names), channels, (height, width), names)


Part = tuple[Sequence[Readable], Int64[np.ndarray, "..."]]


def simulated(settings: DataSettings) -> tuple[Part, Part]:
    """Return the embedded recordings; the splits are those of the digits they are made from."""
    from topospike.data.digits import digits

    if settings.events.sensor is not None:
        raise ConfigError(
            f"data.events.sensor = {list(settings.events.sensor)}: {EMBEDDED!r} has a sensor of "
            f"{FIELD} x {FIELD}; leave it out."
        )
    parts, row = [], 0
    for images in digits():
        scans = images.pixels[:, 0].double().numpy() / images.scale
        noise = settings.events.noise
        sources = [SimulatedDigit(scan, row + i, noise) for i, scan in enumerate(scans)]
        parts.append((sources, images.labels))
        row += len(sources)
    return parts[0], parts[1]


def on_disk(
    settings: DataSettings,
) -> tuple[tuple[Part, Part], tuple[int, int], tuple[str, ...]]:
    """Return the recordings of a folder, its sensor and its classes."""
    if settings.events.noise:
        raise ConfigError(
            f"data.events.noise = {settings.events.noise} is of the simulated camera; recordings "
            "have their own. Leave it out."
        )
    place: Any = find_source(settings.source)
    if not isinstance(place, Path):
        raise MissingDataError(
            f"data.source = {settings.source!r} is no folder here or under TOPOSPIKE_DATA; "
            "recordings of events are read from a local folder only. Download them first."
        )
    *splits, names = find_recordings(
        place, train_split=settings.train_split, test_split=settings.test_split
    )
    train, test = (
        (found, np.array([recording.label for recording in found], dtype=np.int64))
        for found in splits
    )
    first = splits[0][0].path
    return (train, test), sensor_of(first, settings.events.sensor), names
