"""Small networks of every kind of layer that spikes can feed, and their conversions."""

import copy
from collections.abc import Callable
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn

from topospike.conversion import convert
from topospike.snn import SpikingNetwork


class Residual(nn.Module):
    """A block whose sum is pooled before the next layer reads it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.conv(x)) + x


def plain(pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), pool,
        nn.Conv2d(8, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(12), nn.ReLU(),
        nn.Linear(12, 5),
    )  # fmt: skip


def odd() -> nn.Sequential:
    """Strides, dilation, groups, uneven kernels and padding, no bias."""
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 9, (3, 2), stride=(2, 1), padding=(1, 0), groups=3, bias=False), nn.ReLU(),
        nn.Conv2d(9, 6, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.ReLU(),
        nn.Conv2d(6, 4, 1, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
    )  # fmt: skip


def residual() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), Residual(6), nn.AvgPool2d(2),
        nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.ReLU(), Residual(6),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5),
    )  # fmt: skip


class OnTheWay(nn.Module):
    """Linear operations before one layer; before the other a constant is added as well."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.scaled = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(3, 4, 3)
        self.shifted = nn.Conv2d(6, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.stem(x))
        a, b = y.chunk(2, 1)
        scaled = F.interpolate(F.pad(0.5 * a - b.flip(-1) / 3, (1, 0)), scale_factor=2.0)
        return self.scaled(scaled).mean((2, 3)) + self.shifted(F.pad(y + 1, (1, 1))).mean((2, 3))


def few_links() -> nn.Sequential:
    model = plain(nn.AvgPool2d(2))
    with torch.no_grad():
        model(torch.zeros(1, 2, 8, 8))
        for layer in (model[2], model[5], model[8]):
            layer.weight.mul_(torch.rand_like(layer.weight) < 0.06)
    return model


BUILDS: dict[str, Callable[[], nn.Module]] = {
    "average pool": lambda: plain(nn.AvgPool2d(2)),
    "max pool": lambda: plain(nn.MaxPool2d(2)),
    "overlapping pool": lambda: plain(nn.AvgPool2d(3, stride=2, padding=1)),
    "odd": odd,
    "residual": residual,
    "few links": few_links,
    "on the way": OnTheWay,
}
"""Networks for images of 2 x 8 x 8, by what is special about them."""


def converted(name: str, **options: str) -> tuple[SpikingNetwork, torch.Tensor]:
    snn, x = converted_once(name, tuple(options.items()))
    return copy.deepcopy(snn), x


@cache
def converted_once(
    name: str, options: tuple[tuple[str, str], ...]
) -> tuple[SpikingNetwork, torch.Tensor]:
    torch.manual_seed(0)
    model = BUILDS[name]().eval()
    x = torch.randn(12, 2, 8, 8)
    with torch.no_grad():
        model(x)
    return convert(model.double(), calibration=[x.double()], **dict(options)), x.double()  # pyright: ignore[reportArgumentType]
