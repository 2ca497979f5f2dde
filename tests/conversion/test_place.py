"""Every way to write a ReLU is found; the rest is named."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.conversion import convert
from topospike.conversion.place import place_sites
from topospike.errors import ConversionError
from topospike.models.capture import capture
from topospike.snn.coding import Differential
from topospike.snn.neurons import Identity, MultiThreshold
from topospike.snn.site import Site
from topospike.wiring.layers import find_weight_layers


def make(name: str, gated: bool) -> Site:
    return Site(name, gated=gated, neuron=MultiThreshold(4, gated=True), coding=Differential())


class Function(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.head, self.function = nn.Conv2d(2, 3, 3), nn.Linear(3, 2), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.function(self.conv(x)).amax((2, 3)))


@pytest.mark.parametrize(
    "function",
    [
        F.relu, torch.relu, F.relu6, nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(),
        nn.Hardtanh(0.0, 2.5), lambda x: x.relu_(), lambda x: x.clamp(min=0),
        lambda x: torch.clamp(x, 0.0, 1.5), lambda x: torch.clamp_min(x, 0),
        lambda x: F.hardtanh(x, 0.0, 1.0), lambda x: F.threshold(x, 0, 0),
    ],
)  # fmt: skip
def test_every_spelling_of_relu_becomes_one_site_with_the_same_value(function) -> None:
    torch.manual_seed(0)
    model = Function(function).eval()
    x = torch.randn(3, 2, 6, 6) * 4
    expected = model(x)
    network = capture(model, x)
    placed = place_sites(network, make)
    assert len(placed) == 1
    torch.testing.assert_close(network(x), expected)


@pytest.mark.parametrize(
    ("function", "name"),
    [(nn.GELU(), "GELU"), (nn.LeakyReLU(), "leaky ReLU"), (nn.PReLU(), "PReLU"),
     (torch.tanh, "tanh"), (nn.CELU(), "CELU"), (nn.Threshold(0.1, 0.0), "threshold"),
     (nn.Hardtanh(-1.0, 1.0), "hardtanh"), (nn.Identity(), "amax")],
)  # fmt: skip
def test_a_network_without_relu_is_refused_by_name(function, name: str) -> None:
    network = capture(Function(function), torch.randn(2, 2, 6, 6))
    with pytest.raises(ConversionError, match=f"no ReLU-like operation.*{name}"):
        place_sites(network, make)


class Named(nn.Module):
    """A module used at two places, two functional calls in one block."""

    def __init__(self) -> None:
        super().__init__()
        self.act = nn.ReLU()
        self.block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.block(self.act(x + 1)))
        return self.fc(F.relu(F.relu(x).mean((2, 3))))


def test_names_say_where_and_a_reused_module_gives_two_sites() -> None:
    network = capture(Named(), torch.randn(2, 2, 4, 4))
    names = [site.name for site, _ in place_sites(network, make)]
    assert len(names) == len(set(names)) == 5
    assert names[0] == "act"
    assert "block.1" in names
    assert "act_2" in names


class AnyNames(nn.Module):
    """Activations and layers under given names, every activation called twice."""

    def __init__(self, names: list[str]) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.add_module(name, nn.ReLU())
        self.a = nn.Sequential()
        self.a.add_module("ct", nn.ReLU())
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(2 * len(names) + 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers = iter(self.layers)
        for name in (*self.names, *self.names):
            x = self.get_submodule(name)(next(layers)(x))
        return self.a(next(layers)(x))


NAMES = st.sampled_from(["act", "act_2", "act_3", "act_2_2", "a_ct", "a_ct_2", "relu", "relu_2"])


@pytest.mark.slow
@given(names=st.lists(NAMES, min_size=1, max_size=5, unique=True))
@settings(deadline=None, derandomize=True, max_examples=8)
def test_names_are_unique_whatever_the_modules_are_called(names: list[str]) -> None:
    network = capture(AnyNames(names), torch.randn(2, 3))
    placed = place_sites(network, make)
    found = [site.name for site, _ in placed]
    assert len(set(found)) == len(found) == 2 * len(names) + 1
    called = [network.get_submodule(str(node.target)) for _, node in placed]
    assert [id(site) for site in called] == [id(site) for site, _ in placed]


class Gated(nn.Module):
    """Activations of parameters alone, of one axis and of several, as a factor and a summand."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
        self.gate, self.table = (
            nn.Parameter(torch.randn(16)),
            nn.Parameter(torch.randn(1, 16)),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x)) * torch.relu(self.gate)
        return self.b(torch.relu(x + F.relu6(self.table) - 0.5))


def test_an_activation_of_parameters_alone_is_a_constant() -> None:
    torch.manual_seed(0)
    model, x = Gated().eval(), torch.rand(64, 8)
    snn = convert(model, calibration=[x], neuron=Identity(gated=True))
    assert list(snn.sites) == ["relu", "relu_2"]
    torch.testing.assert_close(snn(x, timesteps=2)[-1], model(x))


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True)], ids=str
)
def test_a_max_pool_moves_in_front_of_its_relu(pool: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), pool, nn.Conv2d(3, 2, 1)).eval()
    x = torch.randn(3, 2, 9, 9)
    network = capture(model, x)
    place_sites(network, make)
    assert torch.equal(network(x), model(x))
    assert find_weight_layers(network)[-1].fed_by == "spikes"


class TwoReaders(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.a(x))
        return self.b(F.max_pool2d(x, 2)) + F.max_pool2d(self.c(x), 2)


def test_a_max_pool_whose_relu_has_other_readers_stays_and_is_reported() -> None:
    torch.manual_seed(0)
    model = TwoReaders().eval()
    x = torch.randn(2, 2, 4, 4)
    network = capture(model, x)
    place_sites(network, make)
    torch.testing.assert_close(network(x), model(x))
    fed = {layer.name: layer.fed_by for layer in find_weight_layers(network)}
    assert fed == {"a": "image", "b": "maxpool", "c": "spikes"}
