"""The file of trained weights and masks."""

import pytest
import torch
from torch import nn

from topospike.errors import CheckpointError, MissingDataError, TopologyViolation
from topospike.pipeline.networks import load_weights, save_weights
from topospike.topology import get_mask, register_mask


def network(width: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.Flatten())


@pytest.fixture
def saved(tmp_path):
    model = network().to(memory_format=torch.channels_last)
    mask = torch.zeros(4, 1, 3, 3, dtype=torch.bool)
    mask[:, :, 1] = True
    register_mask(model[0], mask)
    save_weights(model, tmp_path / "model.safetensors")
    return model, tmp_path / "model.safetensors"


def test_weights_masks_and_buffers_come_back(saved):
    model, path = saved
    other = network()
    load_weights(other, path)
    mask = get_mask(other[0])
    assert mask is not None
    assert int(mask.sum()) == 12
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name


def test_no_file_says_what_to_run(tmp_path):
    with pytest.raises(MissingDataError, match="topospike train"):
        load_weights(network(), tmp_path / "model.safetensors")


@pytest.mark.parametrize("keep", [0, 20, -1])
def test_a_damaged_file_is_named(saved, keep):
    _, path = saved
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not hold the weights"):
        load_weights(network(), path)


def test_the_weights_of_another_network_are_refused(saved):
    with pytest.raises(CheckpointError, match="weights of this Sequential"):
        load_weights(network(width=8), saved[1])
    with pytest.raises(CheckpointError, match="weights of this Sequential"):
        load_weights(nn.Sequential(nn.Flatten()), saved[1])


def test_a_weight_without_a_link_is_refused(saved):
    model, path = saved
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] = 1.0
    save_weights(model, path)
    with pytest.raises(TopologyViolation, match=r"0\.weight: 1 weight"):
        load_weights(network(), path)
