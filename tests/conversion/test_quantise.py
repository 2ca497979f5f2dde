"""Quantised activations in the place of rectifiers, however those are written."""

import copy
import functools

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import topospike as ts
from topospike.conversion import convert
from topospike.conversion.quantise import (
    quantise_activations,
    to_channel_thresholds,
)
from topospike.errors import ConfigError, ConversionError, MissingDataError
from topospike.models.qcfs import QCFS, SlipReLU
from topospike.models.rectifier_calls import is_in_place, is_rectifier
from topospike.wiring.graph import site_calls


class Block(nn.Module):
    """A residual block whose one ReLU module is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.shortcut = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(4, 6, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn(self.conv1(x)))
        return self.relu(self.conv2(y) + self.shortcut(x))


class Mixed(nn.Module):
    """Rectifiers as module, function, method, in place with its result unused, and shared."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU6())
        self.block, self.drop = Block(), nn.Dropout(0.5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(96, 12), nn.Linear(12, 12), nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(self.stem(x), 2)
        x = F.relu(self.fc1(self.block(x).flatten(1)))
        x = self.fc2(x)
        x.clamp_(min=0)
        return self.fc3(self.drop(x))


SITES = ["stem.1", "block.relu", "block.relu_2", "relu", "relu_2"]


def modules_only() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3),
    )  # fmt: skip


def some_images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, 1, 8, 8, dtype=torch.float64, generator=generator)


@pytest.fixture
def images() -> torch.Tensor:
    return some_images()


