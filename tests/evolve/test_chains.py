import pytest
import torch
from torch import nn
from torch.nn import functional

from topospike.errors import ConversionError
from topospike.evolve import find_chains
from topospike.models import resnet18, vgg16
from topospike.topology import weight_layers


class Branching(nn.Module):
    """Functional style, in-place ops, a residual sum, a mean over positions, a layer norm."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.one = nn.Conv2d(4, 6, 3, padding=1)
        self.two = nn.Conv2d(6, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)
        self.last = nn.Linear(5, 3)
        self.out = nn.Linear(3, 2)
        self.layer_norm = nn.LayerNorm(5)

    def forward(self, x):
        x = torch.relu_(self.norm(self.stem(x)))
        y = self.two(functional.relu(self.one(x)))
        x = functional.relu(x + y).mean((2, 3))
        x = functional.gelu(self.layer_norm(self.head(x)))
        return self.out(self.last(x).clamp(min=0))


def test_chains_end_at_sums_branches_and_mixing_norms():
    names = ["stem", "one", "two", "head", "last", "out"]
    found = find_chains(Branching(), torch.zeros(2, 1, 6, 6), names)
    assert found == [("one", "two"), ("last", "out")]


def test_vgg_is_one_chain_through_the_flatten():
    model = vgg16(classes=10, channels=3, image_size=(32, 32), widths=(4,) * 13)
    names = [layer.name for layer in weight_layers(model) if not layer.is_classifier]
    assert find_chains(model, torch.zeros(2, 3, 32, 32), names) == [tuple(names)]


@pytest.mark.slow
def test_resnet_chains_stay_inside_the_blocks():
    model = resnet18(classes=10, channels=3, widths=(4, 4, 4, 4))
    names = [layer.name for layer in weight_layers(model) if not layer.is_classifier]
    found = find_chains(model, torch.zeros(2, 3, 16, 16), names)
    assert len(found) == 8
    for first, second in found:
        assert first.removesuffix("conv1") == second.removesuffix("conv2")


def test_a_layer_without_a_mask_cuts_the_chain():
    model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(4)])
    assert find_chains(model, torch.zeros(2, 3), ["0", "1", "3"]) == [("0", "1")]


class Twisted(nn.Module):
    def __init__(self, twist):
        super().__init__()
        self.twist = twist
        self.conv = nn.Conv2d(1, 4, 1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.twist(self.conv(x)))


@pytest.mark.parametrize(
    ("twist", "joined"),
    [
        (lambda x: x.flatten(1), True),
        (lambda x: x.reshape(x.shape[0], 4, 4).relu().flatten(1), True),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), False),
        (lambda x: functional.softmax(x.flatten(1), 1), False),
        (lambda x: x.flatten(1) * x.flatten(1), False),
    ],
)
def test_only_operations_that_keep_neurons_apart_join(twist, joined):
    found = find_chains(Twisted(twist), torch.zeros(2, 1, 2, 2), ["conv", "fc"])
    assert found == ([("conv", "fc")] if joined else [])


POINTWISE = [
    *(
        nn.PReLU(),
        nn.PReLU(3),
        nn.SELU(),
        nn.CELU(),
        nn.ELU(inplace=True),
        nn.Mish(),
        nn.Softplus(),
    ),
    *(nn.LogSigmoid(), nn.Hardsigmoid(), nn.Hardswish(inplace=True), nn.ReLU6(), nn.RReLU()),
    *(nn.Threshold(0.1, 0.0), nn.LeakyReLU(), nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh()),
    *(nn.Dropout(), nn.AlphaDropout(), nn.Hardtanh()),
]


@pytest.mark.parametrize("activation", POINTWISE, ids=repr)
def test_every_pointwise_activation_keeps_neurons_apart(activation):
    model = nn.Sequential(nn.Linear(4, 3), activation, nn.Linear(3, 2))
    assert find_chains(model, torch.zeros(2, 4), ["0", "2"]) == [("0", "2")]


CHANNEL_WISE = {
    "norm": (nn.InstanceNorm2d(3, affine=True), True),
    "groups": (nn.GroupNorm(1, 3), False),
    "channel dropout": (nn.Dropout2d(), True),
    "nearest": (nn.Upsample(scale_factor=2), True),
    "bilinear": (nn.Upsample(scale_factor=2, mode="bilinear"), True),
    "softmax": (nn.Softmax2d(), False),
}


@pytest.mark.parametrize(("between", "joined"), CHANNEL_WISE.values(), ids=CHANNEL_WISE)
def test_what_mixes_channels_ends_a_chain(between, joined):
    model = nn.Sequential(nn.Conv2d(1, 3, 3), between, nn.Conv2d(3, 2, 3))
    found = find_chains(model, torch.zeros(2, 1, 8, 8), ["0", "2"])
    assert found == ([("0", "2")] if joined else [])


class Scaled(nn.Module):
    """A neuron is scaled and shifted by parameters; or spread over the neurons of another axis."""

    def __init__(self, spread):
        super().__init__()
        self.first, self.second = nn.Linear(4, 1 if spread else 3), nn.Linear(3, 2)
        self.scale, self.shift = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        return self.second(0.5 * self.first(x) * self.scale + self.shift)


@pytest.mark.parametrize("spread", [False, True])
def test_parameters_scale_neurons_and_do_not_mix_them(spread):
    found = find_chains(Scaled(spread), torch.zeros(2, 4), ["first", "second"])
    assert found == ([] if spread else [("first", "second")])


class Reuse(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)
        self.c = nn.Linear(4, 2)

    def forward(self, x):
        return self.c(self.b(self.a(self.a(x))))


def test_a_layer_that_runs_twice_is_in_no_chain():
    assert find_chains(Reuse(), torch.zeros(2, 4), ["a", "b", "c"]) == [("b", "c")]


def test_grouped_convolutions_do_not_take_from_a_chain():
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2), nn.Conv2d(4, 2, 1))
    assert find_chains(model, torch.zeros(2, 2, 3, 3), ["0", "1", "2"]) == [("1", "2")]


class Undecided(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 2)

    def forward(self, x):
        return self.fc(x) if x.sum() > 0 else x


def test_a_model_that_cannot_be_captured_says_so():
    with pytest.raises(ConversionError, match="Undecided could not be captured"):
        find_chains(Undecided(), torch.zeros(2, 2), ["fc"])
