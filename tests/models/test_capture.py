"""The captured graph equals the model, keeps its names, and leaves it as it was."""

import os

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topospike.errors import ConversionError, ShapeError
from topospike.models.capture import capture, node_module

os.environ["HF_HUB_OFFLINE"] = "1"


class ResidualNet(nn.Module):
    """Functional, in-place and module activations, an in-place add, a reused module."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.stem(x))
        y = F.relu(self.norm(self.conv(x)), inplace=True)
        y += x
        y = F.dropout(self.relu(y), 0.5, self.training)
        return self.fc(y.mean((2, 3)).view(x.size(0), -1))


def targets(graph: torch.fx.GraphModule) -> list[str]:
    return [str(n.target) for n in graph.graph.nodes if n.op == "call_function"]


def test_capture_equals_the_model_for_other_batch_sizes() -> None:
    model = ResidualNet()
    model.train()
    graph = capture(model, torch.randn(5, 3, 8, 8))
    assert model.training
    assert model.norm.training
    model.eval()
    for batch in (1, 2, 7):
        x = torch.randn(batch, 3, 8, 8)
        assert torch.equal(graph(x), model(x))


def test_capture_is_functional_and_sees_every_relu() -> None:
    names = targets(capture(ResidualNet(), torch.randn(2, 3, 8, 8)))
    assert names.count("aten.relu.default") == 3
    assert not [n for n in names if n.startswith("aten.") and n.split(".")[1].endswith("_")]


def test_capture_keeps_parameter_names_and_shares_tensors() -> None:
    model = ResidualNet()
    graph = capture(model, torch.randn(2, 3, 8, 8))
    assert set(dict(graph.named_parameters())) == set(dict(model.named_parameters()))
    assert graph.get_parameter("fc.weight") is model.fc.weight
    assert "conv" in {node_module(node) for node in graph.graph.nodes}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_capture_of_a_hugging_face_vit(attention: str) -> None:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
        image_size=8, patch_size=4, num_labels=5, attn_implementation=attention,
    )  # fmt: skip
    model = ViTForImageClassification(config).eval()
    graph = capture(model, torch.randn(2, 3, 8, 8))
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(graph(x), model(x).logits)
    names = targets(graph)
    assert names.count("aten.matmul.default") == 2
    assert not [name for name in names if "scaled_dot_product" in name]


class DataDependent(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2 if bool(x.sum() > 0) else x


def test_data_dependent_control_flow_is_named() -> None:
    with pytest.raises(ConversionError, match=r"DataDependent could not be captured.*torch\.where"):
        capture(DataDependent(), torch.randn(2, 3))


class FixedBatch(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(len(x), -1)


def test_a_batch_size_made_constant_is_refused() -> None:
    with pytest.raises(ConversionError, match=r"FixedBatch turns the batch size.*x\.shape\[0\]"):
        capture(FixedBatch(), torch.randn(4, 3, 2))


def test_empty_batch_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"shape \(0, 3\)"):
        capture(nn.Linear(3, 2), torch.zeros(0, 3))