def net(build: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().double()


def learnt(model: nn.Module, x: torch.Tensor, kind: str, **options) -> nn.Module:
    """A quantised model after two steps of training, so that thresholds and statistics moved."""
    model = quantise_activations(model, x, kind=kind, calibration=x, **options).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for _ in range(2):
        F.cross_entropy(model(x), torch.arange(len(x)) % 3).backward()
        optimizer.step()
    return model.eval()


@functools.cache
def learnt_once(build, kind: str) -> nn.Module:
    return learnt(net(build), some_images(), kind)


@pytest.mark.parametrize(("build", "kind"), [
    (Mixed, "s-qcfs"),
    (modules_only, "qcfs"),
    pytest.param(Mixed, "cs-qcfs", marks=pytest.mark.slow),
    pytest.param(modules_only, "slip-relu", marks=pytest.mark.slow),
])  # fmt: skip
def test_what_is_trained_is_what_is_converted(build, kind, images) -> None:
    model = net(build)
    quantised = learnt_once(build, kind)
    assert type(quantised) is type(model)
    assert set(model.state_dict()) < set(quantised.state_dict())
    moved = [beta for name, beta in quantised.named_parameters() if name.endswith("beta")]
    assert all(beta.grad is not None and bool(beta.grad.any()) for beta in moved)
    method = "slip-relu" if kind == "slip-relu" else "qcfs"
    snn = convert(quantised, method, images)
    torch.testing.assert_close(snn.analog(images), quantised(images).detach(), rtol=0, atol=1e-12)
    assert snn.report.solver == "trained"
    if build is Mixed:
        assert list(snn.sites) == SITES


def test_t_c_one_step_equals_the_whole_network_with_one_level(images) -> None:
    quantised = learnt(net(Mixed), images, "cs-qcfs", levels=1)
    snn = convert(quantised, "cs-qcfs", images)
    torch.testing.assert_close(snn(images, 1)[0], quantised(images).detach(), rtol=0, atol=1e-12)


def test_t_d_where_every_membrane_ends_inside_the_network_equals_its_ann(images) -> None:
    """With L = T; the images all of whose neurons satisfy T-B are exact, others need not be."""
    steps, exact = 2, torch.ones(len(images), dtype=torch.bool)
    quantised = learnt(net(modules_only), images, "cs-qcfs", levels=steps)
    snn = convert(quantised, "cs-qcfs", images)
    reaching = [node.all_input_nodes[0] for node in site_calls(snn.ann)]
    *_, last = snn.watch(images, steps, reaching)
    for r_in, (name, held) in zip(last.values, last.sites.items(), strict=True):
        theta = snn.sites[name].threshold
        k = torch.floor(steps * r_in / theta + 0.5).clamp(0, steps)
        same = (held.decoded * steps / theta - k).abs() < 1e-6
        exact &= same.flatten(1).all(1)
    difference = (last.logits - quantised(images).detach()).abs().amax(1)
    assert exact.any()
    assert difference[exact].max() < 1e-12
    assert (difference > 1e-3).any()


@pytest.mark.parametrize(("build", "kind", "expected"), [
    (Mixed, "s-qcfs", [(4,), (6,), (6,), (), ()]),
    (modules_only, "qcfs", [(4,), ()]),
])  # fmt: skip
def test_the_channel_wise_stage_starts_as_the_same_function(build, kind, expected, images) -> None:
    layer_wise = learnt_once(build, kind)
    channel_wise = to_channel_thresholds(layer_wise, images)
    assert torch.equal(channel_wise(images), layer_wise(images))
    shapes = [tuple(m.beta.shape) for m in channel_wise.modules() if isinstance(m, QCFS)]
    assert shapes == expected
    assert all(p.requires_grad for p in channel_wise.parameters())
    assert all(p.ndim == 0 for n, p in layer_wise.named_parameters() if "beta" in n)


def test_training_sees_batch_statistics_and_dropout(images) -> None:
    assert quantise_activations(Moody().train(), torch.rand(2, 4)).training
    model = copy.deepcopy(learnt_once(Mixed, "s-qcfs")).train()
    running = model.block.bn.running_mean.clone()
    torch.manual_seed(1)
    one, two = model(images), model(images)
    assert not torch.equal(one, two)
    assert not torch.equal(model.block.bn.running_mean, running)


def test_thresholds_start_where_asked(images) -> None:
    def thetas(**options) -> list[float]:
        model = quantise_activations(net(modules_only).eval(), images, **options)
        return [m.theta.item() for m in model.modules() if isinstance(m, QCFS)]

    assert thetas() == pytest.approx([8.0, 8.0])
    assert thetas(theta_init=2.5, kind="qcfs") == pytest.approx([2.5, 2.5])
    model = net(modules_only).eval()
    largest = model[:2](images).max().item()
    assert thetas(calibration=images, percentile=1.0)[0] == pytest.approx(largest, rel=1e-6)


def test_the_model_is_left_alone_and_its_masks_and_precision_come_along() -> None:
    model, x = modules_only(), torch.randn(4, 1, 8, 8)
    ts.sparsify(model, "static", sparsity=0.5, epochs=1)
    topology, before = ts.Topology.from_model(model), copy.deepcopy(model.state_dict())
    quantised = to_channel_thresholds(quantise_activations(model, x), x)
    topology.verify(quantised)
    assert ts.Topology.from_model(quantised).digest == topology.digest
    assert {p.dtype for p in quantised.parameters()} == {torch.float32}
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_a_quantised_model_can_be_part_of_another(images) -> None:
    quantised = learnt_once(Mixed, "s-qcfs")
    whole = nn.Sequential(nn.Identity(), quantised).eval()
    snn = convert(whole, "qcfs", images)
    assert [site.name for site in snn.report.sites] == [f"1.{name}" for name in SITES]
    torch.testing.assert_close(snn.analog(images), whole(images).detach(), rtol=0, atol=1e-12)


def test_a_container_with_functional_rectifiers_inside(images) -> None:
    class Layer(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(super().forward(x))

    model = nn.Sequential(nn.Flatten(), Layer(64, 8), Layer(8, 4), nn.Linear(4, 3)).double()
    quantised = quantise_activations(model, images)
    snn = convert(quantised, "qcfs", images)
    torch.testing.assert_close(snn.analog(images), quantised(images).detach(), rtol=0, atol=1e-12)


class Moody(nn.Module):
    """Runs another number of rectifiers in training."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.extra = nn.Linear(4, 8), nn.Linear(8, 2), 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.fc1(x))
        for _ in range(self.extra if self.training else 0):
            x = torch.relu(x)
        if self.extra < 0 and self.training:
            raise ValueError("an error of its own")
        return self.fc2(x)


def test_another_number_of_calls_is_one_clear_error() -> None:
    model = quantise_activations(Moody(), torch.rand(2, 4)).train()
    model.extra = 1
    with pytest.raises(ConversionError, match=r"more than 1 rectifier calls where 1 were found"):
        model(torch.rand(2, 4))
    model.extra = -1
    with pytest.raises(ValueError, match="an error of its own"):
        model(torch.rand(2, 4))
    model.extra = 0
    assert torch.relu(torch.tensor(20.0)) == 20  # the mode is off after the failures
    assert model(torch.rand(2, 4)).shape == (2, 2)


def test_unusable_requests_are_refused(images) -> None:
    model = net(modules_only)
    with pytest.raises(ConfigError, match=r"unknown kind .* 'cs-qfcs'.*mean 'cs-qcfs'"):
        quantise_activations(model, images, kind="cs-qfcs")
    with pytest.raises(ConfigError, match="steps is 0"):
        quantise_activations(model, images, levels=0)
    with pytest.raises(MissingDataError, match="no calibration images to start"):
        quantise_activations(model, images, calibration=[])
    with pytest.raises(ConversionError, match="no ReLU-like operation"):
        quantise_activations(nn.Linear(4, 2), torch.rand(2, 4))
    with pytest.raises(ConversionError, match="2 is a quantised activation already"):
        quantise_activations(learnt_once(modules_only, "qcfs"), images)
    with pytest.raises(ConversionError, match="no quantised activations; apply quantise_act"):
        to_channel_thresholds(model, images)


class Ignored(nn.Module):
    """Uses an in-place module for its side effect alone."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.relu, self.fc2 = nn.Linear(4, 32), nn.ReLU(inplace=True), nn.Linear(32, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.fc1(x)
        self.relu(x)
        return self.fc2(x)


def test_an_exchange_that_would_change_the_function_is_noticed() -> None:
    with pytest.raises(ConversionError, match=r"Ignored .* differs from its captured graph by"):
        quantise_activations(Ignored(), torch.randn(16, 4))


X = torch.ones(2)


@pytest.mark.parametrize(("call", "rectifies", "in_place"), [
    ((F.relu, (X,), {"inplace": True}), True, True),
    ((F.relu, (X, True), {}), True, True),
    ((F.relu6, (X,), {}), True, False),
    ((torch.relu_, (X,), {}), True, True),
    ((torch.Tensor.clamp_min, (X, 0.0), {}), True, False),
    ((torch.Tensor.clamp_, (X,), {"min": 0}), True, True),
    ((torch.clamp, (X, None, 6), {}), False, False),
    ((torch.clamp, (X, torch.zeros(2)), {}), False, False),
    ((F.hardtanh, (X,), {}), False, False),
    ((F.hardtanh, (X, 0.0, 6.0, True), {}), True, True),
])  # fmt: skip
def test_which_calls_are_rectifiers(call, rectifies, in_place) -> None:
    assert is_rectifier(*call) == rectifies
    if rectifies:
        assert is_in_place(*call) == in_place


def test_slip_relu_is_a_layer_of_its_own() -> None:
    layer = SlipReLU(4, theta_init=2.0, slope=0.0)
    x = torch.linspace(-1, 3, 40)
    assert torch.equal(layer(x), QCFS(4, theta_init=2.0, positive_map="none")(x))
    with pytest.raises(ConfigError, match=r"slope is 1\.5; it must lie in \[0, 1\]"):
        SlipReLU(4, slope=1.5)
    with pytest.raises(ConfigError, match="floor_first only"):
        SlipReLU(4, order="clamp_first")
