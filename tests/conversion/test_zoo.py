"""The zoo: architectures as others write them, converted without touching their code.

With identity sites the logits are the ANN's to 1e-5 (float32) at every step: graph and sites are
right. With real sites the error falls as O(1/T) (property P8 of differential coding): between
t = 8 and t = 64 by a factor of 8 in the limit, of 3 at least here. Vision transformers of Hugging
Face are in test_hugging_face, ResNet, MobileNetV2 and DenseNet in test_foreign_models.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topospike.conversion import convert
from topospike.snn import SpikingNetwork
from topospike.snn.neurons import Identity

TINY = 3, 12, 12


class SqueezeExcite(nn.Module):
    """Channels weighted by a gate computed from their means."""

    def __init__(self, channels: int, gate: nn.Module, activation: nn.Module) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)
        self.gate, self.activation = gate, activation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = self.reduce(x.mean((2, 3), keepdim=True))
        return x * self.gate(self.expand(self.activation(scale)))


class InvertedResidual(nn.Module):
    """MobileNet and EfficientNet: expand, depthwise, squeeze-excite, project, add."""

    def __init__(self, activation: type[nn.Module], gate: nn.Module) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.BatchNorm2d(6), activation())
        self.block = nn.Sequential(
            nn.Conv2d(6, 18, 1), nn.BatchNorm2d(18), activation(),
            nn.Conv2d(18, 18, 3, 1, 1, groups=18), nn.BatchNorm2d(18), activation(),
            SqueezeExcite(18, gate, activation()), nn.Conv2d(18, 6, 1), nn.BatchNorm2d(6),
        )  # fmt: skip
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(F.adaptive_avg_pool2d(x + self.block(x), 1).flatten(1))


class Mixer(nn.Module):
    """MLP-Mixer: linear layers along tokens, then along channels."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 12, 4, 4), nn.Linear(12, 5)
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(2))
        self.tokens = nn.Sequential(nn.Linear(9, 16), nn.GELU(), nn.Linear(16, 9))
        self.channels = nn.Sequential(nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = x + self.tokens(self.norms[0](x).mT).mT
        return self.head((x + self.channels(self.norms[1](x))).mean(1))


class Pools(nn.Module):
    """Ceil-mode pools without padding in the count, adaptive pools, a max-pool before its ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.norm = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6)
        self.c, self.head = nn.Conv2d(6, 6, 1), nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.avg_pool2d(F.relu(self.a(x)), 3, 2, ceil_mode=True, count_include_pad=False)
        x = F.relu(self.norm(F.max_pool2d(self.b(x), 2, 1)))
        x = self.c(F.max_pool2d(x, 3, 1, 1) + x)
        return self.head(F.adaptive_max_pool2d(F.relu(x), 2).flatten(1))


class Borders(nn.Module):
    """Asymmetric and reflecting padding modules, replicated borders, slices and stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.pad, self.mirror = nn.ZeroPad2d((0, 1, 2, 1)), nn.ReflectionPad2d((1, 0, 2, 1))
        self.a, self.b = nn.Conv2d(3, 8, 3, 2), nn.Conv2d(4, 4, 3, padding="same")
        self.c = nn.Conv2d(8, 8, 3, padding=1, padding_mode="replicate")
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = F.relu(self.a(self.pad(x))).chunk(2, 1)
        x = torch.stack([F.relu(self.b(left)), right[:, [3, 2, 1, 0]]], 2).flatten(1, 2)
        x = F.relu(self.c(self.mirror(x)))[..., ::2, 1:]
        return self.head(torch.roll(x, 1, 1).mean((2, 3)))


class Twice(nn.Module):
    """One activation used in two places, and one convolution used twice."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.activation, self.head = activation, nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.activation(self.a(x))
        return self.head(self.activation(self.b(self.b(x))).mean((2, 3)))


def inverted(activation: type[nn.Module], gate: nn.Module) -> nn.Module:
    return InvertedResidual(activation, gate)


ZOO = {
    "MobileNetV3": lambda: inverted(nn.Hardswish, nn.Hardsigmoid()),
    "EfficientNet-Lite": lambda: inverted(nn.ReLU6, nn.Sigmoid()),
    "EfficientNet": lambda: inverted(nn.SiLU, nn.Sigmoid()),
    "MLP-Mixer": Mixer,
    "pools": Pools,
    "borders": Borders,
    "leaky ReLU": lambda: Twice(nn.LeakyReLU(0.1)),
    "PReLU": lambda: Twice(nn.PReLU(8)),
    "CELU": lambda: Twice(nn.CELU()),
    "reused ReLU": lambda: Twice(nn.ReLU()),
}
QUICK = ("MobileNetV3", "pools", "reused ReLU")


def prepared(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """Build a network whose batch norms have seen data; return it, images and its logits."""
    torch.manual_seed(0)
    model, x = ZOO[name](), torch.randn(32, *TINY)
    for _ in range(20):
        model(x)
    model.eval()
    with torch.no_grad():
        return model, x, model(x)


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ZOO]
)
def test_a_foreign_architecture_converts_untouched(name: str) -> None:
    model, x, expected = prepared(name)
    identical = convert(model, calibration=[x], neuron=Identity())
    for t, logits in identical.steps(x, 3):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5, msg=f"{name}, t = {t}")

    snn = convert(model, calibration=[x], timesteps=8)
    error = {t: float((logits - expected).abs().mean()) for t, logits in snn.steps(x, 64)}
    assert error[8] < error[1] / 3
    assert error[64] < error[8] / 3
    assert not [layer.name for layer in snn.report.layers if layer.input == "graded"]
    if name == "reused ReLU":
        require_two_sites_for_one_module(snn)
    if name in ("leaky ReLU", "PReLU", "CELU"):  # both signs: an operand site in front of the layer
        assert {site.op for site in snn.report.sites} == {"operand"}


def require_two_sites_for_one_module(snn: SpikingNetwork) -> None:
    """Each use has neurons and thresholds of its own, and the layer used twice two entries."""
    assert list(snn.sites)[:2] == ["activation", "b.input"]
    assert "activation_2" in snn.sites
    one, two = snn.sites["activation"].threshold, snn.sites["activation_2"].threshold
    assert not torch.equal(one, two)
    assert [layer.name for layer in snn.report.layers] == ["a", "b", "b#2", "head"]
