"""Products in bfloat16 and memory formats: what they change, and what they must leave alone."""

from functools import cache

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.conversion import convert
from topospike.data import load_data
from topospike.errors import ConfigError
from topospike.recipe import DataSettings
from topospike.snn import SpikingNetwork
from topospike.snn.executors import EXECUTORS
from topospike.snn.executors.forms import LARGE_MAP
from topospike.snn.executors.steps import Step


@cache
def digits() -> tuple[SpikingNetwork, torch.Tensor, torch.Tensor]:
    """A small convolutional network that has learned the digits, converted; test images."""
    torch.manual_seed(0)
    data = load_data(DataSettings("digits"), seed=0)
    model = nn.Sequential(
        nn.Conv2d(data.channels, 12, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.LazyLinear(48), nn.ReLU(), nn.Linear(48, data.classes),
    )  # fmt: skip
    batches = [batch for _ in range(4) for batch in data.train]
    model(batches[0][0])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for images, labels in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    images, labels = (torch.cat(parts) for parts in zip(*data.test, strict=True))
    snn = convert(model.eval(), calibration=data.calibration, timesteps=8)
    return snn, images, labels


@pytest.mark.slow
def test_bf16_changes_fewer_decisions_than_the_conversion_did() -> None:
    snn, images, labels = digits()
    exact, rounded = snn(images, 8), snn(images, 8, executor="bf16")
    assert rounded.dtype == torch.float32
    ann = snn.analog(images)
    # what rounding adds, beside the distance of the spiking network from its ANN
    added, distance = (rounded[-1] - exact[-1]).abs().mean(), (exact[-1] - ann).abs().mean()
    assert 0 < added < distance
    assert added < 0.02 * exact[-1].abs().mean()
    assert (rounded[-1].argmax(1) == exact[-1].argmax(1)).float().mean() >= 0.99
    accuracy = (rounded[-1].argmax(1) == labels).float().mean()
    assert abs(accuracy - (exact[-1].argmax(1) == labels).float().mean()) <= 0.005


@pytest.mark.slow
def test_bf16_is_only_taken_when_it_is_named() -> None:
    snn, images, labels = digits()
    before = snn(images, 3)
    rounded = snn(images, 3, executor="bf16")
    assert torch.equal(snn(images, 3), before)
    snn.executor = "bf16"
    try:
        assert torch.equal(snn(images, 3), rounded)
        measured = ts.evaluate(snn, [(images, labels)], 3)
        assert measured.accuracy[2] == float((rounded[2].argmax(1) == labels).double().mean())
    finally:
        snn.executor = "decoded"


def test_state_logits_and_first_layer_stay_exact() -> None:
    snn, images, _ = digits()
    program = snn.program(EXECUTORS["bf16"])
    # neither the first convolution (once an image) nor the logits
    weights = [str(layer.node.all_input_nodes[1].target) for layer in program.forms]
    assert weights == ["3.weight", "7.weight"]
    last = snn.ann.get_submodule("9")
    for step in snn.watch(images, 2, executor="bf16"):
        states = [site.decoded for site in step.sites.values()]
        assert all(state is not None and state.dtype == torch.float32 for state in states)
        expected = nn.functional.linear(states[-1], last.weight, last.bias)  # pyright: ignore
        torch.testing.assert_close(step.logits, expected)


def test_each_product_is_the_rounded_one() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.Linear(30, 8), nn.ReLU())
    x = torch.randn(9, 20)
    snn = convert(nn.Sequential(*model, nn.Linear(8, 3)), calibration=[x])
    program, operand = snn.program(EXECUTORS["bf16"]), torch.randn(9, 30)
    layer, state = program.forms[0], program.start((x,))
    run = Step(program, 1, state, record=True, together=1)
    result, _ = layer.step(state.layers[0], run, (operand,))
    weight, bias = (p.bfloat16().double() for p in model[2].parameters())
    expected = operand.bfloat16().double() @ weight.t() + bias
    # one rounding of the result: half a unit of 8 bits
    assert ((result - expected).abs() <= 2.0**-8 * expected.abs() + 1e-6).all()


class Attention(nn.Module):
    """One head: two products of activations."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(torch.relu(x)).chunk(3, -1)
        scores = (q @ k.transpose(-2, -1) / 4.0).softmax(-1)
        return self.head(torch.relu(self.out(scores @ v)).mean(1))


def test_products_of_two_activations_are_rounded_too() -> None:
    torch.manual_seed(0)
    x = torch.randn(24, 5, 16)
    snn = convert(Attention().eval(), calibration=[x], timesteps=8)
    kinds = {str(layer.node.target) for layer in snn.program(EXECUTORS["bf16"]).forms}
    assert {"aten.matmul.default", "aten.linear.default"} <= kinds
    exact, rounded = snn(x, 8)[-1], snn(x, 8, executor="bf16")[-1]
    assert (rounded - exact).abs().mean() < 0.1 * exact.std()


def test_a_float64_network_keeps_its_state_in_float64() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 20), nn.ReLU())
    x = torch.randn(16, 6, dtype=torch.float64)
    snn = convert(nn.Sequential(*model, nn.Linear(20, 3)).double(), calibration=[x])
    rounded = snn(x, 4, executor="bf16")
    assert rounded.dtype == torch.float64
    torch.testing.assert_close(rounded, snn(x, 4), rtol=0.05, atol=0.05)


def test_unknown_precisions_are_refused() -> None:
    snn, images, _ = digits()
    with pytest.raises(ConfigError, match=r"unknown executor 'bfloat16'\. Known: bf16, dec"):
        snn(images, 2, executor="bfloat16")


@pytest.mark.parametrize("side", [8, 16])
def test_large_maps_have_their_channels_last_and_the_result_does_not_tell(side: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, padding=1), nn.ReLU(),
        nn.AvgPool2d(2), nn.Conv2d(6, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
    ).eval()  # fmt: skip
    x = torch.randn(12, 2, side, side)
    model(x)
    snn = convert(model, calibration=[x])
    large = side * side >= LARGE_MAP
    assert snn.program(EXECUTORS["decoded"]).channels_last is large
    (step,) = snn.watch(x, 1)
    states = [site.decoded for site in step.sites.values()]
    formats = [s.is_contiguous(memory_format=torch.channels_last) for s in states]  # pyright: ignore
    assert formats == [large, large, False]
    assert (snn(x, 6) - snn.double()(x.double(), 6)).abs().mean() < 1e-3
