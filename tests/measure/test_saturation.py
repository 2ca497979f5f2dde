"""Algorithm 1 by hand."""

import pytest

from topospike.errors import ConfigError
from topospike.measure import saturation_time


@pytest.mark.parametrize(
    ("accuracy", "expected"),
    [
        ([0.5] * 8, 5),  # flat from the start: the first full window
        ([0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 7),  # the jump at t=2 leaves the window at t=7
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.95, 0.95, 0.95, 0.95, 0.95, 0.95], 5),
        ([0.5, 0.504, 0.508, 0.512, 0.516, 0.52], 5),  # gains of 0.8 % count as none
        ([0.1 * t for t in range(1, 9)], None),
        ([0.9, 0.8, 0.7, 0.6, 0.5], 5),  # a fall is no improvement
        ([0.0, 0.0, 0.0, 0.0, 0.0, 0.1], 5),
        ([0.9] * 4, None),  # shorter than the window
        ([], None),
    ],
)
def test_hand_cases(accuracy: list[float], expected: int | None) -> None:
    assert saturation_time(accuracy) == expected


def test_per_cent_and_fractions_agree() -> None:
    curve = [0.2, 0.5, 0.8, 0.9, 0.905, 0.906, 0.906, 0.906, 0.907]
    assert saturation_time(curve) == saturation_time([100 * a for a in curve])


def test_window_and_epsilon_are_checked() -> None:
    with pytest.raises(ConfigError, match="window is 0"):
        saturation_time([0.5], window=0)
    with pytest.raises(ConfigError, match="epsilon -1"):
        saturation_time([0.5], epsilon=-1)
