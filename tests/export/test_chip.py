"""The simulated chip: it fires and counts as the network does, or says what does not fit."""

import math

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import ConfigError, ConversionError
from topospike.snn import SpikingNetwork
from topospike.topology import register_mask

UPDATE, SPIKE, EVENT = 51.2e-12 + 21.6e-12, 69.3e-12, 33.6e-12
"""Joules of Loihi, as the simulator's own file has them (Davies et al. 2018)."""


def one_link() -> SpikingNetwork:
    """Two neurons that are given 0.3 and 0.6 thresholds a step; the second feeds the readout."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[0].bias.zero_()
    register_mask(model[2], torch.tensor([[False, True]]))
    return ts.convert(model, "qcfs", [torch.rand(8, 2)], thresholds={"1": 1.0})


@pytest.mark.slow
def test_by_hand() -> None:
    """From 1/2 up by 0.3 and 0.6 a step: spikes at 2 and 5, and at 1, 3, 5 of T = 5."""
    run = ts.simulate_chip(one_link(), torch.tensor([[0.3, 0.6]]), 5)
    assert (run.neurons, run.links, run.cores, run.chip_steps) == (3, 1, 1, 6)
    assert (run.spikes, run.synaptic_events, run.neuron_updates) == (5, 3, 18)
    assert run.energy_joule["soma"] == pytest.approx(18 * UPDATE + 5 * SPIKE)
    assert run.energy_joule["synapse"] == pytest.approx(3 * EVENT)
    parts = math.fsum(joule for part, joule in run.energy_joule.items() if part != "total")
    assert run.energy_joule["total"] == pytest.approx(parts)
    assert run.seconds > 0
    assert "3 links" not in run.text()
    assert "soma" in run.text()


def network(kind: str) -> tuple[nn.Module, torch.Tensor]:
    if kind == "vectors":
        model = nn.Sequential(
            nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 30), nn.ReLU(), nn.Linear(30, 5)
        )
        register_mask(model[2], torch.rand(30, 30) < 0.2)
        return model, torch.randn(20, 12)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(24, 5),
    ).eval()  # fmt: skip
    register_mask(model[3], torch.rand(6, 2, 3, 3) < 0.5)
    return model, torch.randn(20, 2, 8, 8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vectors", "images"])
def test_spikes_and_events_are_those_counted_here(kind: str) -> None:
    """The chip raises where they differ; events of the evaluation are compared once more."""
    torch.manual_seed(0)
    model, x = network(kind)
    snn = ts.convert(model, "qcfs", [x])
    coarse, _ = ts.quantise_weights(snn, 3)  # many links weigh exactly 0, and still carry events
    for each in (snn, coarse):
        run = ts.simulate_chip(each, x[:3], 6)
        counted = ts.evaluate(each, [(x[:3], torch.zeros(3, dtype=torch.int64))], 6)
        assert run.synaptic_events == pytest.approx(counted.sops[-1], rel=1e-12)
        assert run.synaptic_events > 0
        rates = (sum(site.firing_rate) * site.neurons for site in counted.sites)
        assert run.spikes == pytest.approx(sum(rates), rel=1e-12)
        assert run.chip_steps == 6 + len(snn.sites)


class Shortcuts(nn.Module):
    """A block past two layers, one past three with links of its own, and the image again."""

    def __init__(self, *, images: bool) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.three, self.past = (
            nn.Conv2d(2, 2, 3, padding=1) if images else nn.Linear(8, 8) for _ in range(5)
        )
        register_mask(self.past, torch.rand(self.past.weight.shape) < 0.5)
        self.head = nn.Linear(32 if images else 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = torch.relu(self.stem(x))
        second = torch.relu(self.two(torch.relu(self.one(first))) + first)
        third = torch.relu(self.three(second) + self.past(first) + x)
        return self.head(third.flatten(1))


@pytest.mark.slow
@pytest.mark.parametrize("images", [False, True])
def test_shortcuts_wait_in_relays_and_what_these_cost_is_told_apart(images: bool) -> None:
    """Spikes and layers' events are compared inside; relays add their own, spike for spike."""
    torch.manual_seed(0)
    x = torch.rand(20, 2, 4, 4) if images else torch.rand(20, 8)
    snn = ts.convert(Shortcuts(images=images), "qcfs", [x])
    run = ts.simulate_chip(snn, x[:2], 6)
    counted = ts.evaluate(snn, [(x[:2], torch.zeros(2, dtype=torch.int64))], 6)
    assert run.synaptic_events - run.events_beside_layers == pytest.approx(counted.sops[-1])
    spikes = {site.name: sum(site.firing_rate) * site.neurons for site in counted.sites}
    stem, one, second, third = spikes.values()
    # Of the first site's spikes two relays send copies; the shortcut adds one event to each.
    assert run.spikes == pytest.approx(stem * 3 + one + second + third)
    assert run.events_beside_layers == pytest.approx(stem * 3)
    neurons = 32 if images else 8
    assert run.neurons == 6 * neurons + 3
    assert (run.chip_steps, run.ties) == (6 + 4, ())
    assert f"without {run.events_beside_layers:.6g} of shortcuts and relays" in run.text()


