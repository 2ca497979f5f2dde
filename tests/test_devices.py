"""Every tensor is made where the network is: conversion, simulation, counting, masks."""

import copy

import pytest
import torch
from tests.elsewhere import DEVICE, Elsewhere, SecondDevice
from torch import nn

import topospike as ts
from topospike.conversion import api
from topospike.topology import check_masks, register_mask


def network() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(128, 12), nn.ReLU(), nn.Linear(12, 4),
    ).eval()  # fmt: skip
    register_mask(model[7], torch.rand(12, 128) < 0.3)
    return model


class Attention(nn.Module):
    """One head: sites in front of products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(8, 24), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x.flatten(2).mT[..., :8]).chunk(3, -1)
        return self.head(((q @ k.mT).softmax(-1) @ v).mean(1))


OPTIONS: list[dict] = [
    {}, {"method": "qcfs"}, {"method": "signed-if"}, {"coding": "rate"}, {"coding": "sigma-delta"},
    {"model": Attention()},
]  # fmt: skip


def images() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(8, 2, 8, 8, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(8) % 4


def attention_images() -> torch.Tensor:
    return torch.randn(8, 8, 3, 3, generator=torch.Generator().manual_seed(1))


def converted(**options) -> tuple[ts.SpikingNetwork, torch.Tensor]:
    model = options.pop("model", None)
    x = images()[0] if model is None else attention_images()
    return ts.convert((model or network()).eval(), calibration=[x], **options), x


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(map(str, o.values()))[:12])
def test_simulation_and_counts_are_the_same_elsewhere(options: dict) -> None:
    snn, x = converted(**options)
    labels = images()[1]
    expected = {name: snn(x, 4, executor=name) for name in ("decoded", "bf16")}
    counted = ts.evaluate(snn, [(x, labels)], 4)
    with SecondDevice():
        there = copy.deepcopy(snn).to(DEVICE)
        moved, labels = x.to(DEVICE), labels.to(DEVICE)
        for name, logits in expected.items():
            found = there(moved, 4, executor=name)
            assert isinstance(found, Elsewhere)
            torch.testing.assert_close(found.held, logits, rtol=0, atol=1e-4)
            for step in there.watch(moved, 2, executor=name):
                states = [(held.decoded, held.spikes) for held in step.sites.values()]
                assert all(isinstance(tensor, Elsewhere) for pair in states for tensor in pair)
        assert ts.evaluate(there, [(moved, labels)], 4).sops == pytest.approx(counted.sops)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["dcgs", "qcfs"])
def test_a_network_is_converted_where_it_is(method: str, monkeypatch) -> None:
    model, (x, _) = network(), images()
    expected = ts.convert(model, method, [x])
    captured = api.capture(model, x)  # torch.export has devices of its own
    with SecondDevice():
        monkeypatch.setattr(api, "capture", lambda *_, **__: copy.deepcopy(captured).to(DEVICE))
        there = ts.convert(copy.deepcopy(model).to(DEVICE), method, [x.to(DEVICE)])
        for name, site in there.sites.items():
            assert isinstance(site.threshold, Elsewhere)
            torch.testing.assert_close(site.threshold.held, expected.sites[name].threshold)
        assert isinstance(there.ann.get_buffer("7.weight_mask"), Elsewhere)


def test_masks_live_beside_their_weights() -> None:
    with SecondDevice():
        layer = nn.Linear(6, 4).to(DEVICE)
        register_mask(layer, torch.rand(4, 6) < 0.5)
        check_masks(layer)
        assert isinstance(layer.get_buffer("weight_mask"), Elsewhere)


def test_a_tensor_in_the_wrong_place_is_an_error() -> None:
    with SecondDevice():
        there = torch.ones(3).to(DEVICE)
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)
        assert float((there + 1.0).sum()) == 6.0
