from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.evolve import UpdateSchedule


def test_updates_follow_every_epoch_of_the_first_three_quarters():
    assert UpdateSchedule(8).update_epochs == (0, 1, 2, 3, 4, 5)


def test_vision_transformer_window():
    schedule = UpdateSchedule(300, interval=5, start_fraction=10 / 300, stop_fraction=0.6)
    assert schedule.update_epochs[:2] == (9, 14)
    assert (schedule.first, schedule.last) == (10, 180)


def test_binary_rounding_does_not_lose_an_epoch():
    assert UpdateSchedule(100, stop_fraction=0.29).stop == 29


def test_a_short_training_still_has_one_update_unless_forbidden():
    assert UpdateSchedule(1).update_epochs == (0,)
    assert UpdateSchedule(8, stop_fraction=0.0).update_epochs == ()
    assert UpdateSchedule(8, stop_fraction=0.0).progress(3) == 1.0


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    epochs=st.integers(1, 60),
    interval=st.integers(1, 9),
    start=st.floats(0, 1),
    length=st.floats(0, 1),
)
def test_updates_lie_in_the_window_at_the_right_distance(epochs, interval, start, length):
    schedule = UpdateSchedule(epochs, interval, start, start + (1 - start) * length)
    times = [epoch + 1 for epoch in schedule.update_epochs]
    assert all(max(schedule.start, 1) <= t <= schedule.stop <= epochs for t in times)
    assert all(b - a == interval for a, b in pairwise(times))
    assert [e for e in range(epochs) if schedule.is_update_epoch(e)] == list(schedule.update_epochs)
    assert all(0 <= schedule.progress(e) <= 1 for e in range(epochs))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 5, "interval": 0}, "update_interval=0"),
        ({"epochs": 5, "stop_fraction": 1.5}, "stop_fraction=1.5"),
        ({"epochs": 5, "start_fraction": 0.9}, "start_fraction=0.9"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ConfigError, match=message):
        UpdateSchedule(**arguments)
