"""A stored network of integrate-and-fire neurons: spikes, outputs and every operation count."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from topospike.conversion import convert
from topospike.measure import Conventions, evaluate
from topospike.snn import SpikingNetwork
from topospike.topology import register_mask

ORACLE = Path(__file__).parents[1] / "oracles" / "ecosystem" / "synops_if_net.npz"


@pytest.fixture(scope="module")
def stored() -> dict[str, np.ndarray]:
    with np.load(ORACLE, allow_pickle=False) as content:
        return dict(content)


@pytest.fixture(scope="module")
def snn(stored) -> SpikingNetwork:
    c1, c2, fc = stored["c1_w"], stored["c2_w"], stored["fc_w"]
    model = nn.Sequential(
        nn.Conv2d(c1.shape[1], len(c1), 3, padding=1), nn.ReLU(),
        nn.Conv2d(c2.shape[1], len(c2), 3, padding=1, stride=2), nn.ReLU(),
        nn.Flatten(), nn.Linear(fc.shape[1], len(fc)),
    ).eval()  # fmt: skip
    for index, name in ((0, "c1"), (2, "c2"), (5, "fc")):
        layer = model[index]
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(stored[f"{name}_w"]))
            layer.bias.copy_(torch.from_numpy(stored[f"{name}_b"]))
        register_mask(layer, layer.weight != 0)
    x = torch.from_numpy(stored["x"])
    return convert(model, "qcfs", [x], thresholds={"1": 1.0, "3": 1.0})


def test_spikes_and_outputs_are_those_stored(snn, stored):
    x, steps = torch.from_numpy(stored["x"]), int(stored["T"])
    for step in snn.watch(x, steps):
        for name, key in (("1", "spikes1"), ("3", "spikes2")):
            expected = torch.from_numpy(stored[key][step.t - 1]).bool()
            spikes = step.sites[name].spikes
            assert spikes is not None
            assert torch.equal(spikes != 0, expected)
        if step.t == steps:
            assert np.allclose(step.logits.numpy(), stored["out"], atol=1e-4)


def test_operations_are_those_stored(snn, stored):
    x, steps = torch.from_numpy(stored["x"]), int(stored["T"])
    data = [(x, torch.zeros(len(x), dtype=torch.long))]
    run = evaluate(snn, data, steps, conventions=Conventions(first_layer="mac_per_step"))
    assert run.sops[-1] == pytest.approx(float(stored["neurobench_eff_acs_per_sample"]), rel=1e-12)
    assert run.macs == float(stored["neurobench_eff_macs_per_sample"])
    dense = evaluate(snn, data, steps, conventions=Conventions("mac_per_step", links="dense"))
    everything = sum(layer.macs_dense for layer in dense.layers) * steps
    assert everything == float(stored["neurobench_dense_per_sample"])
    assert dense.sops[-1] > run.sops[-1]
