from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from topospike.direct import spiking_model
from topospike.recipe import DirectSettings

ORACLES = Path(__file__).parents[1] / "oracles" / "direct"


@pytest.fixture(scope="session")
def oracle():
    """Read one file of reference numbers."""
    return lambda name: np.load(ORACLES / f"{name}.npz", allow_pickle=False)


class Net(nn.Module):
    """Two convolutions and two linear layers; activations as modules and as functions."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(8 * 16, 10)
        self.fc2 = nn.Linear(10, 3)

    def forward(self, x):
        x = self.pool(self.act(self.norm(self.conv1(x))))
        x = torch.relu(self.conv2(x))
        return self.fc2(self.fc1(x.flatten(1)).relu())


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net()


@pytest.fixture
def spiking(net):
    return spiking_model(net, DirectSettings(timesteps=4))


class Split(list):
    """Batches that know the loop's protocol."""

    def set_epoch(self, epoch):
        self.epoch = epoch


@pytest.fixture
def data():
    """Bars against noise: 3 classes of 8 x 8 images, easily told apart."""
    generator = torch.Generator().manual_seed(0)

    def batch(images):
        y = torch.arange(images) % 3
        x = 0.3 * torch.randn(images, 1, 8, 8, generator=generator)
        x[y == 0, :, 2:4] += 2
        x[y == 1, :, :, 2:4] += 2
        return x, y

    return SimpleNamespace(
        train=Split([batch(24) for _ in range(3)]), validation=Split([batch(24)]), classes=3
    )
