import pytest
import torch
from torch import nn

from topospike.errors import ConfigError
from topospike.evolve import sparsify


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


def test_elastic_mutation_grows_a_surplus_and_lands_on_the_target():
    records = evolve(range(10), rule="set", epochs=10, stop_fraction=1.0, elastic=0.05)
    # 120 links of 1200; 60 more until 0.6 of the evolution, 30 more until the last update.
    assert [record.active_after for record in records] == [180] * 6 + [150] * 3 + [120]
    assert [record.grown for record in records] == [60] * 6 + [30] * 3 + [0]
    assert [record.removed for record in records] == [0] + [60] * 6 + [30] * 3


def test_elastic_mutation_follows_a_falling_density():
    records = evolve(
        range(8), rule="chtss", epochs=8, stop_fraction=1.0, elastic=0.05, density_decay="linear"
    )
    # 50 % to 10 % in eight equal steps of 60 links, plus the surplus.
    expected = [600 - 60 * t + (60 if t <= 4 else 30 if t < 8 else 0) for t in range(1, 9)]
    assert [record.active_after for record in records] == expected


def test_steps_are_counted_like_epochs():
    by_epoch = evolve(range(12), rule="chts", epochs=12, update_interval=3, seed=5)
    by_step = evolve(range(12), rule="chts", steps=12, update_interval=3, seed=5)
    assert by_step == by_epoch
    assert len(by_step) == 3


@pytest.mark.parametrize("length", [{}, {"epochs": 3, "steps": 3}])
def test_the_length_is_given_in_exactly_one_unit(length):
    with pytest.raises(ConfigError, match="exactly one of the two"):
        sparsify(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), sparsity=0.5, **length)


@pytest.mark.parametrize("options", [{"elastic": 1.5}, {"elastic": 0.05, "rule": "static"}])
def test_an_impossible_surplus_is_refused(options):
    with pytest.raises(ConfigError, match="elastic is"):
        sparsify(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), sparsity=0.5, epochs=2, **options)
