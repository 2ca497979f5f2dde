"""What feeds which weight layer, on graphs made for each case."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topospike.conversion import convert
from topospike.wiring.layers import Layer


def wiring(model: nn.Module, x: torch.Tensor, scheme: str) -> dict[str, Layer]:
    torch.manual_seed(0)
    snn = convert(model, calibration=[x], scheme=scheme)
    return {layer.name: layer for layer in snn.wiring}


class Cases(nn.Module):
    """One branch for each way an operand can be fed."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.plain, self.pooled, self.maximum = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.raw, self.graded, self.scaled = (nn.Conv2d(4, 4, 1) for _ in range(3))
        self.mixed = nn.Conv2d(6, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pre = self.stem(x)
        h = torch.relu(pre)
        out = self.plain(h) + self.raw(pre) + self.graded(torch.sigmoid(h))
        out = out + self.mixed(torch.cat([h, x], 1)) + self.scaled(self.norm(h) * 0.5)
        return out.mean((2, 3)) + (
            self.pooled(F.avg_pool2d(h, 2)) + self.maximum(F.max_pool2d(h, 2))
        ).mean((2, 3))


def test_each_way_of_being_fed_is_told_apart() -> None:
    found = wiring(Cases().eval(), torch.randn(8, 2, 6, 6), "relu")
    assert {name: layer.fed_by for name, layer in found.items()} == {
        "stem": "image", "plain": "spikes", "raw": "image", "graded": "graded",
        "mixed": "graded", "scaled": "spikes", "pooled": "spikes", "maximum": "maxpool",
    }  # fmt: skip
    assert found["pooled"].pooled
    assert not found["plain"].pooled
    assert "sigmoid" in found["graded"].reason
    assert "raw image" in found["mixed"].reason


def test_auto_puts_operand_sites_where_numbers_would_arrive() -> None:
    snn = convert(Cases().eval(), calibration=[torch.randn(8, 2, 6, 6)], scheme="auto")
    fed = {layer.name: layer.fed_by for layer in snn.wiring}
    assert (fed["graded"], fed["mixed"], fed["stem"]) == ("spikes", "spikes", "image")
    assert {name for name, site in snn.sites.items() if not site.gated} == {
        "graded.input", "mixed.input",
    }  # fmt: skip


class Shared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.fc(x)))


@pytest.mark.slow
def test_a_layer_called_twice_is_two_layers() -> None:
    found = wiring(Shared(), torch.randn(8, 6), "relu")
    assert [(name, layer.fed_by) for name, layer in found.items()] == [
        ("fc", "image"),
        ("fc#2", "spikes"),
    ]


class Attention(nn.Module):
    """A product of two activations, and a product with a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 6) for _ in range(3))
        self.table = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (torch.relu(layer(x)) for layer in (self.q, self.k, self.v))
        return ((q @ k.transpose(1, 2)) @ v).mean(1) @ self.table


def test_products_of_activations_are_fed_by_two_sites() -> None:
    snn = convert(Attention(), calibration=[torch.randn(8, 5, 6)])
    products = [layer for layer in snn.wiring if layer.kind == "matmul"]
    assert products[0].fed_by == "product"
    assert products[0].reason == "product of two activations"
    assert products[1].fed_by == "product"
