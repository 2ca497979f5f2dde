import pytest
import torch

from topospike.data.normalisation import (
    CIFAR10,
    CIFAR100,
    IMAGENET,
    checked_normalisation,
    known_normalisation,
    measure_normalisation,
)
from topospike.errors import ConfigError


@pytest.mark.parametrize(
    ("name", "channels", "constants"),
    [
        ("cifar10", 3, CIFAR10),
        ("uoft-cs/cifar10", 3, CIFAR10),
        ("/some/where/CIFAR-100/", 3, CIFAR100),
        ("ILSVRC/imagenet-1k", 3, IMAGENET),
    ],
)
def test_constants_by_name(name, channels, constants):
    assert known_normalisation(name, channels) is constants


def test_published_values():
    assert known_normalisation("ylecun/mnist", 1).mean == (0.1307,)
    assert known_normalisation("fashion_mnist", 1).std == (0.3530,)
    assert CIFAR100.mean[0] == pytest.approx(0.50706, abs=1e-5)
    assert CIFAR100.std[2] == pytest.approx(0.27608, abs=1e-5)


def test_no_constants_for_other_names_or_channels():
    assert known_normalisation("cifar10", 1) is None
    assert known_normalisation("cifar10-c", 3) is None


def test_measured_equals_torch_and_ignores_the_cutting():
    pixels = torch.randint(0, 256, (37, 3, 5, 7), dtype=torch.uint8)
    whole = measure_normalisation([pixels], scale=255.0)
    assert whole == measure_normalisation(pixels.split(10), scale=255.0)
    wide = pixels.double() / 255
    assert torch.allclose(torch.tensor(whole.mean).double(), wide.mean(dim=(0, 2, 3)), atol=1e-7)
    spread = wide.std(dim=(0, 2, 3), correction=0)
    assert torch.allclose(torch.tensor(whole.std).double(), spread, atol=1e-7)


def test_hand_computed_measure():
    pixels = torch.tensor([[[[0, 16], [0, 16]]]], dtype=torch.uint8)
    assert measure_normalisation([pixels], scale=16.0).mean == (0.5,)
    assert measure_normalisation([pixels], scale=16.0).std == (0.5,)


def test_constant_channel_is_named():
    pixels = torch.randint(0, 256, (4, 2, 3, 3), dtype=torch.uint8)
    pixels[:, 1] = 7
    with pytest.raises(ConfigError, match=r"channel 1 has the same value.*data\.std"):
        measure_normalisation([pixels], scale=255.0)


def test_own_constants_are_checked():
    with pytest.raises(ConfigError, match="has 1 values; the images have 3 channels"):
        checked_normalisation((0.5,), (0.5,), channels=3)
