"""Fan-out maps against a brute-force walk over every link, borders and masks included."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.conversion.place import place_sites
from topospike.measure.fanout import counts_at_sites, link_counts, probe_shapes, window_sizes
from topospike.models.capture import capture
from topospike.snn.coding import Differential
from topospike.snn.neurons import MultiThreshold
from topospike.snn.site import Site
from topospike.snn.wiring import WeightLayerInput, find_weight_layers


def network_of(model: nn.Module, shape: tuple[int, ...]) -> torch.fx.GraphModule:
    network = capture(model, torch.zeros(2, *shape))

    def make(name: str, gated: bool) -> Site:
        return Site(name, gated=gated, neuron=MultiThreshold(2, gated=True), coding=Differential())

    place_sites(network, make)
    return network


def last_layer(
    network: torch.fx.GraphModule, shape: tuple[int, ...]
) -> tuple[WeightLayerInput, dict]:
    return find_weight_layers(network)[-1], probe_shapes(network, torch.zeros(1, *shape))


def brute_force_conv(mask: torch.Tensor, conv: nn.Conv2d, size: tuple[int, int]) -> torch.Tensor:
    """Visit every output, tap and channel; add one where the tap exists and hits the image."""
    c_out, per_group, kh, kw = mask.shape
    counts = [[[0] * size[1] for _ in range(size[0])] for _ in range(conv.in_channels)]
    (sy, sx), (py, px), (dy, dx) = conv.stride, conv.padding, conv.dilation
    out_h = (size[0] + 2 * py - dy * (kh - 1) - 1) // sy + 1
    out_w = (size[1] + 2 * px - dx * (kw - 1) - 1) // sx + 1
    for o, i, a, b in mask.nonzero().tolist():
        channel = (o // (c_out // conv.groups)) * per_group + i
        for y, x in itertools.product(range(out_h), range(out_w)):
            row, column = y * sy - py + a * dy, x * sx - px + b * dx
            if 0 <= row < size[0] and 0 <= column < size[1]:
                counts[channel][row][column] += 1
    return torch.tensor(counts)


def fan_out_equals_brute_force(
    stride: int, padding: int, dilation: int, groups: int, kernel: int, seed: int
) -> None:
    conv = nn.Conv2d(4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups)
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.ReLU(), conv)
    network = network_of(model, (2, 7, 6))
    layer, values = last_layer(network, (2, 7, 6))
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(conv.weight.shape, generator=generator) < 0.4
    counts = link_counts(layer, mask, values[layer.operand])
    expected = brute_force_conv(mask, conv, (7, 6))
    assert torch.equal(counts[0], expected.double())
    (at_site,) = counts_at_sites(layer, counts, values).values()
    assert torch.equal(at_site, counts)


GEOMETRY = {
    "stride": (1, 2),
    "padding": (0, 1, 2),
    "dilation": (1, 2),
    "groups": (1, 2),
    "kernel": (1, 2, 3),
}


@settings(deadline=None, derandomize=True, max_examples=8)
@given(
    st.fixed_dictionaries({name: st.sampled_from(some) for name, some in GEOMETRY.items()}),
    st.integers(0, 10_000),
)
def test_conv_fan_out_equals_brute_force(geometry: dict[str, int], seed: int) -> None:
    fan_out_equals_brute_force(**geometry, seed=seed)


@pytest.mark.slow
def test_conv_fan_out_equals_brute_force_in_every_geometry() -> None:
    for seed, chosen in enumerate(itertools.product(*GEOMETRY.values())):
        fan_out_equals_brute_force(*chosen, seed=seed)


@pytest.mark.parametrize(
    "pool",
    [
        nn.AvgPool2d(2), nn.AvgPool2d(3, 2, 1), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, 2)),
    ],
    ids=str,
)  # fmt: skip
def test_pooled_fan_out_counts_every_cell_a_neuron_belongs_to(pool: nn.Module) -> None:
    size = (7, 6)
    cells = pool(torch.zeros(1, 3, *size)).shape[2:].numel()
    model = nn.Sequential(
        nn.Conv2d(2, 3, 1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(3 * cells, 4)
    )
    network = network_of(model, (2, *size))
    layer, values = last_layer(network, (2, *size))
    assert (layer.fed_by, layer.pooled) == ("spikes", True)
    mask = torch.rand(4, 3 * cells, generator=torch.Generator().manual_seed(1)) < 0.5
    counts = link_counts(layer, mask, values[layer.operand])
    (at_site,) = counts_at_sites(layer, counts, values).values()
    for channel, row, column in itertools.product(range(3), range(size[0]), range(size[1])):
        spike = torch.zeros(1, 3, *size)
        spike[0, channel, row, column] = 1.0
        reached = pool(spike).flatten() != 0  # the pooled cells this neuron belongs to
        assert at_site[0, channel, row, column] == mask[:, reached].sum()


def test_mean_over_axes_divides_by_their_size() -> None:
    class Mean(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(2, 3, 1), nn.Linear(3, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(torch.relu(self.conv(x)).mean((2, 3)))

    network = network_of(Mean(), (2, 5, 4))
    layer, values = last_layer(network, (2, 5, 4))
    (mean,) = [node for node in layer.path if "mean" in str(node.target)]
    assert window_sizes(mean, torch.zeros(1, 3, 5, 4)) == 20
    counts = link_counts(layer, torch.ones(4, 3, dtype=torch.bool), values[layer.operand])
    (at_site,) = counts_at_sites(layer, counts, values).values()
    assert torch.equal(at_site, torch.full((1, 3, 5, 4), 4.0).double())


def test_residual_sum_and_concatenation_reach_both_sites() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)
            self.head = nn.Linear(8, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            left, right = torch.relu(self.a(x)), torch.relu(self.b(x))
            return self.head(torch.cat([left + right, right * 0.5], dim=1))

    network = network_of(Joined(), (3,))
    layer, values = last_layer(network, (3,))
    counts = link_counts(layer, torch.ones(5, 8, dtype=torch.bool), values[layer.operand])
    left, right = counts_at_sites(layer, counts, values).values()
    assert left.tolist() == [[5.0] * 4]
    assert right.tolist() == [[10.0] * 4]
