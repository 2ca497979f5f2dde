"""Counts per image where images are not along the first axis, or share it with something else."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import topospike as ts
from topospike.contracts import Evaluation
from topospike.conversion.place import place_sites
from topospike.errors import ConversionError
from topospike.models.capture import capture
from topospike.snn import SpikingNetwork
from topospike.snn.coding import CODINGS
from topospike.snn.neurons import IntegrateAndFire
from topospike.snn.site import Site
from topospike.topology import register_mask
from topospike.wiring.fanout import wire

STEPS = 3


def evaluated(model: nn.Module, x: Tensor, **options) -> tuple[SpikingNetwork, Evaluation]:
    snn = ts.convert(model.eval(), calibration=[x], timesteps=STEPS, **options)
    return snn, ts.evaluate(snn, [(x, torch.zeros(len(x), dtype=torch.int64))], STEPS)


def events(snn: SpikingNetwork, x: Tensor, site: str, fan_out: Tensor) -> float:
    """Add up the fan-out of every spike of a run, per image."""
    total = 0.0
    for step in snn.watch(x, STEPS):
        total += float(((step.sites[site].spikes != 0) * fan_out).sum())
    return total / len(x)


class Views(nn.Module):
    """Four views of each image go through one convolution; a sparse layer reads them all."""

    def __init__(self, *, alternating: bool) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(1, 3, 3, padding=1), nn.ReLU()
        self.fc, self.head = nn.Linear(4 * 3 * 25, 8), nn.Linear(8, 2)
        self.alternating = alternating
        register_mask(self.fc, torch.rand(self.fc.weight.shape) < 0.2)

    def forward(self, x: Tensor) -> Tensor:
        if self.alternating:
            y = self.relu(self.conv(x.transpose(0, 1).flatten(0, 1)))
            y = y.unflatten(0, (4, -1)).transpose(0, 1)
        else:
            y = self.relu(self.conv(x.flatten(0, 1))).unflatten(0, (-1, 4))
        return self.head(torch.relu(self.fc(y.flatten(1))))


@pytest.mark.parametrize("alternating", [False, True])
def test_views_folded_into_the_batch_have_fan_outs_of_their_own(alternating: bool) -> None:
    torch.manual_seed(0)
    model, x = Views(alternating=alternating), torch.rand(5, 4, 1, 5, 5)
    snn, run = evaluated(model, x)
    fan_out = model.fc.weight_mask.sum(0).view(4, 3, 5, 5)
    every = fan_out.repeat_interleave(5, 0) if alternating else fan_out.repeat(5, 1, 1, 1)
    assert run.layers[1].sops[-1] == pytest.approx(events(snn, x, "relu", every))
    assert run.sites[0].neurons == 4 * 3 * 25
    assert max(run.sites[0].firing_rate) <= 1


class TokensFirst(nn.Module):
    """Attention with the images along axis 1, its packed projection sparse."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.relu = nn.Linear(4, 8), nn.ReLU()
        self.attention, self.head = nn.MultiheadAttention(8, 2), nn.Linear(8, 2)
        register_mask(self.attention, torch.rand(24, 8) < 0.3, name="in_proj_weight")

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.embed(x)).transpose(0, 1)
        return self.head(self.attention(y, y, y, need_weights=False)[0].mean(0))


def test_images_along_the_second_axis_and_a_masked_packed_projection() -> None:
    torch.manual_seed(0)
    model, x = TokensFirst(), torch.rand(5, 6, 4)
    snn, run = evaluated(model, x, granularity="layer")
    packed = next(layer for layer in run.layers if "in_proj" in layer.name)
    mask = model.attention.in_proj_weight_mask
    assert packed.macs == 6 * mask.sum()
    assert packed.density == pytest.approx(float(mask.float().mean()))
    assert packed.sops[-1] == pytest.approx(events(snn, x, "relu", mask.sum(0)))
    again = ts.evaluate(snn, [(part, torch.zeros(len(part), dtype=torch.int64)) for part in
                              x.split(2)], STEPS)  # fmt: skip
    for one, other in zip(run.layers, again.layers, strict=True):
        assert one.sops == pytest.approx(other.sops)


def test_a_transformer_encoder_is_counted_per_image() -> None:
    torch.manual_seed(0)

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=False)
            self.encoder = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
            self.head = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.encoder(x.transpose(0, 1)).mean(0))

    x = torch.rand(5, 6, 8)
    _, run = evaluated(Encoder(), x, granularity="layer", scheme="operand")
    macs = {layer.name.rpartition(".")[2]: layer.macs for layer in run.layers}
    assert (macs["in_proj_weight"], macs["linear1"], macs["head"]) == (6 * 24 * 8, 6 * 128, 16)
    assert max(max(site.firing_rate) for site in run.sites) <= 1


class Between(nn.Module):
    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(self.between(torch.relu(self.a(x))))))


def test_what_reaches_other_images_of_the_batch_is_no_spike() -> None:
    model = Between(lambda y: y - y.mean(0, keepdim=True)).eval()
    network = capture(model, torch.rand(8, 4))
    place_sites(network, lambda name, gated: Site(name, gated=gated, neuron=IntegrateAndFire(),
                                                  coding=CODINGS["rate"]))  # fmt: skip
    layer = wire(network).layers[1]
    assert (layer.fed_by, layer.feeds) == ("graded", ())
    assert "another" in layer.reason


def test_a_network_that_compares_images_is_refused() -> None:
    with pytest.raises(ConversionError, match="batch"):
        ts.convert(Between(lambda y: (y @ y.t()) @ y).eval(), calibration=[torch.rand(8, 4)])
