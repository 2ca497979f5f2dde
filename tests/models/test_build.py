import pytest
import torch

from topospike.errors import ConfigError
from topospike.models import MODELS, build_model
from topospike.recipe import ModelSettings

CIFAR = {"classes": 7, "channels": 3, "image_size": (32, 32)}
SMALL = {
    "vgg16": ModelSettings("vgg16", widths=(4, 4, 4, 4, 4), hidden=(8,)),
    "resnet18": ModelSettings("resnet18", widths=(4, 4, 4, 4)),
    "conv6fc2": ModelSettings("conv6fc2", widths=(4,) * 6, hidden=(8,)),
    "conv2fc2": ModelSettings("conv2fc2", widths=(4, 4), hidden=(8,)),
    "fast_cnn": ModelSettings("fast_cnn", widths=(4, 4), blocks=(1, 1), hidden=(8,)),
    "gpt": ModelSettings("gpt", widths=(16,), blocks=(1,), hidden=(24,), heads=2),
    "llama": ModelSettings("llama", widths=(16,), blocks=(1,), hidden=(24,), heads=2),
    "mlp": ModelSettings("mlp", hidden=(8,)),
    "mobilenet-v2": ModelSettings("mobilenet-v2", widths=(4, 4, 6, 8), blocks=(1, 1)),
    "small_cnn": ModelSettings("small_cnn", widths=(4, 4), hidden=(8,), pool="max"),
    "vit": ModelSettings("vit", widths=(16,), blocks=(1,), hidden=(32,), heads=2, patch=8),
}


TEXT = {"classes": 7, "channels": 0, "image_size": (0, 0), "context": 6}
OF_TEXT = {"gpt", "llama"}


def data_of(name):
    return TEXT if name in OF_TEXT else CIFAR


@pytest.mark.parametrize("name", sorted({*MODELS} - OF_TEXT))
def test_built_for_the_data_and_finite(name):
    model = build_model(SMALL[name], **CIFAR, seed=0)
    assert model.training
    y = model(torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    assert y.shape == (4, 7)
    assert torch.isfinite(y).all()


@pytest.mark.parametrize("name", sorted(MODELS))
def test_same_seed_same_weights(name):
    first, again, other = (
        build_model(SMALL[name], **data_of(name), seed=seed) for seed in (0, 0, 1)
    )
    pairs = list(zip(first.parameters(), again.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in pairs)
    pairs = list(zip(first.parameters(), other.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_a_seed_leaves_the_global_generator():
    before = torch.get_rng_state()
    seeded = build_model(SMALL["mlp"], **CIFAR, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(3)
    plain = build_model(SMALL["mlp"], **CIFAR)
    assert not torch.equal(before, torch.get_rng_state())
    assert torch.equal(seeded.layers[0].weight, plain.layers[0].weight)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [("gpt", CIFAR, "reads text, and the data are images"), ("mlp", TEXT, "reads images, and")],
)
def test_networks_and_data_of_another_kind(name, data, message):
    with pytest.raises(ConfigError, match=message):
        build_model(SMALL[name], **data)


def test_unknown_model_suggests():
    with pytest.raises(ConfigError, match=r"unknown model 'resnet-18'.*Did you mean 'resnet18'\?"):
        build_model(ModelSettings("resnet-18"), **CIFAR)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelSettings("mlp", widths=(3,)), r"model\.widths = \(3,\): 'mlp' .* it takes hidden"),
        (ModelSettings("resnet18", hidden=(3,)), "it takes blocks, widths"),
        (ModelSettings("conv6fc2", blocks=(3,)), "it takes hidden, pool, widths"),
    ],
)
def test_options_a_network_does_not_have(settings, message):
    with pytest.raises(ConfigError, match=message):
        build_model(settings, **CIFAR)


def test_small_cnn_learns_digits():
    """More than 98 % on the test digits after 15 epochs, without augmentation."""
    from topospike.data import load_data
    from topospike.recipe import DataSettings

    data = load_data(DataSettings(batch_size=64), seed=0)
    model = build_model(ModelSettings(), classes=10, channels=1, image_size=(8, 8), seed=0)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 15 * len(data.train))
    for epoch in range(15):
        data.train.set_epoch(epoch)
        for x, y in data.train:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        right = sum(int((model(x).argmax(1) == y).sum()) for x, y in data.test)
    assert right / data.test.images > 0.98
