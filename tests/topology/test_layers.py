import logging

import pytest
import torch
from torch import nn
from torch.nn import functional

from topospike.errors import ConfigError
from topospike.models import conv6fc2, mlp, resnet18, small_cnn, vgg16
from topospike.topology import select, weight_layers


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


class Tail(nn.Module):
    """Ends in an operation that the subclass chooses; the hidden layer comes before it."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.hidden = nn.Linear(4, 4)
        self.table = nn.Parameter(torch.randn(4, 3))
        self.register_buffer("mixing", torch.eye(4))

    def forward(self, x):
        return self.end(self.hidden(x).relu())


def ends(end):
    return type(end.__name__, (Tail,), {"end": end})()


def product_with_embedding(self, x):
    return functional.linear(x, self.embedding.weight)


def product_with_a_parameter(self, x):
    return x @ self.table


def product_with_a_constant(self, x):
    return x @ self.mixing


def scaled_weight(self, x):
    return functional.linear(x, (self.hidden.weight * 2).t().contiguous())


@pytest.mark.parametrize("example", [None, torch.zeros(2, 4)], ids=["traced", "exported"])
@pytest.mark.parametrize(
    ("end", "expected"),
    [
        (product_with_embedding, []),
        (product_with_a_parameter, []),
        (product_with_a_constant, ["hidden"]),
        (scaled_weight, ["hidden"]),
    ],
)
def test_the_last_weighted_operation_of_the_graph_decides(end, expected, example):
    layers = weight_layers(ends(end), example)
    assert [layer.name for layer in layers if layer.is_classifier] == expected


@pytest.mark.parametrize("example", [None, torch.zeros(2, 1, 8, 8)], ids=["traced", "exported"])
def test_an_autoencoder_has_no_classifier(example):
    model = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.ConvTranspose2d(4, 1, 4))
    (layer,) = weight_layers(model, example)
    assert layer.is_classifier is False


def test_an_auxiliary_result_is_not_the_classifier():
    class Auxiliary(Backwards):
        def forward(self, x):
            hidden = functional.relu(self.b(x))
            return self.a(hidden), self.c(x.unsqueeze(1))

    assert classifier(Auxiliary()) == classifier(Auxiliary(), torch.zeros(2, 5)) == "a"


def test_a_model_that_only_exports_is_settled_by_its_exported_graph(caplog):
    class Loop(Backwards):
        def forward(self, x):
            for _ in range(len(x.shape)):
                x = x + 1
            assert isinstance(x, torch.Tensor), "a proxy stops here, a fake tensor does not"
            return super().forward(x)

    with caplog.at_level(logging.WARNING, "topospike"):
        assert classifier(Loop(), torch.zeros(2, 5)) == "a"
    assert not [record for record in caplog.records if record.name.startswith("topospike")]


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # the compiler's own imports
def test_a_compiled_model_means_the_original():
    model = mlp()
    names = [layer.parameter for layer in weight_layers(torch.compile(model))]
    assert names == [layer.parameter for layer in weight_layers(model)]


def test_parametrized_tied_and_frozen_weights_are_known():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2))
    nn.utils.parametrizations.spectral_norm(model[0])
    model[2].weight = model[1].weight
    model[3].requires_grad_(False)
    layers = weight_layers(model)
    for layer in layers:
        assert layer.parameter in dict(model.named_parameters(remove_duplicate=False))
    assert [layer.tied for layer in layers] == [(), ("2.weight",), ("1.weight",), ()]
    assert [layer.is_classifier for layer in layers] == [False, False, False, True]
    assert not layers[3].trains
    with pytest.raises(ConfigError, match="remove the parametrization"):
        select(layers, {"0": 0.5})
    with pytest.raises(ConfigError, match=r"1\.weight is the same weight as 2\.weight"):
        select(layers, {"1": 0.5})


class NamedLikeKinds(nn.Module):
    """Calls its classifier ``linear``, as many published networks do."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.hidden = nn.Linear(4, 4)
        self.linear = nn.Linear(4, 2)

    def forward(self, x):
        return self.linear(self.hidden(self.conv(x).mean((2, 3))).relu())


@pytest.mark.parametrize(
    ("sparsity", "chosen"),
    [
        (0.5, {"conv": 0.5, "hidden": 0.5}),
        ({"linear": 0.9}, {"hidden": 0.9}),
        ({"linear": 0.9, "conv": 0.1}, {"conv": 0.1, "hidden": 0.9}),
        ({"linear": 0.9, "hidden": 0}, {}),
        ({"linear.weight": 0.9}, {"linear": 0.9}),
        ({"linear.weight": 0.9, "linear": 0.2}, {"hidden": 0.2, "linear": 0.9}),
    ],
)
def test_a_kind_is_not_a_name(sparsity, chosen):
    layers = weight_layers(NamedLikeKinds())
    assert {layer.name: share for layer, share in select(layers, sparsity)} == chosen
