"""Blocks and cuts of the graph."""

import torch
from torch import nn

from topospike.models import capture
from topospike.pruning.links import layer_calls
from topospike.pruning.walk import cut_into_segments, find_blocks
from topospike.topology import select, weight_layers


def test_repeated_modules_are_blocks_and_other_layers_stand_alone(residual_network):
    names = [name for name, m in residual_network.named_modules() if hasattr(m, "kernel_size")]
    blocks = find_blocks(residual_network, [*names, "hidden"])
    assert blocks == {
        "stem": "stem",
        "blocks.0.conv1": "blocks.0", "blocks.0.conv2": "blocks.0",
        "blocks.1.conv1": "blocks.1", "blocks.1.conv2": "blocks.1",
        "hidden": "hidden",
    }  # fmt: skip


def test_a_plain_sequence_of_layers_has_no_blocks(perceptron):
    assert find_blocks(perceptron, ["0", "2"]) == {"0": "0", "2": "2"}


def test_the_graph_is_cut_where_one_value_crosses(residual_network, images):
    network = capture(residual_network, images)
    layers = weight_layers(residual_network, images[:1])
    targets = dict(select(layers, {"conv": 0.5, "linear": 0.5}))
    calls = layer_calls(network, targets)
    blocks = find_blocks(residual_network, [target.name for target in targets])
    segments = cut_into_segments(network.graph, {n: blocks[t.name] for n, t in calls.items()})
    named = [[calls[node].name for node in segment.calls] for segment in segments]
    assert named == [
        [], ["stem"], ["blocks.0.conv1", "blocks.0.conv2"],
        ["blocks.1.conv1", "blocks.1.conv2"], ["hidden"],
    ]  # fmt: skip
    for segment in segments[1:]:
        given = [node.meta["val"] for node in segment.given]
        tensors = [value for value in given if isinstance(value, torch.Tensor)]
        assert len(tensors) == 1
    # after the pools only 8 x 2 x 2 values are left of an image
    assert tensors[0][0].numel() == 32
    covered = [node for segment in segments for node in segment.nodes]
    assert len(covered) == len(set(covered))
    assert segments[-1].nodes[-1] is segments[-1].calls[-1]


def test_a_layer_deep_inside_belongs_to_the_innermost_block():
    def mlp():
        return nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))

    stages = nn.Sequential(nn.Sequential(mlp(), mlp()), nn.Sequential(mlp(), mlp()))
    names = [name for name, module in stages.named_modules() if isinstance(module, nn.Linear)]
    assert set(find_blocks(stages, names).values()) == {"0.0", "0.1", "1.0", "1.1"}
