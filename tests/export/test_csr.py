"""CSR weights and JSON: nothing is lost, links of weight zero included."""

import json

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.errors import CheckpointError, MissingDataError
from topospike.export import export_csr, read_csr
from topospike.topology import register_mask


@pytest.mark.parametrize("method", ["dcgs", "cs-qcfs"])
def test_weights_links_biases_and_thresholds_come_back(spiking, tmp_path, method):
    snn, _ = spiking(method)
    network = read_csr(export_csr(snn, tmp_path / "csr"))
    parameters = dict(snn.ann.named_parameters())
    masks = dict(snn.ann.named_buffers())
    assert set(network.layers) == {layer.name for layer in snn.wiring}
    for name, layer in network.layers.items():
        assert torch.equal(layer.weight, parameters[f"{name}.weight"])
        assert torch.equal(layer.mask, masks[f"{name}.weight_mask"])
        assert layer.bias is None or torch.equal(layer.bias, parameters[f"{name}.bias"])
        assert layer.matrix.nnz == int(layer.mask.sum())
    for name, site in snn.sites.items():
        assert torch.equal(network.thresholds[name], site.threshold)


def test_the_description_says_how_the_network_works(tmp_path):
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, stride=2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(2, 3)
    )
    nn.init.uniform_(model[0].weight)  # both channels are active
    export_csr(ts.convert(model, calibration=[torch.rand(4, 1, 6, 6)]), tmp_path)
    content = json.loads((tmp_path / "network.json").read_text())
    first, last = content["layers"]
    assert (first["fed_by"], first["settings"][0], first["shape"]) == (
        "image",
        [2, 2],
        [2, 1, 3, 3],
    )
    assert (last["fed_by"], last["sites"], last["pooled"]) == ("spikes", ["1"], True)
    (site,) = content["sites"]
    assert (site["neuron"], site["levels"], site["coding"]) == (
        "multi-threshold",
        4,
        "differential",
    )
    assert content["conversion"]["method"] == "dcgs"


def test_an_existing_link_of_weight_zero_is_stored(tmp_path):
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
        model[0].weight.fill_(1.0)
    register_mask(model[2], torch.tensor([[True, True], [False, False]]))
    snn = ts.convert(model, "qcfs", [torch.rand(8, 2)])
    layer = read_csr(export_csr(snn, tmp_path)).layers["2"]
    assert layer.mask.tolist() == [[True, True], [False, False]]
    assert layer.matrix.indptr.tolist() == [0, 2, 2]


def test_damage_is_told(tmp_path):
    model = nn.Sequential(nn.Linear(2, 4), nn.ReLU())
    snn = ts.convert(model, "qcfs", thresholds={"1": 1.0}, calibration=[torch.rand(8, 2)])
    with pytest.raises(MissingDataError, match="does not exist"):
        read_csr(tmp_path)
    export_csr(snn, tmp_path)
    (tmp_path / "weights.npz").write_bytes(b"PK\x03\x04")
    with pytest.raises(CheckpointError, match="Export the network again"):
        read_csr(tmp_path)
