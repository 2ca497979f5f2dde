"""Whole networks against the reference code: thresholds, decoded logits, spikes, operation counts.

The reference counts every layer as accumulates, border taps excluded, the image at t = 1 only in
differential coding, and one accumulate per non-zero pooled value: conventions ac + nonzero here.
Tolerances: thresholds 1e-5 relative (their statistics are float32), logits 1e-8, spikes 1e-6
relative (stored as float32), counts exact.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import topospike.measure
from topospike.conversion import convert
from topospike.measure import Conventions
from topospike.snn import SpikingNetwork
from topospike.snn.neurons import MultiThreshold, SignedIntegrateAndFire

ORACLES = Path(__file__).parents[1] / "oracles" / "dcgs"
FILES = sorted(path.stem for path in ORACLES.glob("cnn_*.npz"))


class ReferenceNet(nn.Module):
    """The network of the oracles: stem, residual block, pooled block, classifier."""

    def __init__(self, width: int, wide: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.res = ResidualBlock(width)
        self.down = nn.Sequential(
            nn.Conv2d(width, wide, 3, padding=1),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.AvgPool2d(2),
        )
        self.fc = nn.Linear(4 * wide, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.down(self.res(self.stem(x))).flatten(1))


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(self.bn2(self.conv2(y)) + x)


# site name here -> site name in the files, in execution order
SITES = {
    "stem.2": "stem.2",
    "res.relu": "res.relu1",
    "res.relu_2": "res.relu2",
    "down.2": "down.3.1",
}


def load(stem: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(ORACLES / f"{stem}.npz", allow_pickle=False) as archive:
        arrays = {key: archive[key] for key in archive.files}
    (config,) = json.loads((ORACLES / f"{stem}.json").read_text())["configs"]
    return arrays, config


def reference_model(arrays: dict[str, np.ndarray]) -> nn.Module:
    widths = (len(arrays[f"w/{name}"]) for name in ("stem.0.weight", "down.0.weight", "fc.weight"))
    model = ReferenceNet(*widths).double()
    weights = {k[2:]: torch.from_numpy(v) for k, v in arrays.items() if k.startswith("w/")}
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return model.eval()


def spiking(arrays: dict[str, np.ndarray], config: dict, *, given: bool) -> SpikingNetwork:
    """Convert as the configuration says, with its own thresholds or with those given."""
    multi = config["neuron_name"].startswith("MTH")
    levels = config["num_thresholds"] or None
    thresholds = {
        name: torch.from_numpy(arrays[f"{config['key']}/thr/{theirs}"])
        for name, theirs in SITES.items()
    }
    return convert(
        reference_model(arrays),
        "dcgs",
        [torch.from_numpy(arrays[f"calib{i}"]).double() for i in range(3)],
        timesteps=config["time"],
        coding="differential" if config["coding_type"] == "diff_rate" else "rate",
        neuron=MultiThreshold(levels, gated=True) if multi else SignedIntegrateAndFire(),
        levels=levels,
        solver="iterations" if config["threshold_mode"] == "var" else "percentile",
        quantisation_levels=None if levels else config["time"],
        thresholds=thresholds if given else None,
    )


@pytest.fixture(scope="module", params=FILES)
def case(request: pytest.FixtureRequest) -> tuple[dict, dict]:
    return load(request.param)


def test_ann_logits(case: tuple[dict, dict]) -> None:
    arrays, _ = case
    x = torch.from_numpy(arrays["x"]).double()
    np.testing.assert_allclose(
        reference_model(arrays)(x).detach().numpy(), arrays["ann_logits"], atol=1e-8
    )


@pytest.mark.slow
def test_thresholds(case: tuple[dict, dict]) -> None:
    arrays, config = case
    snn = spiking(arrays, config, given=False)
    for name, theirs in SITES.items():
        expected = arrays[f"{config['key']}/thr/{theirs}"]
        np.testing.assert_allclose(snn.sites[name].threshold.numpy(), expected, rtol=1e-5)


@pytest.mark.slow
def test_decoded_logits_at_every_step(case: tuple[dict, dict]) -> None:
    arrays, config = case
    snn = spiking(arrays, config, given=True)
    logits = snn(torch.from_numpy(arrays["x"]).double(), timesteps=config["time"])
    np.testing.assert_allclose(
        logits.numpy(), arrays[f"{config['key']}/running_mean"], rtol=0, atol=1e-8
    )


@pytest.mark.slow
def test_emitted_spikes_of_every_site(case: tuple[dict, dict]) -> None:
    arrays, config = case
    snn = spiking(arrays, config, given=True)
    x = torch.from_numpy(arrays["x"]).double()
    frames = 1 if config["coding_type"] == "diff_rate" else 0  # a zero frame comes first
    for step in snn.watch(x, config["time"]):
        for name, theirs in SITES.items():
            expected = arrays[f"{config['key']}/spk/{theirs}"][step.t - 1 + frames]
            emitted = step.sites[name].spikes
            assert emitted is not None
            np.testing.assert_allclose(emitted[0].numpy(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_operation_counts_are_exact(case: tuple[dict, dict]) -> None:
    arrays, config = case
    snn = spiking(arrays, config, given=True)
    x = torch.from_numpy(arrays["x"]).double()
    result = topospike.measure.evaluate(
        snn,
        [(x, torch.zeros(len(x), dtype=torch.long))],
        config["time"],
        conventions=Conventions(first_layer="ac", pooled="nonzero"),
    )
    names = {layer.name: layer for layer in result.layers}
    assert set(names) == {"stem.0", "res.conv1", "res.conv2", "down.0", "fc"}
    for name, layer in names.items():
        prefix = f"{config['key']}/sop/{name}"
        expected = arrays[prefix if prefix in arrays else f"{prefix}.out"]
        per_step = np.diff([0.0, *layer.sops]) * result.images
        assert per_step.round(6).tolist() == expected[:, 0].tolist()
        assert [layer.macs * result.images] * config["time"] == expected[:, 1].tolist()
