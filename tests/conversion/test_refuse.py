"""Models and images that cannot be converted: one error that names the place and the remedy."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from topospike.conversion import convert
from topospike.errors import ConfigError, ConversionError, ShapeError


class Branch(nn.Module):
    """Which way it goes depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            x = 2 * x
        return torch.relu(self.fc(x))


class TwoInputs(Branch):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.fc(x)) + y


def quantised() -> nn.Module:
    layers = nn.Sequential(nn.Linear(12, 4), nn.ReLU())
    return torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, dtype=torch.qint8)


def wrapped(layer: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Sequential(layer), nn.ReLU(), nn.Linear(4, 3))


def batch() -> torch.Tensor:
    return torch.randn(8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: wrapped(nn.RNNCell(12, 4)), r"0\.0 \(RNNCell\) is recurrent.*Replace it"),
        (lambda: wrapped(quantised()), r"0\.0\.0 \(Linear\) is quantised.*floating-point model"),
        (
            lambda: wrapped(nn.Linear(12, 4).to(torch.complex64)),
            r"0\.0\.weight is torch\.complex64.*real",
        ),
        (lambda: wrapped(nn.Linear(12, 4, device="meta")), r"0\.0\.weight has no values.*Load"),
        (lambda: nn.DataParallel(wrapped(nn.Linear(12, 4))), r"only wraps.*model\.module"),
        (lambda: torch.jit.script(nn.Linear(12, 4)), r"TorchScript.*Python module"),
        (lambda: wrapped(Branch()), r"in 0\.0 \(Branch\), line \d+: if x\.sum.*torch\.where"),
        (
            lambda: nn.Sequential(nn.Linear(12, 4), nn.Linear(4, 2)),
            r"no ReLU-like operation.*no activation at all",
        ),
        (
            lambda: nn.Sequential(nn.LSTM(12, 4), nn.Identity()),
            r"0 \(LSTM\) is recurrent: its steps over a sequence",
        ),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*(quantize|quantization|Complex modules).*")
def test_a_model_is_refused_with_place_and_remedy(build, message: str) -> None:
    with pytest.raises(ConversionError, match=f"(?s){message}"):
        convert(build(), calibration=[batch()])


def test_something_that_is_no_module_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"is a function; a torch\.nn\.Module is required"):
        convert(F.relu, calibration=[batch()])  # pyright: ignore[reportArgumentType]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([batch()[:, :5]], r"does not run on the calibration images: inputs of shape \(5,\)"),
        ([batch().double()], r"dtype torch\.float64.*Pass batches as in training"),
        ([batch()[0]], r"have shape \(12,\).*Add the batch axis"),
        ([batch(), batch()[:, :5]], r"batch 1 has .*shape \(5,\).*batch 0 of shape \(12,\)"),
        ([batch(), batch().double()], r"batch 1 .*torch\.float64.*torch\.float32; all must agree"),
    ],
)
def test_images_of_a_wrong_size_or_dtype_are_refused(images, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        convert(model(), calibration=images)


@pytest.mark.parametrize("odd", [{}, {"labels": batch()}, [], [1.0], torch.tensor(1.0)])
def test_batches_that_hold_no_images_are_refused(odd) -> None:
    with pytest.raises(ConfigError, match=r"calibration batch 0 is .*tensor x"):
        convert(model(), calibration=[odd])


@pytest.mark.parametrize(
    ("build", "given"),
    [(TwoInputs, batch()), (model, {"x": batch()}), (model, ((batch(), batch()), None))],
)
def test_inputs_that_forward_does_not_take_are_refused(build, given) -> None:
    with pytest.raises(ConfigError, match=r"forward\(.*cannot be called with the inputs given"):
        convert(build(), calibration=[given])


def test_a_refused_model_keeps_its_training_mode() -> None:
    refused = model().train()
    with pytest.raises(ShapeError):
        convert(refused, calibration=[batch()[:, :5]])
    assert all(module.training for module in refused.modules())


class RowsFirst(nn.Module):
    """Its rectifier sees (rows, images, features), as a sequence-first transformer does."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.head = nn.Linear(8, 16), nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.fc(x.permute(1, 0, 2))).mean(0))


@pytest.mark.parametrize("granularity", ["channel", "neuron"])
def test_thresholds_along_the_axis_of_images_are_refused(granularity: str) -> None:
    images = torch.rand(6, 4, 8)
    message = rf"^relu: images are counted along axis 1 of its 3 axes.*per {granularity}.*'layer'"
    with pytest.raises(ConversionError, match=message):
        convert(RowsFirst().eval(), calibration=[images], granularity=granularity)


@pytest.mark.parametrize("granularity", ["layer", "feature"])
def test_other_thresholds_of_such_a_model_fit_every_batch_size(granularity: str) -> None:
    images = torch.rand(6, 4, 8)
    snn = convert(RowsFirst().eval(), calibration=[images], granularity=granularity)
    whole = snn(images, 8)
    assert torch.equal(snn(images[:4], 8), whole[:, :4])
