import random

import numpy as np
import pytest
import torch

from topospike.data.augment import AUGMENTATIONS, Augmenter, centre_crop, parsed
from topospike.data.normalisation import Normalisation
from topospike.errors import ConfigError

PLAIN = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
# alternating_flip follows the epoch, not a draw; it has tests of its own with the loader.
DRAWN = sorted(set(AUGMENTATIONS) - {"alternating_flip"})
SHIFTED = Normalisation((0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def batch(count: int = 6, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1


def augmenter(*entries: str, normalisation: Normalisation = PLAIN, size: int = 16) -> Augmenter:
    return Augmenter(entries, image_size=(size, size), normalisation=normalisation)


@pytest.mark.parametrize("name", DRAWN)
def test_each_changes_images_keeps_the_form_and_follows_the_seed(name):
    augment, x = augmenter(name), batch()
    y = augment(x, seed=1)
    assert y.shape == x.shape
    assert y.dtype == torch.float32
    assert torch.isfinite(y).all()
    assert not torch.equal(y, x)
    assert torch.equal(y, augment(x, seed=1))
    assert not torch.equal(y, augment(x, seed=2))


@pytest.mark.parametrize("name", sorted(AUGMENTATIONS))
def test_no_global_generator_moves_or_matters(name):
    augment, x = augmenter(name), batch()
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = augment(x, seed=1)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert np.array_equal(np.random.get_state()[1], before[2])  # noqa: NPY002
    torch.manual_seed(12345)
    assert torch.equal(first, augment(x, seed=1))


def test_without_a_seed_only_normalises():
    x = batch()
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (SHIFTED.mean, SHIFTED.std))
    expected = (x - mean) / std
    given = x.clone()
    assert torch.equal(augmenter("crop", "cutout", normalisation=SHIFTED)(given), expected)
    assert torch.equal(given, x)


def test_crop_is_a_window_of_the_padded_image():
    x = batch(40)
    padded = torch.nn.functional.pad(x, (4, 4, 4, 4))
    y = augmenter("crop")(x, seed=0)
    places = set()
    for i in range(40):
        matches = [
            (r, c)
            for r in range(9)
            for c in range(9)
            if torch.equal(padded[i, :, r : r + 16, c : c + 16], y[i])
        ]
        assert len(matches) == 1
        places.update(matches)
    assert len(places) > 15


def test_flip_mirrors_about_half():
    x = batch(200)
    y = augmenter("flip")(x, seed=0)
    flipped = [torch.equal(y[i], x[i].flip(-1)) for i in range(200)]
    same = [torch.equal(y[i], x[i]) for i in range(200)]
    assert all(a != b for a, b in zip(flipped, same, strict=True))
    assert 70 < sum(flipped) < 130
    assert torch.equal(augmenter("flip:1")(x, seed=0), x.flip(-1))


def test_cutout_leaves_a_square_of_the_mean_colour():
    x = batch(20)
    y = augmenter("cutout", normalisation=SHIFTED)(x, seed=0)
    kept = augmenter(normalisation=SHIFTED)(x)
    hole = (y == 0).all(dim=1)
    assert torch.equal(hole.sum(dim=(1, 2)), torch.full((20,), 64))
    for i in range(20):
        rows, columns = hole[i].any(dim=1).nonzero(), hole[i].any(dim=0).nonzero()
        assert len(rows) == len(columns) == 8
    outside = ~hole.unsqueeze(1).expand_as(y)
    assert torch.equal(y[outside], kept[outside])


def test_crop_fills_with_black_before_normalising():
    y = augmenter("crop", normalisation=SHIFTED)(batch(50), seed=0)
    black = -torch.tensor(SHIFTED.mean) / torch.tensor(SHIFTED.std)
    assert torch.allclose(y.amin(dim=(0, 2, 3)), black)


def test_larger_frames_are_cut_to_their_middle_or_by_the_crop():
    x = batch(4, size=20)
    assert torch.equal(augmenter()(x), x[:, :, 2:18, 2:18])
    assert torch.equal(augmenter("flip:1")(x, seed=0), x[:, :, 2:18, 2:18].flip(-1))
    assert augmenter("resized_crop")(x, seed=0).shape == (4, 3, 16, 16)
    assert centre_crop(x, (19, 18)).shape == (4, 3, 19, 18)


def test_unknown_name_suggests():
    with pytest.raises(ConfigError, match=r"unknown augmentation 'cutuot'.*Did you mean 'cutout'"):
        augmenter("cutuot")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("crop:x", r"'x' is not a number in \[1, 64\]; write for example 'crop:4'"),
        ("flip:1.5", r"'1\.5' is not a number in \[0, 1\]; write for example 'flip:0\.5'"),
        ("shift:-1", r"'-1' is not a number in \[0, 0\.5\]"),
        ("crop:nan", r"'nan' is not a number"),
    ],
)
def test_impossible_strength(entry, message):
    with pytest.raises(ConfigError, match=message):
        parsed(entry, AUGMENTATIONS)
