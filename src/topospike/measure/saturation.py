"""When accuracy, or another metric, stops improving with time: the saturation time T0."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from topospike.errors import ConfigError


def saturation_time(
    accuracy: Sequence[float],
    window: int = 5,
    epsilon: float = 0.01,
    *,
    lower_is_better: bool = False,
    first: int = 1,
) -> int | None:
    """Return the first time step after which accuracy has stopped improving.

    Parameters
    ----------
    accuracy
        Accuracy at t = 1, 2, ..., T, as fractions or per cent; or any other metric.
    window
        How many consecutive steps must bring no improvement.
    epsilon
        Largest relative improvement from one step to the next that counts as none.
    lower_is_better
        Whether the metric improves by falling, as an error does.
    first
        The first step with an answer: what is before it does not count, and the window begins with
        it.

    Returns
    -------
    int or None
        T0, counted from 1; ``None`` if accuracy is still improving at T.

    Raises
    ------
    ConfigError
        If ``window`` or ``first`` is below 1 or ``epsilon`` is negative.

    Notes
    -----
    Bao et al. 2026, Algorithm 1: with ``d_t = (A_t - A_{t-1}) / A_{t-1}``, T0 is the smallest
    ``i >= window`` for which ``max(d_{i-window+1}, ..., d_i) <= epsilon``. The improvement d_1 is
    not defined there; here the window simply does not contain it. A step up from an accuracy of
    0 is an infinite improvement.

    Examples
    --------
    >>> saturation_time([0.5, 0.8, 0.9, 0.901, 0.902, 0.902, 0.902, 0.902])
    8
    >>> saturation_time([0.1, 0.2, 0.3]) is None
    True
    >>> saturation_time([8.0, 4.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], lower_is_better=True)
    8

    An answer that is read out late, first at t = 4:

    >>> saturation_time([0.0, 0.0, 0.0, 0.9, 0.9, 0.9, 0.9, 0.9], first=4)
    8
    """
    if window < 1 or epsilon < 0 or first < 1:
        raise ConfigError(
            f"window is {window}, epsilon {epsilon} and first {first}; window >= 1, epsilon >= 0 "
            "and first >= 1 are required."
        )
    sign = -1 if lower_is_better else 1
    answers = accuracy[first - 1 :]
    gains = [sign * relative_gain(a, b) for a, b in itertools.pairwise(answers)]
    for end in range(window, len(answers) + 1):
        # gains[k] is the improvement of step k + 2, so steps end-window+1..end are this slice
        recent = gains[max(0, end - window - 1) : end - 1]
        if all(gain <= epsilon for gain in recent):
            return first - 1 + end
    return None


def relative_gain(before: float, after: float) -> float:
    """Return (after - before) / before, infinite for any gain from zero."""
    if before == 0:
        return float("inf") if after > 0 else 0.0
    return (after - before) / before
