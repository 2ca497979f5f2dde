import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from topospike.errors import ConfigError
from topospike.models import conv6fc2, mlp, resnet18, small_cnn, vgg16, weight_layers


class Backwards(nn.Module):
    """Registers its classifier first and calls a weight by function; names say nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 3)
        self.b = nn.Linear(5, 6)
        self.c = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        x = self.c(x.unsqueeze(1)).squeeze(1)
        x = functional.relu(functional.linear(x, self.b.weight, self.b.bias))
        return self.a(x)


class DataDependent(Backwards):
    """Cannot be traced: what it does depends on the values."""

    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class Noting(Backwards):
    """Keeps something of every run in an attribute."""

    last = None

    def forward(self, x):
        self.last = super().forward(x)
        return self.last


def classifier(model, example=None):
    (name,) = [layer.name for layer in weight_layers(model, example) if layer.is_classifier]
    return name


@pytest.mark.parametrize(
    ("model", "name"),
    [
        (vgg16(widths=(4,) * 5), "classifier.4"),
        (resnet18(widths=(4,) * 4), "fc"),
        (conv6fc2(widths=(4,) * 6), "classifier.2"),
        (mlp(), "layers.6"),
        (small_cnn(), "classifier.2"),
        (Backwards(), "a"),
        (nn.Sequential(nn.Linear(3, 2)), "0"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 1)), "1"),
    ],
)
def test_classifier_is_the_last_linear_layer_that_runs(model, name):
    assert classifier(model) == name


def test_all_layers_in_module_order():
    layers = weight_layers(resnet18(widths=(4, 8), blocks=(1, 1)))
    assert [layer.name for layer in layers] == [
        "conv1",
        "stages.0.0.conv1",
        "stages.0.0.conv2",
        "stages.1.0.conv1",
        "stages.1.0.conv2",
        "stages.1.0.shortcut.0",
        "fc",
    ]
    assert [layer.kind for layer in layers] == ["conv"] * 6 + ["linear"]
    model = resnet18(widths=(4, 8), blocks=(1, 1))
    for layer in weight_layers(model):
        assert model.get_parameter(layer.parameter) is layer.module.weight


def test_groups_and_the_model_itself_being_a_layer():
    net = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.Flatten(), nn.Linear(8, 2))
    assert [layer.groups for layer in weight_layers(net)] == [2, 1]
    (only,) = weight_layers(nn.Linear(3, 2))
    assert (only.name, only.parameter, only.is_classifier) == ("", "weight", True)


def test_a_shared_layer_is_listed_once():
    shared = nn.Linear(4, 4)
    layers = weight_layers(nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(4, 2)))
    assert [(layer.name, layer.is_classifier) for layer in layers] == [("0", False), ("3", True)]


def test_model_without_layers():
    assert weight_layers(nn.ReLU()) == []


def test_untraceable_model_is_reported_and_settled_by_an_example(caplog):
    model = DataDependent()
    with caplog.at_level(logging.WARNING):
        assert classifier(model) == "b"
    assert "DataDependent cannot be traced symbolically" in caplog.text
    assert "Pass an example" in caplog.text
    assert classifier(model, torch.ones(2, 5)) == "a"


def test_model_is_left_as_it_was():
    model = Noting()
    model.c.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert classifier(model) == "a"
    assert model.last is None
    assert classifier(model, torch.zeros(2, 5)) == "a"
    assert (model.training, model.c.training, model.a.training) == (True, False, True)
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_example_run_does_not_move_batch_statistics():
    model = small_cnn()
    before = model.features[1].running_mean.clone()
    weight_layers(model, torch.randn(4, 1, 8, 8))
    assert torch.equal(model.features[1].running_mean, before)


def test_lazy_layer_is_refused():
    with pytest.raises(ConfigError, match="layer '0' is lazy"):
        weight_layers(nn.Sequential(nn.LazyLinear(3)))
