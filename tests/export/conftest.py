"""Small networks of every kind the event form knows, sparse, in float64."""

from functools import cache

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.topology import register_mask


class Residual(nn.Module):
    """A projection shortcut, an identity shortcut, a batch norm, groups, a global pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 8, 3, padding=1, stride=2, groups=2)
        self.right = nn.Conv2d(6, 8, 1, stride=2)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.left(x) + self.right(x))
        z = torch.relu(self.body(y) + y)
        return self.head(nn.functional.adaptive_avg_pool2d(z, 1).flatten(1))


def pooled() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(6, 8, 3, padding="same", dilation=2), nn.ReLU(), nn.AvgPool2d(3),
        nn.Flatten(), nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 5),
    )  # fmt: skip


def vectors() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU(), nn.Linear(20, 5)
    )


def sparse(model: nn.Module) -> nn.Module:
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            register_mask(layer, torch.rand_like(layer.weight) < 0.5)
    return model.double().eval()


@cache
def converted(kind: str, method: str, options: tuple[tuple[str, object], ...]):
    """Convert a network once for all tests; a simulation leaves nothing behind in it."""
    torch.manual_seed(3)
    model = {"residual": Residual, "pooled": pooled, "vectors": vectors}[kind]()
    shape = (12,) if kind == "vectors" else (3, 7, 7)
    x = torch.randn(6, *shape, dtype=torch.float64)
    return ts.convert(sparse(model), method, [x], **dict(options)), x


@pytest.fixture(params=["residual", "pooled", "vectors"])
def spiking(request):
    """``spiking(method)`` is a sparse network and six inputs; of 7 rows a pool leaves one over."""

    def of_method(method: str, **options: object):
        return converted(request.param, method, tuple(options.items()))

    return of_method
