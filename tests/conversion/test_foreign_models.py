"""Models nobody here wrote for conversion: functional ReLUs, in-place adds, odd wiring.

With identity neurons every network must return its ANN's logits at every step (the graph is right);
with real neurons the error must fall with time (the thresholds are right).
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topospike.conversion import convert
from topospike.measure import evaluate
from topospike.snn.neurons import Identity


class HubBlock(nn.Module):
    """A residual block as found in many repositories: functional, in place, padded shortcut."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.stride, self.extra = stride, n_out - n_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.stride > 1:  # option A of He et al. 2016: subsample and pad with zero channels
            x = F.pad(
                x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra // 2, self.extra - self.extra // 2)
            )
        out += x
        return F.relu(out)


class HubResNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8)
        self.layer1 = nn.Sequential(HubBlock(8, 8, 1), HubBlock(8, 8, 1))
        self.layer2 = nn.Sequential(HubBlock(8, 16, 2), HubBlock(16, 16, 1))
        self.linear = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer2(self.layer1(out))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class Mobile(nn.Module):
    """ReLU6, depthwise convolutions, a residual without activation, dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6())
        self.body = nn.Sequential(
            nn.Conv2d(8, 24, 1), nn.BatchNorm2d(24), nn.ReLU6(True),
            nn.Conv2d(24, 24, 3, 1, 1, groups=24), nn.BatchNorm2d(24), nn.ReLU6(True),
            nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8),
        )  # fmt: skip
        self.tail = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(16, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        return self.head(self.tail(x + self.body(x)))


class Dense(nn.Module):
    """DenseNet style: norm and ReLU before the convolution, concatenation, transition pool."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.norms = nn.ModuleList(nn.BatchNorm2d(8 + 4 * i) for i in range(4))
        self.convs = nn.ModuleList(nn.Conv2d(8 + 4 * i, 4, 3, padding=1) for i in range(3))
        self.head = nn.Linear(20, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for norm, conv in zip(self.norms, self.convs, strict=False):
            x = torch.cat([x, conv(norm(x).relu())], dim=1)
        return self.head(self.norms[3](x).relu().mean((2, 3)))


MODELS = [HubResNet, Mobile, Dense]


def prepared(kind: type[nn.Module]) -> tuple[nn.Module, torch.Tensor]:
    """Build a network whose batch norms have seen data, so that activations are of unit size."""
    torch.manual_seed(0)
    model = kind()
    x = torch.randn(64, 3, 16, 16)
    model.train()
    for _ in range(30):
        model(x)
    return model.eval(), x


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("coding", ["differential", "rate"])
def test_identity_sites_return_the_anns_logits_at_every_step(
    kind: type[nn.Module], coding: str
) -> None:
    model, x = prepared(kind)
    model, x = model.double(), x.double()
    snn = convert(model, calibration=[x], neuron=Identity(gated=True), coding=coding)
    expected = model(x).detach()
    for t, logits in snn.steps(x, 6):
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-10, msg=f"t = {t}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_the_error_falls_as_one_over_time(kind: type[nn.Module]) -> None:
    model, x = prepared(kind)
    snn = convert(model, calibration=[x], timesteps=8)
    expected = model(x).detach()
    error = {t: float((logits - expected).abs().mean()) for t, logits in snn.steps(x, 64)}
    assert error[8] < 0.25 * error[1]
    assert error[64] < 0.3 * error[8]


@pytest.mark.slow
def test_checkpoint_of_a_foreign_resnet_loads_and_converts(tmp_path) -> None:
    model, x = prepared(HubResNet)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    fresh = HubResNet()
    fresh.load_state_dict(torch.load(tmp_path / "weights.pt", weights_only=True))
    fresh.eval()
    one, two = (convert(m, calibration=[x])(x, 4) for m in (model, fresh))
    assert torch.equal(one, two)


def test_wiring_of_the_foreign_models() -> None:
    model, x = prepared(HubResNet)
    snn = convert(model, calibration=[x])
    assert {la.input for la in snn.report.layers[1:]} == {"spikes"}
    assert len(snn.report.sites) == 9
    assert len(snn.report.batch_norms_folded) == 9
    model, x = prepared(Dense)
    snn = convert(model, calibration=[x])
    assert {la.name: la.input for la in snn.report.layers} == {
        "stem": "image", "convs.0": "spikes", "convs.1": "spikes", "convs.2": "spikes",
        "head": "spikes",
    }  # fmt: skip


class Upsampling(nn.Module):
    """A transposed convolution with a batch norm behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 8, 3, 2, 1)
        self.up, self.norm = nn.ConvTranspose2d(8, 6, 2, 2), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.up(self.down(x).relu())).relu().mean((2, 3)))


def test_transposed_convolutions_convert_and_count() -> None:
    model, x = prepared(Upsampling)
    snn = convert(model.double(), calibration=[x.double()], neuron=Identity())
    torch.testing.assert_close(snn(x.double(), 2)[1], model(x.double()), rtol=0, atol=1e-10)
    result = evaluate(snn, [(x.double(), torch.zeros(64, dtype=torch.long))], 1)
    assert {la.name: la.macs for la in result.layers}["up"] == 8 * 8 * 8 * 6 * 4
