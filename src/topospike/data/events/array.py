"""Events of one recording: a structured array (t, x, y, p), sorted by time.

``t`` is int64 in microseconds, ``x`` and ``y`` int16 pixels from the corner of the sensor, ``p``
bool (True: brighter). Whatever a file or a user brings is turned into this form here, or refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from topospike.errors import ConfigError, ShapeError

EVENT = np.dtype([("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.bool_)])
FIELDS = ("t", "x", "y", "p")


def event_array(
    t: Sequence[int] | np.ndarray,
    x: Sequence[int] | np.ndarray,
    y: Sequence[int] | np.ndarray,
    p: Sequence[int] | np.ndarray,
    *,
    sensor: tuple[int, int],
    place: str = "the recording",
) -> np.ndarray:
    """Make the event array of a recording from its four columns.

    Parameters
    ----------
    t
        Times in microseconds, whole numbers; only differences matter. Events that are not in the
        order of time are sorted (those of one time keep their order).
    x, y
        Column and row of the pixel, 0 to width - 1 and 0 to height - 1.
    p
        Polarity: bool, 0 and 1, or -1 and 1.
    sensor
        (height, width) in pixels.
    place
        What is read, for messages.

    Returns
    -------
    ndarray of `EVENT`

    Raises
    ------
    ShapeError
        If the columns are not one-dimensional and of one length.
    ConfigError
        If there is no event, a column holds no whole numbers, a polarity is another, or a pixel
        lies outside the sensor.

    Examples
    --------
    >>> event_array([5, 3], [0, 1], [0, 0], [-1, 1], sensor=(2, 2))["t"]
    array([3, 5])
    """
    columns = {name: np.asarray(values) for name, values in zip(FIELDS, (t, x, y, p), strict=True)}
    shapes = {name: column.shape for name, column in columns.items()}
    if len(set(shapes.values())) > 1 or columns["t"].ndim != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ShapeError(
            f"{place} has columns of shapes {listed}; four columns of one length are required, "
            "one entry an event."
        )
    if not len(columns["t"]):
        raise ConfigError(f"{place} holds no event; leave it out, there is nothing to learn from.")
    for name, column in columns.items():
        if column.dtype.kind not in "iub":
            raise ConfigError(
                f"{place}: {name} is {column.dtype}; whole numbers are required (t in "
                "microseconds). Scale and round them first."
            )
    polarity = polarities(columns["p"], place)
    for name, size in (("x", sensor[1]), ("y", sensor[0])):
        outside = np.flatnonzero((columns[name] < 0) | (columns[name] >= size))
        if len(outside):
            raise ConfigError(
                f"{place}: event {outside[0]} has {name} = {columns[name][outside[0]]}, outside "
                f"0..{size - 1} of a sensor of {sensor[0]} x {sensor[1]} (height x width). Set "
                "data.events.sensor to the sensor's size, or repair the file."
            )
    events = np.empty(len(polarity), dtype=EVENT)
    for name in ("t", "x", "y"):
        events[name] = columns[name]
    events["p"] = polarity
    if np.any(events["t"][1:] < events["t"][:-1]):
        events = events[np.argsort(events["t"], kind="stable")]
    return events


def polarities(p: np.ndarray, place: str) -> np.ndarray:
    """Return polarities as bool, or refuse numbers that are none."""
    found = np.unique(p).tolist()
    if not (set(found) <= {0, 1} or set(found) <= {-1, 1}):
        raise ConfigError(
            f"{place} has polarities {', '.join(map(str, found[:5]))}; 0 and 1, -1 and 1, or "
            "booleans are required."
        )
    return p > 0
