from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import ConfigError
from topospike.evolve import UpdateSchedule, sparsify


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
        ({"length": 0}, "epochs=0"),
        ({"length": 5, "interval": 0}, "update_interval=0"),
    ],
)
def test_errors_name_the_value(arguments, message):
    with pytest.raises(ConfigError, match=message):
        UpdateSchedule(**arguments)


def test_the_length_of_the_training_is_compared_in_the_unit_of_the_schedule():
    UpdateSchedule(4).check(epochs=4, steps_per_epoch=7)
    UpdateSchedule(28, unit="step").check(epochs=4, steps_per_epoch=7)
    with pytest.raises(ConfigError, match=r"made for 4 epochs, the training has 5 .* epochs=5"):
        UpdateSchedule(4).check(epochs=5, steps_per_epoch=7)
    with pytest.raises(ConfigError, match=r"made for 200 steps, .* steps=28"):
        UpdateSchedule(200, unit="step").check(epochs=4, steps_per_epoch=7)


def test_a_rule_that_never_changes_a_link_goes_with_any_length():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    sparsify(model, "static", sparsity=0.5, epochs=2).check_schedule(9, 1)


def evolve(times, **options):
    """Return the record of every update of one 40 x 30 layer with random weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 40), nn.ReLU(), nn.Linear(40, 2))
    sparsifier = sparsify(model, sparsity=0.9, percolation=False, **options)
    records = []
    for time in times:
        with torch.no_grad():
            noise = torch.randn_like(model[0].weight)
            model[0].weight.copy_(noise * model[0].weight_mask)
        if sparsifier.is_update_epoch(time):
            records.append(sparsifier.update_topology(time).layers["0"])
    return records


def test_steps_are_counted_like_epochs():
    by_epoch = evolve(range(12), rule="chts", epochs=12, update_interval=3, seed=5)
    by_step = evolve(range(12), rule="chts", steps=12, update_interval=3, seed=5)
    assert by_step == by_epoch
    assert len(by_step) == 3


@pytest.mark.parametrize("length", [{}, {"epochs": 3, "steps": 3}])
def test_the_length_is_given_in_exactly_one_unit(length):
    with pytest.raises(ConfigError, match="exactly one of the two"):
        sparsify(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), sparsity=0.5, **length)
