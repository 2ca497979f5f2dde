"""Energy and operations of whole networks: against a literal event loop, by hand, and by law."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.contracts import Evaluation
from topospike.conversion import convert
from topospike.errors import ConfigError, MissingDataError, ShapeError
from topospike.measure import ENERGY_MODELS, Conventions, EnergyModel, evaluate
from topospike.snn import SpikingNetwork
from topospike.topology import register_mask


def labelled(x: torch.Tensor, classes: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x, torch.arange(len(x)) % classes)]


def masked_net(seed: int, stride: int, padding: int, groups: int, density: float) -> nn.Module:
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(),
        nn.Conv2d(4, 6, 3, stride=stride, padding=padding, groups=groups), nn.ReLU(),
        nn.Flatten(), nn.LazyLinear(5),
    )  # fmt: skip
    model(torch.zeros(1, 2, 6, 5))
    for layer in (model[2], model[5]):
        register_mask(layer, torch.rand(layer.weight.shape) < density)
    return model.eval()


def event_loop(
    snn: SpikingNetwork, model: nn.Module, x: torch.Tensor, steps: int
) -> list[list[int]]:
    """Send every spike over every existing link, one at a time."""
    conv, linear = model[2], model[5]
    (sy, sx), (py, px) = conv.stride, conv.padding
    height, width = model[:3](x).shape[2:]
    per_group, outs = conv.weight.shape[1], conv.out_channels // conv.groups
    exists, reached = conv.weight_mask.tolist(), linear.weight_mask.sum(0).tolist()
    counts = [[0] * steps, [0] * steps]
    for step in snn.watch(x, steps):
        t = step.t
        first, second = (step.sites[name].spikes for name in ("1", "3"))
        for _, channel, row, column in first.nonzero().tolist():
            group = channel // per_group
            for o, a, b in itertools.product(range(outs), range(3), range(3)):
                y, remainder_y = divmod(row + py - a, sy)
                z, remainder_z = divmod(column + px - b, sx)
                inside = 0 <= y < height and 0 <= z < width
                if remainder_y or remainder_z or not inside:
                    continue
                counts[0][t - 1] += exists[group * outs + o][channel % per_group][a][b]
        for _, neuron in second.flatten(1).nonzero().tolist():
            counts[1][t - 1] += reached[neuron]
    return counts


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=6)
@given(
    st.integers(0, 1000), st.integers(1, 2), st.integers(0, 1), st.sampled_from([1, 2]),
    st.floats(0.05, 1.0), st.sampled_from(["dcgs", "qcfs"]),
)  # fmt: skip
def test_counts_equal_a_literal_event_loop(
    seed: int, stride: int, padding: int, groups: int, density: float, method: str
) -> None:
    model = masked_net(seed, stride, padding, groups, density)
    x = torch.randn(3, 2, 6, 5, generator=torch.Generator().manual_seed(seed))
    snn = convert(model, method, [x], timesteps=4, solver="max")
    result = evaluate(snn, labelled(x, 5), 4)
    expected = event_loop(snn, model, x, 4)
    for layer, counts in zip(result.layers[1:], expected, strict=True):
        cumulative = list(itertools.accumulate(counts))
        assert [round(s * 3, 6) for s in layer.sops] == cumulative


def test_a_network_counted_by_hand() -> None:
    # two inputs -> two hidden neurons (identity weights) -> one output linked to the first only
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2))
        model[2].weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 0.0]]))
    register_mask(model[2], torch.tensor([[True, False], [False, False]]))
    x = torch.tensor([[1.0, 1.0], [0.0, 0.0], [0.5, -1.0], [0.25, 0.0]])
    snn = convert(model, calibration=[x], thresholds={"1": 1.0}, levels=4)
    result = evaluate(snn, [(x, torch.zeros(4, dtype=torch.long))], 3)
    # inputs 1, 1/2 and 1/4 are levels of the ladder: one spike each at t = 1, silence afterwards;
    # the second neuron's spike finds no link
    assert result.sops == (0.75, 0.75, 0.75)
    assert result.macs == 4.0
    assert result.energy_joule[2] == pytest.approx(4 * 4.6e-12 + 0.75 * 0.9e-12)
    assert result.ann_energy_joule == pytest.approx((4 + 1) * 4.6e-12)
    assert result.ann_dense_energy_joule == pytest.approx((4 + 4) * 4.6e-12)
    assert result.layers[1].density == 0.25
    assert result.sites[0].firing_rate == (0.5, 0.0, 0.0)
    assert result.accuracy == (1.0, 1.0, 1.0)


def test_silence_costs_nothing_but_the_first_layer() -> None:
    model = masked_net(0, 1, 1, 1, 1.0)
    with torch.no_grad():
        model[0].bias.fill_(-100.0)
        model[2].bias.fill_(-100.0)
    snn = convert(model, calibration=[torch.randn(4, 2, 6, 5)], thresholds={"1": 1.0, "3": 1.0})
    result = evaluate(snn, labelled(torch.randn(4, 2, 6, 5), 5), 6)
    assert result.sops == (0.0,) * 6
    assert set(result.macs_per_step) == {result.macs}


def test_fewer_links_never_cost_more_for_the_same_spikes() -> None:
    x = torch.randn(4, 2, 6, 5)
    model = masked_net(0, 1, 1, 1, 0.3)
    snn = convert(model, calibration=[x])
    sparse = evaluate(snn, labelled(x, 5), 5)
    dense = evaluate(snn, labelled(x, 5), 5, conventions=Conventions(links="dense"))
    assert all(s < d for s, d in zip(sparse.sops, dense.sops, strict=True))
    assert sparse.accuracy == dense.accuracy


def test_counts_grow_with_time_and_do_not_depend_on_batching() -> None:
    x = torch.randn(10, 2, 6, 5)
    labels = torch.arange(10) % 5
    snn = convert(masked_net(0, 1, 1, 1, 0.5), calibration=[x])
    whole = evaluate(snn, [(x, labels)], 6)
    parts = evaluate(snn, [(x[:3], labels[:3]), (x[3:], labels[3:])], 6)
    assert list(whole.sops) == sorted(whole.sops)
    assert whole.sops == pytest.approx(parts.sops)
    assert (whole.accuracy, whole.images) == (parts.accuracy, parts.images)


def test_first_layer_conventions() -> None:
    x = torch.randn(4, 2, 6, 5)
    x[:, 0] = 0.0  # half of the pixels are zero
    snn = convert(masked_net(0, 1, 1, 1, 1.0), calibration=[x])
    run = {
        name: evaluate(snn, labelled(x, 5), 3, conventions=Conventions(first_layer=name))
        for name in ("mac_once", "mac_per_step", "ac")
    }
    first = run["mac_once"].layers[0].macs
    assert run["mac_once"].macs_per_step == (first, first, first)
    assert run["mac_per_step"].macs_per_step == (first, 2 * first, 3 * first)
    assert run["ac"].macs == 0
    assert run["ac"].layers[0].sops == (first / 2,) * 3
    rate = convert(masked_net(0, 1, 1, 1, 1.0), "qcfs", [x])
    repeated = evaluate(rate, labelled(x, 5), 3, conventions=Conventions(first_layer="ac"))
    assert repeated.layers[0].sops == (first / 2, first, 3 * first / 2)


def test_pooled_conventions() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(24, 5)
    )
    x = torch.randn(8, 2, 6, 4)
    snn = convert(model, calibration=[x])
    fold, nonzero, mac = (
        evaluate(snn, labelled(x, 5), 4, conventions=Conventions(pooled=name))
        for name in ("fold", "nonzero", "mac")
    )
    assert fold.sops[0] > nonzero.sops[0] > 0  # up to four spikes share a pooled cell
    assert mac.sops == (0.0,) * 4
    assert mac.macs - mac.layers[0].macs == pytest.approx(nonzero.sops[-1])
    assert mac.layers[1].snn_macs == pytest.approx(nonzero.layers[1].sops)


def test_evaluation_survives_a_round_trip(tmp_path) -> None:
    x = torch.randn(6, 2, 6, 5)
    result = evaluate(convert(masked_net(0, 1, 1, 1, 0.5), calibration=[x]), labelled(x, 5), 3)
    result.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == result


def test_energy_models() -> None:
    assert ENERGY_MODELS["45nm"].joule(macs=2, sops=3) == pytest.approx(2 * 4.6e-12 + 3 * 0.9e-12)
    x = torch.randn(4, 2, 6, 5)
    snn = convert(masked_net(0, 1, 1, 1, 0.5), calibration=[x])
    own = EnergyModel("mine", 2.0, 1.0, "a test")
    result = evaluate(snn, labelled(x, 5), 2, energy_model=own)
    assert result.energy_joule[1] == pytest.approx(2 * result.macs + result.sops[1])
    assert result.conventions["energy_model"] == "mine"
    with pytest.raises(ConfigError, match=r"unknown energy model '45mm'.*'45nm'"):
        evaluate(snn, labelled(x, 5), 2, energy_model="45mm")


def test_bad_data_is_refused() -> None:
    x = torch.randn(4, 2, 6, 5)
    snn = convert(masked_net(0, 1, 1, 1, 0.5), calibration=[x])
    with pytest.raises(ShapeError, match=r"a label is 7, but the network has 5 classes"):
        evaluate(snn, [(x, torch.tensor([0, 1, 7, 2]))], 2)
    with pytest.raises(ShapeError, match="a label is -1"):
        evaluate(snn, [(x, torch.tensor([0, 1, -1, 2]))], 2)
    with pytest.raises(ShapeError, match="3 labels came with 4 images"):
        evaluate(snn, [(x, torch.tensor([0, 1, 2]))], 2)
    with pytest.raises(MissingDataError, match="no batch"):
        evaluate(snn, [], 2)
    with pytest.raises(ConfigError, match="timesteps is 0"):
        evaluate(snn, labelled(x, 5), 0)


class ByParameter(nn.Module):
    """Products of an activation with a parameter, on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.right = nn.Parameter(torch.randn(6, 4))
        self.left = nn.Parameter(torch.randn(3, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(torch.relu(x) @ self.right)
        return (self.left @ hidden.unsqueeze(-1)).squeeze(-1)


def test_products_with_a_parameter_count_as_layers() -> None:
    x = torch.randn(8, 6)
    snn = convert(ByParameter(), calibration=[x])
    result = evaluate(snn, labelled(x, 3), 2)
    assert [layer.macs for layer in result.layers] == [24.0, 12.0]
    (step,) = snn.watch(x, 1)
    first, second = step.sites.values()
    expected = [4 * first.events, 3 * second.events]
    assert [layer.sops[0] * 8 for layer in result.layers] == expected
