"""Pruning after conversion (SBC): the second moment by hand, and what every pruner promises."""

import copy

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.conversion.prune_spiking import moments_of_sums
from topospike.errors import ConfigError, ConversionError, MissingDataError
from topospike.pruning import PruneReport
from topospike.pruning.reconstruction import reconstruct
from topospike.topology import check_masks, masks_of

METHODS = {
    "dcgs": {}, "sigma-delta": {"levels": 4}, "qcfs": {}, "phase": {"steps": 3}, "graded": {},
}  # fmt: skip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3)
    ).double().eval()  # fmt: skip


def pictures(n: int = 80, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 6, 6, dtype=torch.float64, generator=generator).abs()


def converted(method: str, **options) -> ts.SpikingNetwork:
    return ts.convert(network(), method, calibration=[pictures()], **options)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["qcfs", "dcgs", "sigma-delta"])
@torch.no_grad()
def test_the_second_moment_is_that_of_membrane_inputs(method) -> None:
    """Spikes of every step, multiplied by the matrix of ones below the diagonal, written out."""
    snn, x, steps = converted(method, **METHODS[method]), pictures(5, 2), 4
    layer = next(layer for layer in snn.wiring if layer.name == "3")
    found = moments_of_sums(snn, layer, [(x,)], steps, torch.float64).values[0]
    spikes = []
    for step in snn.watch((x,), steps):
        sent = step.sites["1"].spikes.flatten(1)
        spikes.append(sent.clone())
    if method == "dcgs":  # the layer is sent encoded values: what is held, and the spike
        held, sent = torch.zeros_like(spikes[0]), []
        for t, s in enumerate(spikes, start=1):
            sent.append(held + s)
            held = held + s / t
        spikes = sent
    trains = torch.stack(spikes, 1)  # images, steps, inputs
    sums = torch.ones(steps, steps, dtype=torch.float64).tril() @ trains
    by_hand = 2.0 * torch.einsum("nti,ntj->ij", sums, sums)
    torch.testing.assert_close(found / found.trace(), by_hand / by_hand.trace())
    single = torch.einsum("nti,ntj->ij", trains, trains)  # and not that of the spikes themselves
    assert not torch.allclose(by_hand / by_hand.trace(), single / single.trace())


