"""Sizes and costs of the networks against the published counts, and their forms."""

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError
from topospike.models import (
    conv2fc2,
    conv6fc2,
    fast_cnn,
    mlp,
    mobilenet_v2,
    resnet18,
    small_cnn,
    vgg16,
)
from topospike.topology import weight_layers


def macs(model: nn.Module, x: torch.Tensor) -> dict[str, int]:
    """Multiply-accumulates per image of every convolution and linear layer, borders included."""
    counts: dict[str, int] = {}
    hooks = [
        layer.module.register_forward_hook(
            lambda module, _, y, name=layer.name: counts.update(
                {name: y[0].numel() * module.weight[0].numel()}
            )
        )
        for layer in weight_layers(model)
    ]
    with torch.no_grad():
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    return counts


def weights(model: nn.Module, kind: str) -> list[int]:
    return [w.module.weight.numel() for w in weight_layers(model) if w.kind == kind]


CIFAR = torch.zeros(1, 3, 32, 32)


@pytest.mark.parametrize(
    ("build", "classes", "total"),
    [
        (vgg16, 10, 313_725_952),
        (vgg16, 100, 313_772_032),
        (resnet18, 10, 555_422_720),
        (resnet18, 100, 555_468_800),
    ],
)
def test_operation_counts(build, classes, total):
    counts = macs(build(classes), CIFAR)
    assert sum(counts.values()) == total
    assert next(iter(counts.values())) == 1_769_472


def test_vgg16_form():
    model = vgg16(10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 13
    assert all(c.bias is not None for c in convolutions)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(512, 512), (512, 512), (512, 10)]
    assert sum(isinstance(m, nn.MaxPool2d) for m in model.modules()) == 5
    assert sum(isinstance(m, nn.AvgPool2d) for m in vgg16(pool="avg").modules()) == 5


def test_resnet18_form():
    model = resnet18(10)
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 20
    assert sum(c.kernel_size == (1, 1) for c in convolutions) == 3
    assert all(c.bias is None for c in convolutions)
    assert sum(isinstance(m, nn.Linear) for m in model.modules()) == 1


