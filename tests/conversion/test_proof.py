"""A conversion that would not answer as the model, or not for every batch, is refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topospike.conversion import convert
from topospike.errors import ConversionError


class Around(nn.Module):
    """Something before or behind a small network."""

    def __init__(self, act) -> None:
        super().__init__()
        self.body, self.act = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)), act

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body, x)


def images(count: int = 8) -> Tensor:
    return torch.rand(count, 6, generator=torch.Generator().manual_seed(0))


def norm_without_statistics(dimensions: int) -> nn.Module:
    if dimensions == 1:
        norm = nn.BatchNorm1d(8, track_running_stats=False)
        return nn.Sequential(nn.Linear(6, 8), norm, nn.ReLU(), nn.Linear(8, 3))
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 1), norm, nn.ReLU(), nn.Flatten(),
        nn.Linear(24, 3),
    )  # fmt: skip


@pytest.mark.parametrize(
    "build",
    [
        lambda: norm_without_statistics(1),
        lambda: norm_without_statistics(2),
        lambda: Around(lambda body, x: body(x - x.mean(0))),
        lambda: Around(lambda body, x: body(x) / body(x).amax()),
        lambda: Around(lambda body, x: body(x).softmax(0)),
        lambda: Around(lambda body, x: body(x) + body(x).flip(0)),
        lambda: Around(lambda body, x: body(x.cumsum(0))),
    ],
)
@pytest.mark.parametrize("count", [1, 8])
def test_an_answer_that_depends_on_the_other_rows_is_refused(build, count: int) -> None:
    torch.manual_seed(0)
    with pytest.raises(ConversionError, match="depends on the other images of its batch"):
        convert(build().eval(), calibration=[images(count), images(8)])


@pytest.mark.parametrize(
    "act",
    [
        lambda body, x: body(F.dropout(x)),
        lambda body, x: F.dropout(body(x), 0.1, training=True),
        lambda body, x: body(x + torch.randn_like(x)),
        lambda body, x: body(torch.bernoulli(x)),
    ],
)
def test_chance_is_refused(act) -> None:
    with pytest.raises(ConversionError, match=r"draws random numbers.*training=self\.training"):
        convert(Around(act).eval(), calibration=[images()])


def test_dropout_that_is_off_is_no_chance() -> None:
    model = nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.5), nn.RReLU(), nn.Linear(8, 3)
    ).eval()
    snn = convert(model, calibration=[images()])
    torch.testing.assert_close(snn.analog(images()), model(images()))


@pytest.mark.parametrize("change", ["state", "export"])
def test_a_capture_that_is_another_function_is_refused(change: str) -> None:
    calls = [0]

    def counting(body: nn.Module, x: Tensor) -> Tensor:
        calls[0] += 1
        return body(x) * (1 + calls[0])

    def otherwise(body: nn.Module, x: Tensor) -> Tensor:
        return body(x) * (1.0 if torch.compiler.is_exporting() else 1.5)

    act = counting if change == "state" else otherwise
    with pytest.raises(ConversionError, match=r"differs from the model by.*captured graph differs"):
        convert(Around(act).eval(), calibration=[images()])


class OwnBias(nn.Module):
    """A layer of one's own: its bias is added behind the norm."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 6)), nn.Parameter(torch.randn(6))
        self.norm, self.head = nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.norm(F.linear(x, self.weight)) + self.bias))


def test_folding_never_writes_over_an_unrelated_parameter() -> None:
    torch.manual_seed(0)
    model = OwnBias().eval()
    snn = convert(model, calibration=[images()])
    assert snn.report.batch_norms_folded == ("norm",)
    assert torch.equal(snn.ann.get_parameter("bias"), model.bias)
    torch.testing.assert_close(snn.analog(images()), model(images()))


def test_thresholds_that_a_cast_turns_to_nothing_are_refused() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval().half()
    x = images().half()
    for value, place in ((1e-9, "0"), (1e6, "inf")):
        with pytest.raises(ConversionError, match=rf"^1: .*unusable, e\.g\. {place}"):
            convert(model, calibration=[x], thresholds={"1": value})


def test_whole_thresholds_become_the_parameters_type() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval().double()
    snn = convert(model, calibration=[images().double()], thresholds={"1": 3})
    assert snn.sites["1"].threshold.dtype == torch.float64


class FromOnnx(nn.Module):
    """Sizes are kept in a buffer, as in networks made from ONNX."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, 4)
        self.register_buffer("shape", torch.tensor([-1, 16]))

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(x))
        if self.shape[1] != 16:
            h = h * 2
        return self.b(torch.reshape(h, torch.Size(self.shape)))


def test_sizes_in_buffers_are_named_with_a_remedy_that_works() -> None:
    model = FromOnnx().eval()
    with pytest.raises(ConversionError, match=r"whole numbers in buffers \(shape\).*\.tolist\(\)"):
        convert(model, calibration=[images()])
    value = model.shape.tolist()
    del model.shape
    model.shape = value
    snn = convert(model, calibration=[images()])
    torch.testing.assert_close(snn.analog(images()), model(images()))
