"""The embedded set ``digits-events``: scikit-learn's digits seen by a *simulated* event camera.

Each 8 x 8 scan is enlarged bilinearly to 24 x 24 on a dark field of 34 x 34 pixels and moved along
three straight saccades, 120 degrees apart, of 100 ms each; the first direction is drawn. A pixel
watches L = log(I + 0.1), sampled every millisecond, and sends an event of sign p whenever L has
moved by C = 0.2 since its last event, at a time interpolated linearly. No recording of a real
sensor is part of it.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch.nn import functional as F

from topospike.data.events.array import EVENT
from topospike.data.seeds import stream_seed

FIELD, DIGIT = 34, 24
SACCADES, SACCADE_MS, REACH = 3, 100, 2.5
OFFSET, CONTRAST, MILLISECOND = 0.1, 0.2, 1000
CAMERA = 102
"""Second part of the keys of the camera's random streams."""


def level_crossings(
    brightness: Float[np.ndarray, "sample height width"], contrast: float, interval: int
) -> np.ndarray:
    """Return the events of pixels whose log intensity was sampled at equal intervals.

    Parameters
    ----------
    brightness
        L at times 0, 1, ... in units of ``interval``; its first sample is where pixels start.
    contrast
        C, the change that makes an event.
    interval
        Microseconds between samples.

    Notes
    -----
    With l = (L - L_0) / C the last event of a pixel was at a whole level r, and r becomes
    ``min(max(r, floor(l)), ceil(l))``: one event for each level passed, at the time at which the
    straight line between two samples passes it.

    Examples
    --------
    One pixel gets brighter by 2.5 C in one interval.

    >>> events = level_crossings(np.array([[[0.0]], [[0.5]]]), contrast=0.2, interval=1000)
    >>> events["t"].tolist(), events["p"].tolist()
    ([400, 800], [True, True])
    """
    levels = (brightness - brightness[0]) / contrast
    moving = np.ptp(levels, axis=0) >= 1.0  # the others have no event
    rows, columns = np.nonzero(moving)
    levels = levels[:, rows, columns]
    reached = np.zeros(levels.shape, dtype=np.int64)
    for step, (low, high) in enumerate(zip(np.floor(levels), np.ceil(levels), strict=True)):
        reached[step] = np.minimum(np.maximum(reached[max(step - 1, 0)], low), high)
    passed = np.diff(reached, axis=0)
    step, pixel = np.nonzero(passed)
    count = np.abs(passed[step, pixel])
    step, pixel = np.repeat(step, count), np.repeat(pixel, count)
    first = np.repeat(np.cumsum(count) - count, count)
    sign = np.sign(passed[step, pixel])
    level = reached[step, pixel] + sign * (np.arange(len(step)) - first + 1)
    before, after = levels[step, pixel], levels[step + 1, pixel]
    events = np.empty(len(step), dtype=EVENT)
    share = (level - before) / (after - before)
    events["t"] = np.rint((step + share) * interval).astype(np.int64)
    events["x"], events["y"], events["p"] = columns[pixel], rows[pixel], sign > 0
    return events[np.argsort(events["t"], kind="stable")]


def saccade_path(direction: float) -> Float[np.ndarray, "sample 2"]:
    """Return (down, right) in pixels at every millisecond: a triangle around the middle."""
    turns = direction + 2 * np.pi / SACCADES * np.arange(SACCADES)
    ways = REACH * np.stack([np.sin(turns), np.cos(turns)], axis=1)
    corners = np.concatenate([np.zeros((1, 2)), np.cumsum(ways, axis=0)])
    times = np.arange(SACCADES * SACCADE_MS + 1) / SACCADE_MS
    path = [np.interp(times, np.arange(SACCADES + 1), corners[:, axis]) for axis in (0, 1)]
    return np.stack(path, axis=1) - corners[:-1].mean(0)


def moved(
    digit: Float[np.ndarray, "size size"], path: Float[np.ndarray, "sample 2"], field: int
) -> Float[np.ndarray, "sample field field"]:
    """Return the field at every place of the path, bilinear between pixels, dark outside."""
    rest = (field - len(digit)) / 2
    # where each pixel of the field lies in the digit: (axis, sample, pixel, 1)
    places = np.arange(field)[:, None] - rest - path.T[:, :, None, None]
    weights = np.maximum(0.0, 1.0 - np.abs(places - np.arange(len(digit))))
    return weights[0] @ digit @ weights[1].transpose(0, 2, 1)


def digit_events(
    scan: Float[np.ndarray, "8 8"], *, row: int, seed: int = 0, noise: float = 0.0
) -> np.ndarray:
    """Return the events of one simulated recording.

    Parameters
    ----------
    scan
        Intensities in [0, 1].
    row
        Number of the scan; with ``seed`` it fixes direction and noise.
    noise
        Background events a second and pixel, of either sign, at random times.

    Examples
    --------
    >>> scan = np.zeros((8, 8))
    >>> scan[2:6, 3:5] = 1.0
    >>> events = digit_events(scan, row=0)
    >>> len(events) > 500, int(events["t"].max()) <= 300_000
    (True, True)
    """
    generator = np.random.default_rng(stream_seed(seed, CAMERA, row, 0))
    large = F.interpolate(
        torch.from_numpy(np.asarray(scan, dtype=np.float64))[None, None],
        size=(DIGIT, DIGIT),
        mode="bilinear",
        align_corners=False,
    )[0, 0].numpy()
    path = saccade_path(generator.uniform(0, 2 * np.pi))
    brightness = np.log(moved(large, path, FIELD) + OFFSET)
    events = level_crossings(brightness, CONTRAST, MILLISECOND)
    if not noise:
        return events
    duration = SACCADES * SACCADE_MS * MILLISECOND
    count = generator.poisson(noise * FIELD * FIELD * duration / 1e6)
    extra = np.empty(count, dtype=EVENT)
    extra["t"] = generator.integers(0, duration, count)
    extra["x"], extra["y"] = generator.integers(0, FIELD, (2, count))
    extra["p"] = generator.integers(0, 2, count)
    together = np.concatenate([events, extra])
    return together[np.argsort(together["t"], kind="stable")]
