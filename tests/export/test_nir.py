"""NIR: a file another simulator wrote, our own files, and what is refused or reported as lost."""

from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import CheckpointError, ConfigError, ConversionError, ShapeError
from topospike.export import event_network, export_nir, simulate_nir
from topospike.export.nir_simulation import plain
from topospike.topology import register_mask

ORACLES = Path(__file__).parents[1] / "oracles" / "ecosystem"


def test_a_foreign_file_gives_its_recorded_spikes():
    stored = np.load(ORACLES / "if_conv_nir_io.npz", allow_pickle=False)
    run = simulate_nir(ORACLES / "if_conv.nir", torch.from_numpy(stored["x"]).float())
    assert np.array_equal(run.output.numpy(), stored["spikes"])
    assert stored["spikes"].any()


@pytest.mark.parametrize("neuron", ["if", "lif"])
def test_an_exported_file_gives_our_logits_at_every_step(spiking, tmp_path, neuron):
    snn, x = spiking("cs-qcfs")
    report = export_nir(snn, tmp_path / "net.nir", neuron=neuron)
    run = simulate_nir(tmp_path / "net.nir", x.expand(12, *x.shape))
    t = torch.arange(1, 13, dtype=torch.float64).view(-1, 1, 1)
    decoded = run.output.flatten(2).cumsum(0) / t
    assert torch.allclose(decoded, snn(x, timesteps=12), atol=1e-6 if neuron == "lif" else 1e-12)
    assert len(nir.read(tmp_path / "net.nir").nodes) == report.nodes


def test_only_the_portable_subset_is_written(spiking, tmp_path):
    snn, _ = spiking("cs-qcfs")
    export_nir(snn, tmp_path / "net.nir")
    nodes = nir.read(tmp_path / "net.nir").nodes.values()
    kinds = {type(node).__name__ for node in nodes}
    assert kinds <= {"Input", "Output", "Conv2d", "Affine", "IF", "SumPool2d"}
    for node in nodes:
        if isinstance(node, nir.IF):
            assert (node.v_threshold == 1).all()
            assert (node.r == 1).all()
            assert node.metadata["v_init"] == 0.5
            assert plain(node.metadata)["reset"] == "subtract"
        if isinstance(node, nir.Conv2d):
            assert int(node.groups) == 1


def test_masks_are_exact_zeros_and_metadata(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    mask = torch.rand(3, 8) < 0.4
    register_mask(model[2], mask)
    snn = ts.convert(model, "qcfs", [torch.randn(16, 6)])
    report = export_nir(snn, tmp_path / "net.nir")
    layer = nir.read(tmp_path / "net.nir").nodes["n2"]
    assert np.array_equal(layer.weight != 0, mask.numpy())
    assert int(layer.metadata["links"]) == int(mask.sum())
    assert report.links == 48 + int(mask.sum())


def test_the_report_names_what_nir_cannot_say(spiking, tmp_path):
    snn, x = spiking("qcfs")
    report = export_nir(snn, tmp_path / "net.nir")
    text = report.text()
    for word in ("reset by subtraction", "initial membrane", "exactly at the threshold", "mean of"):
        assert word in text
    followed, literal = (
        simulate_nir(tmp_path / "net.nir", x.expand(12, *x.shape), follow_metadata=follow).output
        for follow in (True, False)
    )
    assert torch.allclose(followed.mean(0).flatten(1), snn(x, timesteps=12)[-1], atol=1e-12)
    assert not torch.allclose(literal.mean(0), followed.mean(0), atol=1e-3)


def test_multi_threshold_neurons_are_refused_with_the_reason(spiking, tmp_path):
    snn, _ = spiking("dcgs")
    with pytest.raises(ConversionError) as caught:
        export_nir(snn, tmp_path / "net.nir")
    for words in ("multi-threshold", "differential", "spikes of one size", "binary_axons=True"):
        assert words in str(caught.value)
    assert not (tmp_path / "net.nir").exists()


@pytest.mark.parametrize("coding", ["differential", pytest.param("rate", marks=pytest.mark.slow)])
def test_binary_axons_together_fire_as_the_neurons_do(spiking, tmp_path, coding):
    snn, x = spiking("dcgs", levels=3, coding=coding)
    report = export_nir(snn, tmp_path / "net.nir", binary_axons=True)
    assert "group" in report.text()
    run = simulate_nir(tmp_path / "net.nir", x.expand(5, *x.shape))
    nodes = nir.read(tmp_path / "net.nir").nodes
    axons: dict[str, list[str]] = {}
    for name, node in nodes.items():
        if "group" in node.metadata:
            axons.setdefault(plain(node.metadata)["group"], []).append(name)
    assert {len(names) for names in axons.values()} == {6}
    for t, _, spikes in event_network(snn, 5).steps(x):
        for site, names in axons.items():
            fired = torch.stack([run.spikes[name][t - 1] for name in names])
            assert float(fired.sum(0).max()) <= 1
            sizes = torch.tensor([float(nodes[n].metadata["value"]) for n in names]).double()
            assert torch.equal(torch.tensordot(sizes, fired, 1), spikes[site])


def test_bad_requests_are_refused(tmp_path):
    snn = ts.convert(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), "qcfs", [torch.rand(4, 3)])
    with pytest.raises(ConfigError, match="neuron is 'izhikevich'; one of if, lif"):
        export_nir(snn, tmp_path / "a.nir", neuron="izhikevich")
    (tmp_path / "b.nir").write_text("nothing")
    with pytest.raises(CheckpointError, match="cannot be read as a NIR file"):
        simulate_nir(tmp_path / "b.nir", torch.zeros(1, 1, 3))
    export_nir(snn, tmp_path / "c.nir")
    with pytest.raises(ShapeError, match=r"\(time, batch, 3\) is required"):
        simulate_nir(tmp_path / "c.nir", torch.zeros(2, 1, 4))
