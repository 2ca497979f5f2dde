"""From events to frames: counts of events in successive bins of time, one channel a polarity.

A frame is ``(2, height, width)``; channel 0 counts events that say darker, channel 1 brighter. The
bins follow one another without a gap from the first to the last event, of equal duration or of an
equal number of events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64, UInt8

from topospike.errors import ConfigError
from topospike.recipe import EventSettings
from topospike.registry import Registry

POLARITIES = 2


def by_time(t: Int64[np.ndarray, " event"], frames: int) -> Int64[np.ndarray, " event"]:
    """Return the bin of every event, all of one duration.

    Examples
    --------
    >>> by_time(np.array([10, 11, 14, 19]), 2)
    array([0, 0, 0, 1])
    """
    return (t - t[0]) * frames // (t[-1] - t[0] + 1)


def by_count(t: Int64[np.ndarray, " event"], frames: int) -> Int64[np.ndarray, " event"]:
    """Return the bin of every event, all of one number of events (or one fewer).

    Examples
    --------
    >>> by_count(np.array([10, 11, 14, 19]), 2)
    array([0, 0, 1, 1])
    """
    return np.arange(len(t)) * frames // len(t)


BINNINGS: Registry[Callable[[np.ndarray, int], np.ndarray]] = Registry(
    "binning", {"time": by_time, "count": by_count}
)


@dataclass(frozen=True)
class FrameForm:
    """The common form of the frames of a dataset: how many, from which pixels, how fine.

    Attributes
    ----------
    frames, binning
        Number of bins, and ``time`` or ``count``.
    sensor, crop
        (height, width) of the sensor, and of the middle that is kept (an odd rest stays at the
        bottom and on the right).
    resize
        Side of the squares whose counts are added up.
    clip
        Largest count of an entry; more are cut to it.

    Raises
    ------
    ConfigError
        If the crop is larger than the sensor, or the squares do not fill it.
    """

    frames: int
    binning: str
    sensor: tuple[int, int]
    crop: tuple[int, int]
    resize: int
    clip: int

    def __post_init__(self) -> None:
        if any(part > whole for part, whole in zip(self.crop, self.sensor, strict=True)):
            raise ConfigError(
                f"data.events.crop is {tuple(self.crop)}; it must lie within the sensor of "
                f"{self.sensor[0]} x {self.sensor[1]} pixels."
            )
        if any(side % self.resize for side in self.crop):
            raise ConfigError(
                f"data.events.resize is {self.resize}, which does not divide {self.crop[0]} x "
                f"{self.crop[1]} pixels; choose data.events.crop so that it does."
            )
        _ = BINNINGS[self.binning]

    @classmethod
    def of(cls, settings: EventSettings, sensor: tuple[int, int]) -> FrameForm:
        """Take it from the settings, for a sensor of this size."""
        crop = settings.crop or sensor
        return cls(settings.frames, settings.binning, sensor, crop, settings.resize, settings.clip)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(frame, polarity, height, width)."""
        height, width = (side // self.resize for side in self.crop)
        return self.frames, POLARITIES, height, width

    @property
    def bytes(self) -> int:
        """Memory of the frames of one recording."""
        return int(np.prod(self.shape))


def event_frames(
    events: np.ndarray, form: FrameForm
) -> UInt8[np.ndarray, "frame polarity height width"]:
    """Count the events of a recording in frames.

    Parameters
    ----------
    events
        As `topospike.data.events.event_array` makes them.
    form
        Number and size of the frames.

    Examples
    --------
    >>> from topospike.data.events import event_array
    >>> events = event_array([0, 1, 9], [0, 3, 3], [0, 0, 0], [1, 1, 0], sensor=(2, 4))
    >>> form = FrameForm(2, "time", sensor=(2, 4), crop=(2, 4), resize=2, clip=255)
    >>> event_frames(events, form).tolist()
    [[[[0, 0]], [[1, 1]]], [[[0, 1]], [[0, 0]]]]
    """
    _, _, height, width = shape = form.shape
    frame = BINNINGS[form.binning](events["t"], form.frames)
    top, left = ((whole - part) // 2 for whole, part in zip(form.sensor, form.crop, strict=True))
    y, x = events["y"].astype(np.int64) - top, events["x"].astype(np.int64) - left
    inside = (y >= 0) & (y < form.crop[0]) & (x >= 0) & (x < form.crop[1])
    place = (frame * POLARITIES + events["p"]) * height + y // form.resize
    place = (place * width + x // form.resize)[inside]
    counts = np.bincount(place, minlength=form.bytes).reshape(shape)
    return np.minimum(counts, form.clip).astype(np.uint8)
