"""Groups, removed channels, scores and logits equal torch-pruning's own pruner (1.6.1).

Tolerances: members and indices exact; scores rtol 1e-5; logits 1e-4.
"""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from topospike.pruning.channels import Cut, remove_least
from topospike.pruning.coupling import Coupling
from topospike.pruning.shrink import shrink
from topospike.topology import weight_layers

FOLDER = Path(__file__).parents[1] / "oracles" / "pruning"


class ChainNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 12, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(12)
        self.fc1 = nn.Linear(192, 20)
        self.fc2 = nn.Linear(20, 10)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = functional.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
        return self.fc2(torch.relu(self.fc1(x.flatten(1))))


class ResidualNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        shapes = {
            "stem": (3, 8, 3, 1), "b1_conv1": (8, 8, 3, 1), "b1_conv2": (8, 8, 3, 1),
            "b2_conv1": (8, 16, 3, 2), "b2_conv2": (16, 16, 3, 1), "b2_short": (8, 16, 1, 2),
        }  # fmt: skip
        for name, (inputs, outputs, kernel, stride) in shapes.items():
            layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
            self.add_module(name, layer)
            norm = name.replace("conv", "bn") if "conv" in name else f"{name}_bn"
            self.add_module(norm, nn.BatchNorm2d(outputs))
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = torch.relu(self.stem_bn(self.stem(x)))
        y = torch.relu(self.b1_bn1(self.b1_conv1(x)))
        x = torch.relu(self.b1_bn2(self.b1_conv2(y)) + x)
        y = torch.relu(self.b2_bn1(self.b2_conv1(x)))
        x = torch.relu(self.b2_bn2(self.b2_conv2(y)) + self.b2_short_bn(self.b2_short(x)))
        return self.fc(x.mean((2, 3)))


@pytest.fixture(params=["depgraph_vnet", "depgraph_rnet"])
def oracle(request):
    with np.load(FOLDER / f"{request.param}.npz", allow_pickle=False) as data:
        arrays = {name: torch.from_numpy(data[name]) for name in data.files}
    model = ChainNetwork() if "vnet" in request.param else ResidualNetwork()
    state = {n.removeprefix("dense/"): v for n, v in arrays.items() if n.startswith("dense/")}
    model.load_state_dict(state, strict=False)
    return model.eval(), arrays, json.loads((FOLDER / f"{request.param}.json").read_text())


@pytest.mark.slow
def test_groups_scores_channels_and_logits(oracle):
    model, arrays, facts = oracle
    x = arrays["x"]
    torch.testing.assert_close(model(x), arrays["dense_logits"], rtol=0, atol=1e-4)
    layers = weight_layers(model)
    classifier = next(layer.name for layer in layers if layer.is_classifier)
    coupling = Coupling(model, x, keep=[classifier])
    shapes = {layer.name: layer.module.weight.shape for layer in layers}
    ratios = facts["ratio_dict"] or {}
    cut = Cut()
    roots = {frozenset(n for n, role in g["members"] if role == "out"): g for g in facts["groups"]}
    assert len(coupling.groups) == len(roots)
    for group in coupling.groups:
        makers = frozenset(name for name, role in group.members if role != "in")
        expected = roots[makers]
        root = expected["root"]
        members = {(name, "in" if role == "in" else "out") for name, role in group.members}
        assert members == {tuple(member) for member in expected["members"]}
        torch.testing.assert_close(group.scores, arrays[f"importance/{root}"], rtol=1e-5, atol=1e-7)
        left = math.floor(group.channels * (1 - ratios.get(root, facts["ratio"])) + 1e-6)
        remove_least(cut, coupling, group, left, shapes)
        assert list(cut.removed[root]) == facts["pruned"][root]
    cut.install(model)
    torch.testing.assert_close(model(x), arrays["pruned_logits"], rtol=0, atol=1e-4)
    for name, sparsity in facts["param_sparsity"].items():
        mask = model.get_submodule(name).weight_mask
        assert 1 - int(mask.sum()) / mask.numel() == pytest.approx(sparsity, abs=1e-12)

    small = shrink(model, x)
    torch.testing.assert_close(small(x), arrays["pruned_logits"], rtol=0, atol=1e-4)
    for name, value in arrays.items():
        if name.startswith("pruned/"):
            shrunk = small.state_dict()[name.removeprefix("pruned/")]
            torch.testing.assert_close(shrunk, value, rtol=0, atol=1e-6)
    assert not any(name.endswith("_mask") for name in small.state_dict())
