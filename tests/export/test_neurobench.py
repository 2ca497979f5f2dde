"""NeuroBench's counters on the wrapped network against ours, to the digit."""

import sys

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import topospike as ts
from topospike.errors import ConfigError, MissingDependencyError
from topospike.measure import Conventions

STEPS = 5


def neurobench_counts(snn: ts.SpikingNetwork, x: torch.Tensor, **options: str) -> dict[str, float]:
    """Run NeuroBench itself over two unequal batches."""
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations

    model = ts.wrap_for_neurobench(snn, STEPS, **options)
    data = DataLoader(TensorDataset(x, torch.zeros(len(x))), batch_size=4)
    return Benchmark(model, data, [], [], [[], [SynapticOperations]]).run(quiet=True)[
        "SynapticOperations"
    ]


@pytest.mark.parametrize("method", ["qcfs", "dcgs"])
def test_effective_operations_equal_ours(spiking, method):
    snn, x = spiking(method)
    labels = torch.zeros(len(x), dtype=torch.long)
    ours = ts.evaluate(snn, [(x, labels)], STEPS)
    theirs = neurobench_counts(snn, x)
    assert round(theirs["Effective_ACs"] * 6) == round(ours.sops[-1] * 6) > 0
    assert theirs["Effective_ACs"] == pytest.approx(ours.sops[-1], rel=1e-12)
    assert theirs["Effective_MACs"] == ours.macs


def test_a_first_layer_charged_every_step_is_so_for_both(spiking):
    snn, x = spiking("qcfs")
    labels = torch.zeros(len(x), dtype=torch.long)
    per_step = Conventions(first_layer="mac_per_step")
    ours = ts.evaluate(snn, [(x, labels)], STEPS, conventions=per_step)
    assert neurobench_counts(snn, x, first_layer="mac_per_step")["Effective_MACs"] == ours.macs


def test_the_wrapped_network_answers_as_ours_and_shows_its_neurons(spiking):
    snn, x = spiking("cs-qcfs")
    wrapped = ts.wrap_for_neurobench(snn, STEPS)
    assert torch.allclose(wrapped(x), snn(x, timesteps=STEPS)[-1], atol=1e-12)
    assert len(wrapped.activation_layers()) == len(snn.sites)


def test_unknown_conventions_are_refused():
    snn = ts.convert(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "qcfs", [torch.rand(4, 3)])
    with pytest.raises(ConfigError, match=r"first_layer is 'ac'; 'mac_once' or"):
        ts.wrap_for_neurobench(snn, first_layer="ac")


def test_without_neurobench_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "neurobench", None)  # as if it were not installed
    snn = ts.convert(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "qcfs", [torch.rand(4, 3)])
    with pytest.raises(MissingDependencyError, match="pip install --no-deps neurobench snntorch"):
        ts.wrap_for_neurobench(snn)
