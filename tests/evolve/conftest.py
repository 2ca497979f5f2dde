from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from topospike.evolve import sparsify

ORACLES = Path(__file__).parent.parent / "oracles" / "cht"

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=5e-4),
    "nesterov": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, weight_decay=5e-4),
    "amsgrad": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.001, momentum=0.9, centered=True),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
}


@pytest.fixture
def oracle():
    def load(name):
        with np.load(ORACLES / f"{name}.npz", allow_pickle=False) as stored:
            return {key: stored[key] for key in stored.files}

    return load


@pytest.fixture
def small_network():
    """A convolution, a flatten and two hidden layers: every kind of chain in a few weights."""

    def build(seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(
                nn.Conv2d(1, 6, 3, padding=1),
                nn.BatchNorm2d(6),
                nn.ReLU(),
                nn.Conv2d(6, 8, 3, padding=1),
                nn.ReLU(),
                nn.MaxPool2d(2),
                nn.Flatten(),
                nn.Linear(32, 24),
                nn.ReLU(),
                nn.Linear(24, 16),
                nn.ReLU(),
                nn.Linear(16, 4),
            )

    return build


@pytest.fixture
def train_epoch():
    """Take a few optimizer steps on fixed random images; the loss is real, the data is not."""

    def train(model, optimizer, *, epoch=0, steps=3):
        generator = torch.Generator().manual_seed(100 + epoch)
        for _ in range(steps):
            x = torch.randn(16, 1, 4, 4, generator=generator)
            y = torch.randint(4, (16,), generator=generator)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()

    return train


@pytest.fixture
def started(small_network):
    def start(rule="chts", optimizer="sgd", **options):
        model = small_network()
        arguments = {"sparsity": 0.6, "epochs": 8, **options}
        sparsifier = sparsify(model, rule, **arguments)
        optimizer = OPTIMIZERS[optimizer](model.parameters())
        sparsifier.attach(optimizer)
        return model, optimizer, sparsifier

    return start