def test_one_neuron_by_hand() -> None:
    """Two inputs always alike: the one that goes hands its weight to the other."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
        model[2].weight.copy_(torch.tensor([[1.0, 2.0]]))
    x = torch.rand(16, 2, generator=torch.Generator().manual_seed(0))
    snn = ts.convert(model, "qcfs", calibration=[x], timesteps=4)
    pruned, _ = ts.prune_spiking(snn, {"2": 0.5}, x, timesteps=4, damping=1e-4)
    weight = pruned.ann.get_parameter("2.weight")
    assert masks_of(pruned.ann)["2.weight"].sum() == 1
    assert float(weight.sum()) == pytest.approx(3.0, rel=1e-3)
    torch.testing.assert_close(pruned(x, 4), snn(x, 4), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_a_layer_is_pruned_as_sparsegpt_with_that_moment() -> None:
    snn, x = converted("qcfs"), pictures(60, 3)
    layer = next(layer for layer in snn.wiring if layer.name == "3")
    moments = moments_of_sums(snn, layer, [(x,)], 6, torch.float64)
    weight = snn.ann.get_parameter("3.weight")
    expected = reconstruct(weight[None], moments.values, sparsity=0.6, block=32)
    pruned, _ = ts.prune_spiking(snn, 0.6, x, timesteps=6, block=32, precision=torch.float64)
    torch.testing.assert_close(pruned.ann.get_parameter("3.weight"), expected.weight[0])
    assert torch.equal(masks_of(pruned.ann)["3.weight"], expected.mask[0])


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_what_every_pruner_promises(method, tmp_path) -> None:
    snn, x = converted(method, **METHODS[method]), pictures(80, 4)
    before = copy.deepcopy(snn.ann.state_dict())
    pruned, report = ts.prune_spiking(snn, {"linear": 0.6, "conv": 0.25}, x, timesteps=3)
    for name, value in snn.ann.state_dict().items():  # the given network stays as it is
        assert torch.equal(value, before[name]), name
    check_masks(pruned.ann)
    topology = ts.Topology.from_model(pruned.ann, provenance={"method": "sbc"})
    topology.verify(pruned.ann)
    assert topology.counts() == {f"{layer.name}.weight": layer.links for layer in report.layers}
    assert topology.counts() == {"0.weight": 36 - 9, "3.weight": 12 * 64 - 460}
    for name, value in pruned.ann.state_dict().items():
        if name not in topology.masks and not name.endswith("_mask"):
            assert torch.equal(value, before[name]), name  # classifier, biases, thresholds
    assert all(0 < layer.error_after <= layer.error_before for layer in report.layers)
    report.save(tmp_path / "prune.json")
    assert PruneReport.load(tmp_path / "prune.json") == report
    ts.save(pruned, tmp_path / "network")
    again = ts.load(tmp_path / "network")(x, 3)  # no answer, NaN, where layers wait
    torch.testing.assert_close(again, pruned(x, 3), rtol=0, atol=0, equal_nan=True)
    # the same images in other batches, and what is counted: existing links only
    again, _ = ts.prune_spiking(
        snn, {"linear": 0.6, "conv": 0.25}, [(b, None) for b in x.split(30)], timesteps=3
    )
    torch.testing.assert_close(
        again.ann.get_parameter("3.weight"), pruned.ann.get_parameter("3.weight"), atol=1e-5, rtol=0
    )
    labels = torch.zeros(len(x), dtype=torch.int64)
    one, other = (ts.evaluate(net, [(x, labels)], 3) for net in (snn, pruned))
    assert other.ann_energy_joule < one.ann_energy_joule
    assert pruned.wiring[1].macs == topology.counts()["3.weight"]


def test_sums_over_time_beat_single_steps_where_it_matters() -> None:
    """Error of the membranes against that with the second moment of spikes (OBS)."""
    snn, x, steps = converted("qcfs"), pictures(200, 5), 8
    layer = next(layer for layer in snn.wiring if layer.name == "3")
    sums = moments_of_sums(snn, layer, [(x,)], steps, torch.float64).values
    trains = torch.stack(
        [step.sites["1"].spikes.flatten(1).clone() for step in snn.watch((x,), steps)], 1
    )
    moments = torch.einsum("nti,ntj->ij", trains, trains)[None]
    weight = snn.ann.get_parameter("3.weight").detach()[None]
    error = {}
    for name, h in (("sums", sums), ("spikes", moments)):
        change = reconstruct(weight, h, sparsity=0.8).weight - weight
        error[name] = float(((change @ sums) * change).sum())
    assert error["sums"] < error["spikes"]


def test_what_cannot_be_pruned_is_refused() -> None:
    snn, x = converted("qcfs"), pictures(40, 6)
    with pytest.raises(MissingDataError, match="no calibration images"):
        ts.prune_spiking(snn, 0.5)
    with pytest.raises(ConfigError, match=r"must lie in \[0, 1\)"):
        ts.prune_spiking(snn, 1.0, x)
    with pytest.raises(ConfigError, match="no layer is pruned"):
        ts.prune_spiking(snn, 0.0, x)
    with pytest.raises(ConfigError, match="'nothing'"):
        ts.prune_spiking(snn, {"nothing": 0.5}, x)
    with pytest.raises(ConfigError, match="needs at least 3"):
        ts.prune_spiking(converted("phase", steps=3), 0.5, x, timesteps=2)
    pruned, _ = ts.prune_spiking(snn, 0.5, x, timesteps=2)
    with pytest.raises(ConfigError, match="mask"):
        ts.prune_spiking(pruned, 0.5, x)
    trained = ts.quantise_activations(network(), x, kind="s-qcfs", levels=4, calibration=x).eval()
    with pytest.raises(ConversionError, match="from the first step on"):
        ts.prune_spiking(ts.convert(trained, "srp", calibration=[x]), 0.5, x)