@pytest.mark.slow
def test_a_network_over_several_cores_costs_messages_between_them() -> None:
    torch.manual_seed(0)
    model, x = network("vectors")
    snn = ts.convert(model, "qcfs", [x])
    one, several = (ts.simulate_chip(snn, x[:1], 4, neurons_per_core=n) for n in (1024, 10))
    assert (one.cores, several.cores) == (1, 7)
    assert several.energy_joule["network"] > one.energy_joule["network"]
    assert several.energy_joule["soma"] == pytest.approx(one.energy_joule["soma"])


def test_a_difference_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("topospike.export.chip.GRAIN", -(2.0**20))  # a chip that fires too late
    with pytest.raises(ConversionError, match=r"neuron 1 at step 1: 0\.1 of a threshold"):
        ts.simulate_chip(one_link(), torch.tensor([[0.3, 0.6]]), 5)


@pytest.mark.slow
@pytest.mark.parametrize("strength", [5.0, 40.0, 1e4])
def test_membranes_of_many_thresholds_are_no_difference(strength: float) -> None:
    """The first neuron piles up; of the next two one waits far below 0, one fires on far above."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    with torch.no_grad():
        model[0].weight.copy_(torch.diag(torch.tensor([strength, 1.0])))
        model[2].weight.copy_(strength * torch.tensor([[-1.0, 8.0], [1.0, -8.0]]))
        model[0].bias.zero_()
        model[2].bias.copy_(torch.tensor([0.0, 0.313]))
    snn = ts.convert(model, "qcfs", [torch.rand(8, 2)], thresholds={"1": 1.0, "3": 1.0})
    images = torch.tensor([[1.03, 0.117], [1.03, 0.137], [-1.03, 0.71], [0.0, 0.261]])
    run = ts.simulate_chip(snn, images, 20)
    assert run.spikes > 0
    assert run.ties == ()


def test_a_membrane_exactly_at_its_threshold_fires() -> None:
    """From 1/2 up by 1/2 and 1/4 a step: spikes at 1, 3, ... and at 2, 6."""
    run = ts.simulate_chip(one_link(), torch.tensor([[0.5, 0.25]]), 8)
    assert run.spikes == 4 + 2


@pytest.mark.slow
def test_a_tie_is_named_with_its_distance() -> None:
    """One part in 10^8 below the threshold: not told from it in float32."""
    image = torch.tensor([[0.5 - 1e-8, 0.0]], dtype=torch.float64)
    run = ts.simulate_chip(one_link(), image, 2)
    assert run.ties == ("image 0, population 1, neuron 0 at step 1: 1e-08 of a threshold from it",)
    assert run.ties[0] in run.text()


def test_what_does_not_fit_is_refused() -> None:
    torch.manual_seed(0)
    model, x = network("vectors")
    snn = ts.convert(model, "qcfs", [x])
    with pytest.raises(ConversionError, match=r"multi-threshold.*method='qcfs'"):
        ts.simulate_chip(ts.convert(model, calibration=[x]), x[:1])
    wide = nn.Sequential(nn.Linear(12, 200), nn.ReLU(), nn.Linear(200, 5))
    with pytest.raises(ConversionError, match=r"205 neurons, which is 205 cores of 1; .* has 128"):
        ts.simulate_chip(ts.convert(wide, "qcfs", [x]), x[:1], neurons_per_core=1)
    pooled = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 3)
    )
    images = torch.randn(4, 1, 8, 8)
    with pytest.raises(ConversionError, match="max-pool"):
        ts.simulate_chip(ts.convert(pooled, "qcfs", [images]), images[:1])
    with pytest.raises(ConfigError, match="prices nothing"):
        ts.simulate_chip(snn, x[:1], architecture="truenorth")
    with pytest.raises(ConfigError, match=r"no architecture 'none\.yaml'"):
        ts.simulate_chip(snn, x[:1], architecture="none.yaml")
    with pytest.raises(ConfigError, match="timesteps is 0"):
        ts.simulate_chip(snn, x[:1], 0)