def test_fast_cnn_pools_before_normalising():
    counts = macs(fast_cnn(10), CIFAR)
    places = [31**2, 31**2, 15**2, 15**2, 7**2, 7**2, 3**2]
    sizes = [12 * 24, *(9 * a * b for a, b in ((24, 64), (64, 64), (64, 256), (256, 256)))]
    sizes += [9 * 256 * 256] * 2
    linear = [2304 * 512, 512 * 512, 512 * 10]
    assert list(counts.values()) == [p * s for p, s in zip(places, sizes, strict=True)] + linear
    kinds = [type(module) for module in fast_cnn(10).features]
    first = [nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.ReLU]
    assert kinds == [*first, nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 3


def test_6conv2fc_counts():
    for classes, linear, parameters in (
        (10, 16_782_336, 21_361_034),
        (100, 16_828_416, 21_407_204),
    ):
        model = conv6fc2(classes)
        assert weights(model, "conv") == [3456, 147_456, 294_912, 589_824, 1_179_648, 2_359_296]
        assert sum(weights(model, "conv")) == 4_574_592
        assert sum(weights(model, "linear")) == linear
        # the spiking reference has two scalars more in each of its six convolution blocks
        assert sum(p.numel() for p in model.parameters()) == parameters


def test_6conv2fc_operations():
    assert list(macs(conv6fc2(10), CIFAR).values()) == [
        3_538_944,
        150_994_944,
        75_497_472,
        150_994_944,
        75_497_472,
        150_994_944,
        16_777_216,
        5120,
    ]


@pytest.mark.parametrize(
    ("classes", "conv", "linear", "published"),
    [
        (10, 3.35, 72.74, 57.87),
        (10, 6.33, 43.15, 35.26),
        (100, 1.56, 73.02, 57.75),
        (100, 6.34, 45.37, 37.02),
    ],
)
def test_published_sparsity_of_the_whole_network(classes, conv, linear, published):
    """Table 2 from Table A2: all linear weights count, the classifier's too."""
    model = conv6fc2(classes)
    c, n = sum(weights(model, "conv")), sum(weights(model, "linear"))
    assert (c * conv + n * linear) / (c + n) == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize(
    ("classes", "conv", "linear", "published"),
    [(10, 10, 90, 72.84), (10, 60, 99, 90.62), (100, 10, 90, 72.68), (100, 60, 99, 90.42)],
)
def test_published_sparsity_with_a_dense_classifier(classes, conv, linear, published):
    """Table 3: the percentages hold for all convolutions and the hidden linear layer."""
    layers = weight_layers(conv6fc2(classes))
    zeros = sum(
        layer.module.weight.numel() * (conv if layer.kind == "conv" else linear)
        for layer in layers
        if not layer.is_classifier
    )
    total = sum(layer.module.weight.numel() for layer in layers)
    assert zeros / total == pytest.approx(published, abs=0.01)


@pytest.mark.parametrize("build", [vgg16, resnet18, conv6fc2, conv2fc2, small_cnn, mlp])
@pytest.mark.parametrize(("channels", "image_size"), [(1, (32, 32)), (3, (34, 45))])
def test_any_channels_and_sizes(build, channels, image_size):
    small = (
        {}
        if build is mlp
        else {"widths": (4,) * {vgg16: 5, resnet18: 4, conv2fc2: 2}.get(build, 6)}
    )
    hidden = {} if build is resnet18 else {"hidden": (7, 6)}
    model = build(5, channels=channels, image_size=image_size, **small, **hidden)
    x = torch.randn(3, channels, *image_size)
    y = model(x)
    assert y.shape == (3, 5)
    assert torch.isfinite(y).all()
    y.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_widths_and_blocks():
    thin = vgg16(widths=(4, 8), blocks=(1, 2), hidden=())
    assert [m.out_channels for m in thin.modules() if isinstance(m, nn.Conv2d)] == [4, 8, 8]
    assert thin(CIFAR.expand(2, -1, -1, -1)).shape == (2, 10)
    each = vgg16(widths=range(3, 16), hidden=(20,))
    assert [m.out_channels for m in each.modules() if isinstance(m, nn.Conv2d)] == [*range(3, 16)]
    deep = resnet18(widths=(4, 8), blocks=(3, 1))
    assert sum(isinstance(m, nn.Conv2d) for m in deep.modules()) == 1 + 8 + 1
    assert mlp(hidden=()).layers[0].in_features == 784


def test_small_cnn_has_a_wide_hidden_layer_for_digits():
    model = small_cnn()
    assert tuple(model.classifier[0].weight.shape) == (512, 512)
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert small_cnn(channels=3, image_size=(32, 32))(CIFAR).shape == (1, 10)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (vgg16(), CIFAR),
        (resnet18(), CIFAR),
        (small_cnn(), torch.zeros(1, 1, 8, 8)),
        (mlp(), torch.zeros(1, 1, 28, 28)),
    ],
)
def test_every_relu_is_a_module_of_its_own(model, x):
    seen = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    ran = []
    for module in seen:
        assert not module.inplace
        module.register_forward_hook(lambda module, *_: ran.append(module))
    model.eval()(x)
    assert sorted(map(id, ran)) == sorted(map(id, seen))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: vgg16(image_size=(8, 8)), r"vgg16 halves the image 5 times.*\(8, 8\).*32 pixels"),
        (lambda: resnet18(image_size=(4, 4)), "resnet18 halves the image 3 times"),
        (lambda: vgg16(widths=(4, 5, 6)), r"has 3 values.*needs 5 \(one a stage\) or 13"),
        (lambda: resnet18(widths=(4, 5)), r"widths = \(4, 5\) and blocks = \(2, 2, 2, 2\)"),
        (lambda: conv6fc2(widths=(4,)), "must be six"),
        (lambda: conv2fc2(widths=(4,)), "must be two"),
        (lambda: vgg16(pool="mxa"), "unknown pooling 'mxa'.*Did you mean 'max'"),
        (lambda: mlp(hidden=(3, 0)), r"mlp: hidden = \(3, 0\) must be 1 or larger"),
        (lambda: small_cnn(0), "small_cnn: classes = 0"),
    ],
)
def test_impossible_sizes(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def test_vgg_drops_activations_in_training_only():
    sizes = {"widths": [4], "blocks": [1], "hidden": [64, 64], "image_size": (4, 4)}
    plain, dropping = vgg16(**sizes), vgg16(**sizes, dropout=0.5)
    assert sum(isinstance(m, nn.Dropout) for m in dropping.modules()) == 2
    assert not any(isinstance(m, nn.Dropout) for m in plain.modules())
    x = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    dropping.train()
    torch.manual_seed(0)
    assert not torch.equal(dropping(x), dropping(x))
    dropping.eval()
    assert torch.equal(dropping(x), dropping(x))


def test_vgg_refuses_an_impossible_dropout():
    with pytest.raises(ConfigError, match=r"vgg16: dropout = 1.0 must be at least 0 and below 1"):
        vgg16(dropout=1.0)


def test_mobilenet_v2_form_and_published_cost():
    large = mobilenet_v2(1000, image_size=(224, 224))
    counts = macs(large, torch.zeros(1, 3, 224, 224))
    assert sum(counts.values()) == 300_774_272  # "300 M", Sandler et al. 2018, table 3
    convolutions = [m for m in large.modules() if isinstance(m, nn.Conv2d)]
    assert sum(c.groups > 1 for c in convolutions) == 17
    assert len(convolutions) == 52
    small = mobilenet_v2(10)
    assert small.features[0].stride == (1, 1)
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


def test_mobilenet_v2_says_which_sizes_it_needs():
    with pytest.raises(ConfigError, match=r"widths = \(8, 8\) has 2 values.*needs 3"):
        mobilenet_v2(widths=(8, 8), blocks=(1,))
    with pytest.raises(ConfigError, match="halves the image"):
        mobilenet_v2(image_size=(8, 8))
