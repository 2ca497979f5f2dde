"""Small networks to prune."""

import pytest
import torch
from torch import nn


class Residual(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(x + self.norm2(self.conv2(y)))


class SmallResidualNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(Residual(8), Residual(8))
        self.hidden = nn.Linear(8 * 4, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x):
        x = nn.functional.max_pool2d(self.blocks(torch.relu(self.stem(x))), 4)
        return self.head(torch.relu(self.hidden(x.flatten(1))))


@pytest.fixture
def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4)
    )


@pytest.fixture
def residual_network():
    torch.manual_seed(0)
    return SmallResidualNetwork().eval()


@pytest.fixture
def images():
    return torch.randn(40, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def rows():
    return torch.randn(48, 12, generator=torch.Generator().manual_seed(1)).relu()
