"""The integer executor is the decoded one on quantised weights, and says where it is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.snn.networks import BUILDS, converted
from torch import nn

import topospike as ts
from topospike.errors import ConfigError
from topospike.snn import SpikingNetwork
from topospike.snn.batches import division
from topospike.snn.executors import EXECUTORS
from topospike.snn.executors.integer import IntegerForm
from topospike.snn.executors.whole_products import (
    EightBit,
    Floating,
    WholeWeight,
    eight_bit_obstacle,
    in_format,
)
from topospike.snn.neurons import IntegrateAndFire, MultiThreshold, SignedIntegrateAndFire

OPTIONS = [
    {},
    {"coding": "rate"},
    {"coding": "sigma-delta"},
    {"method": "qcfs"},
    {"method": "signed-if"},
]


def forms(snn: SpikingNetwork) -> list[str]:
    found = snn.program(EXECUTORS["integer"]).forms
    return [form.name for form in found if isinstance(form, IntegerForm)]


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("name", [name for name in BUILDS if name != "on the way"])
def test_it_is_the_decoded_executor_to_rounding(name: str, options: dict[str, str]) -> None:
    snn, x = converted(name, **options)
    quantised, report = ts.quantise_weights(snn)
    assert forms(quantised) == [row.name for row in report.layers if row.integer]
    expected = quantised(x, 6)
    found = quantised(x, 6, executor="integer")
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    single = [logits.clone() for _, logits in quantised.steps(x, 6, executor="integer")]
    torch.testing.assert_close(torch.stack(single), expected, rtol=1e-12, atol=1e-12)
    # and by the 8-bit instructions, whose sums are exact: what is left is float32
    found = quantised.float()(x.float(), 6, executor="integer")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("steps", [2, 7, 25])
def test_few_images_take_their_steps_together(options: dict[str, str], steps: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(128, 300), nn.ReLU(), nn.Linear(300, 4),
    ).eval().double()  # fmt: skip
    images = torch.randn(24, 2, 8, 8, dtype=torch.float64)
    snn, _ = ts.quantise_weights(ts.convert(model, calibration=[images], **options))  # pyright: ignore[reportArgumentType]
    x = images[:2]
    shown = snn.shown(x, 32)
    assert division(snn, shown, 32, EXECUTORS["integer"])[1] > 7
    single = [logits.clone() for _, logits in snn.steps(x, steps, executor="integer")]
    found = snn(x, steps, executor="integer")
    torch.testing.assert_close(found, torch.stack(single), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, snn(x, steps), rtol=1e-12, atol=1e-12)


NEURONS = st.one_of(
    st.builds(MultiThreshold, st.integers(1, 5), gated=st.just(True)),
    st.sampled_from([IntegrateAndFire(), SignedIntegrateAndFire()]),
)


@pytest.mark.slow
@settings(deadline=None, derandomize=True, max_examples=10)
@given(
    seed=st.integers(0, 1 << 16), neuron=NEURONS, bits=st.integers(2, 8), kernel=st.integers(1, 3),
    coding=st.sampled_from(["differential", "rate", "sigma-delta"]), stride=st.integers(1, 2),
    padding=st.integers(0, 2), groups=st.sampled_from([1, 2, 4]), bias=st.booleans(),
)  # fmt: skip
def test_any_convolution_neuron_and_number_of_bits(
    seed: int, neuron: MultiThreshold, bits: int, kernel: int, coding: str, stride: int,
    padding: int, groups: int, bias: bool,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(),
        nn.Conv2d(4, 8, kernel, stride, padding, groups=groups, bias=bias), nn.ReLU(),
        nn.AvgPool2d(2, 1, 1), nn.Flatten(), nn.LazyLinear(3),
    ).double()  # fmt: skip
    x = torch.randn(4, 1, 7, 6).double()
    model(x)
    snn = ts.convert(model, calibration=[x], neuron=neuron, coding=coding)
    quantised, report = ts.quantise_weights(snn, bits)
    assert [row.integer for row in report.layers] == [False, True, True]
    found = quantised(x, 5, executor="integer")
    torch.testing.assert_close(found, quantised(x, 5), rtol=1e-12, atol=1e-12)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(
    seed=st.integers(0, 1 << 16), groups=st.sampled_from([1, 3, 6]), kernel=st.integers(1, 3),
    stride=st.integers(1, 2), padding=st.integers(0, 2), signed=st.booleans(),
    linear=st.booleans(),
)  # fmt: skip
def test_eight_bit_products_are_exact_borders_included(
    seed: int, groups: int, kernel: int, stride: int, padding: int, signed: bool, linear: bool
) -> None:
    if eight_bit_obstacle():
        pytest.skip(eight_bit_obstacle())
    torch.manual_seed(seed)
    shape = (12, 6) if linear else (12, 6 // groups, kernel, kernel)
    kind = () if linear else ([stride] * 2, [padding] * 2, [1, 1], groups)
    whole = torch.randint(-127, 128, shape, dtype=torch.int8)
    weight = WholeWeight(whole, torch.rand(12).double() + 0.1, kind, 127, signed)
    codes = torch.randint(0, 255 if signed else 128, (3, 6) if linear else (3, 6, 5, 7))
    codes = in_format(codes.to(torch.uint8), maps=codes.ndim == 4)
    exact = Floating(weight, torch.zeros((), dtype=torch.float64))(codes)
    product = EightBit(weight)
    assert product.zero_point == 0
    found = product(codes)
    offset = product.offset(codes)
    offset = offset if linear or offset.ndim == 3 else offset[:, None, None]
    assert torch.equal(found.double() - offset, exact)


def test_sums_that_outgrow_float32_leave_the_shift_to_the_library() -> None:
    if eight_bit_obstacle():
        pytest.skip(eight_bit_obstacle())
    torch.manual_seed(0)
    whole = torch.randint(-127, 128, (3, 3000), dtype=torch.int8)
    codes = torch.randint(0, 255, (2, 3000)).to(torch.uint8)
    weight = WholeWeight(whole, torch.ones(3).double(), (), 127, True)
    product = EightBit(weight)
    assert product.zero_point == weight.shift == 127
    assert not product.offset(codes).any()
    exact = Floating(weight, torch.zeros((), dtype=torch.float64))(codes)
    assert torch.equal(product(codes).double(), exact)


def test_the_fallback_is_wide_enough_for_every_sum() -> None:
    whole = torch.full((1, 5000), 127, dtype=torch.int8)
    weight = WholeWeight(whole, torch.ones(1).double(), (), 255, False)
    codes = torch.full((1, 5000), 255, dtype=torch.uint8)
    codes[0, 0] = 254  # 127 less; float32 does not hold such sums
    product = Floating(weight, torch.zeros(()))
    assert product.dtype is torch.float64
    assert float(product(codes).double()) == pytest.approx(127 * (255 * 5000 - 1), rel=1e-7)


def test_a_stream_goes_on_from_what_its_layers_hold() -> None:
    snn, x = converted("average pool", method="sigma-delta")
    snn, _ = ts.quantise_weights(snn)
    frames = [x, x.flip(0), x]
    one, other = (list(snn.stream(frames, executor=e)) for e in ("decoded", "integer"))
    for expected, found in zip(one, other, strict=True):
        assert found.sops == expected.sops


def test_what_is_not_quantised_is_refused_and_says_why() -> None:
    snn, x = converted("average pool")
    message = r"no layer .* \(0: fed by the image; 2: its weights have no common step"
    with pytest.raises(ConfigError, match=message):
        snn(x, 2, executor="integer")


def test_sums_and_constants_on_the_way_are_named() -> None:
    snn, _ = converted("on the way")
    rows = {row.name: row.reason for row in ts.quantise_weights(snn)[1].layers}
    assert rows == {
        "stem": "fed by the image",
        "scaled": "fed by a sum of neurons of different quanta",
        "shifted": "its spikes pass a constant on the way, or are of several codings",
    }


@torch.no_grad()
def test_edits_are_seen() -> None:
    snn, _ = ts.quantise_weights(converted("average pool")[0])
    x = torch.randn(4, 2, 8, 8).double()
    before = snn(x, 3, executor="integer")
    weight = snn.ann.get_parameter("2.weight")
    weight.data.mul_(0.5)
    after = snn(x, 3, executor="integer")
    assert not torch.equal(before, after)
    torch.testing.assert_close(after, snn(x, 3), rtol=1e-12, atol=1e-12)
    weight.data[0, 0, 0, 0] += 0.37 * weight.abs().max()
    with pytest.raises(ConfigError, match="2: its weights are no longer multiples of a step"):
        snn(x, 3, executor="integer")
    snn, _ = ts.quantise_weights(converted("average pool")[0])
    snn(x, 3, executor="integer")
    snn.sites["1"].threshold.mul_(1.1)
    with pytest.raises(ConfigError, match="2: the thresholds that feed it"):
        snn(x, 3, executor="integer")


class LinearOverMaps(nn.Module):
    """Linear layers whose operand has four axes, channels last, as in ConvNeXt and Swin."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = torch.relu(self.conv(x)).permute(0, 2, 3, 1)
        return self.head(torch.relu(self.linear(maps)).amax((1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [4, 8, 16])  # 8: as many rows of a map as channels
@pytest.mark.parametrize("method", ["dcgs", "qcfs"])
def test_linear_layers_of_four_axes(method: str, size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(size)
    model, images = LinearOverMaps().eval().to(dtype), torch.rand(16, 3, size, size, dtype=dtype)
    snn, _ = ts.quantise_weights(ts.convert(model, method, calibration=[images]), 8)
    together = snn(images[:3], 6, executor="integer")
    exact = snn(images[:3], 6, executor="decoded")
    # in float32 a spike may fall a step apart
    tolerance = 1e-12 if dtype is torch.float64 else 2e-3
    torch.testing.assert_close(together, exact, rtol=0, atol=tolerance)
