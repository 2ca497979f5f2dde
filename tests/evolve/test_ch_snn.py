"""The rule of CH-SNN: removal by damped relative importance, permanent percolation, SSWI, SSCTI."""

import math

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import ConfigError
from topospike.evolve import REMOVAL_CRITERIA, RULES
from topospike.evolve.rules import RemovalInput
from topospike.topology import feature_correlation, get_mask


def network(hidden=40):
    return nn.Sequential(
        nn.Linear(16, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 5)
    )


def test_removal_score_by_hand():
    weight = torch.tensor([[1.0, -3.0], [0.0, 2.0]])
    score = REMOVAL_CRITERIA["ri_damped_soft"].score(RemovalInput("a", weight, 1, None))
    expected = torch.tensor([[1 / 5 + 1 / 2, 3 / 5 + 3 / 6], [0.0, 2 / 3 + 2 / 6]])
    assert torch.allclose(score, expected)


def test_by_name_the_rule_brings_its_start():
    sparsifier = ts.sparsify(network(), "ch-snn", sparsity=0.8, epochs=8, percolation=False)
    settings = sparsifier.evolution.settings
    assert (settings.linear_score, settings.weight_init) == ("CH3-L3p", "sswi")
    for mask in sparsifier.masks.values():
        fan_in = mask.sum(1)
        assert int(fan_in.max() - fan_in.min()) <= 1
    other = ts.sparsify(network(), "ch-snn", sparsity=0.8, epochs=8, initial_topology="er")
    assert other.evolution.settings.initial_topology == "er"


def test_sswi_variances():
    model = network(hidden=800)
    ts.sparsify(model, "ch-snn", sparsity=0.9, epochs=8, threshold=0.5)
    gain = math.sqrt(math.pi) / (math.sqrt(2) * math.exp(-0.5))
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    variance = [0.25 / (0.1 * 16), 0.25 * gain / (0.1 * 800), 0.25 * gain / 800]
    for layer, expected in zip(layers, variance, strict=True):
        links = get_mask(layer)
        weights = layer.weight.detach() if links is None else layer.weight.detach()[links]
        assert float(weights.var()) == pytest.approx(expected, rel=0.15)


def test_sscti_links_features_that_spike_together():
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(200, 16, generator=generator) < 0.3).float()
    spikes[:, 1] = spikes[:, 0]
    counts = spikes * torch.randint(1, 9, spikes.shape, generator=generator)
    model = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 5))
    ts.sparsify(
        model, "ch-snn", sparsity=0.9, epochs=8, initial_topology="sscti", csti_features=counts
    )
    mask = get_mask(model[0])
    phi = feature_correlation(spikes)
    assert bool(mask[0, 1])
    assert bool(mask[1, 0])
    assert float(phi[mask].min()) >= float(phi[~mask].max())
    with pytest.raises(ConfigError, match="start from sscti, which needs csti_features"):
        ts.sparsify(network(), "ch-snn", sparsity=0.9, epochs=8, initial_topology="sscti")


def test_what_percolation_takes_never_grows_again(tmp_path):
    model = network()
    sparsifier = ts.sparsify(
        model, "ch-snn", sparsity=0.97, epochs=20, example_input=torch.zeros(2, 16)
    )
    sparsifier.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    barred = {name: torch.zeros_like(mask) for name, mask in sparsifier.masks.items()}
    taken = 0
    for epoch in range(15):
        update = sparsifier.update_topology(epoch)
        taken += sum(change.percolated for change in update.layers.values())
        for name, mask in sparsifier.masks.items():
            now = sparsifier.barred[name]
            assert not (mask & now).any()
            assert not (barred[name] & ~now).any()  # what is barred stays so
            barred[name] = now
        assert all(change.shortfall == 0 for change in update.layers.values())
    assert taken > 0
    assert sum(int(places.sum()) for places in barred.values()) == taken
    state = sparsifier.state_dict()
    again = ts.sparsify(
        network(), "ch-snn", sparsity=0.97, epochs=20, example_input=torch.zeros(2, 16)
    )
    again.model.load_state_dict(model.state_dict())
    again.load_state_dict(state)
    assert all(torch.equal(again.barred[name], places) for name, places in barred.items())


def test_links_grow_only_where_they_may_and_the_rule_is_listed():
    assert RULES["ch-snn"].permanent
    assert [name for name, rule in RULES.items() if rule.permanent] == ["ch-snn"]
