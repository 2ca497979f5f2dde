"""Mixing two images and their labels: shares add up, parts agree, seeds decide."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.data.augment import MIXTURES, Mixer, cutmix, parsed
from topospike.errors import ConfigError


def batch(images=6, classes=3, size=(5, 7)):
    """Images whose every pixel is the number of the image."""
    x = torch.arange(images, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 2, *size)
    return x.clone(), torch.arange(images) % classes


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(0, 2**31), st.sampled_from(["mixup", "cutmix", "mixup:0.2"]))
def test_labels_say_how_much_of_each_image_there_is(seed, entry):
    x, y = batch(images=4, classes=4)
    mixed, labels = Mixer([entry], classes=4)(x, y, seed=seed)
    torch.testing.assert_close(labels.sum(1), torch.ones(4))
    # Image i has the value i everywhere, and class i: the mean of a mixed image is its label's.
    torch.testing.assert_close(mixed.mean((1, 2, 3)), labels @ torch.arange(4.0))


def test_the_box_of_cutmix_is_one_rectangle_of_the_partner():
    x, partner = torch.zeros(1, 1, 8, 6), torch.ones(1, 1, 8, 6)
    for seed in range(20):
        mixed, share = cutmix(x, partner, 0.6, np.random.default_rng(seed))
        rows, columns = mixed[0, 0].amax(1).nonzero(), mixed[0, 0].amax(0).nonzero()
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        assert mixed[0, 0, top : bottom + 1, left : right + 1].all()
        assert share == pytest.approx(1 - mixed.mean().item())


def test_the_seed_alone_decides():
    x, y = batch()
    mixer = Mixer(["mixup", "cutmix"], classes=3)
    torch.manual_seed(1)
    first = mixer(x, y, seed=5)
    torch.manual_seed(2)
    again, other = mixer(x, y, seed=5), mixer(x, y, seed=6)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])


def test_parts_of_a_batch_have_the_same_labels_and_their_own_images():
    x, y = batch(images=5)
    mixer = Mixer(["mixup"], classes=3)
    results = [
        mixer(part, y, seed=3, part=rank, parts=2) for rank, part in enumerate(x.tensor_split(2))
    ]
    assert torch.equal(results[0][1], results[1][1])
    images, labels = torch.cat([r[0] for r in results]), results[0][1]
    # Image i has class i mod 3; both parts keep within themselves.
    assert results[0][0].max() <= 2
    assert results[1][0].min() >= 3
    share = labels.amax(1).min()
    assert torch.isfinite(images).all()
    assert 0 < share <= 1


def test_a_part_with_nothing_to_do_mixes_nothing():
    x, y = batch(images=2)
    mixed, labels = Mixer(["mixup"], classes=3)(x[:1], y, seed=0, part=2, parts=3)
    assert torch.equal(mixed, x[:1])
    assert labels.shape == (2, 3)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("mixip", "unknown mixing 'mixip'. Known: cutmix, mixup. Did you mean 'mixup'?"),
        ("mixup:0", "'0' is not a number in [0.001, 100]; write for example 'mixup:0.8'"),
        ("cutmix:x", "'x' is not a number in [0.001, 100]"),
    ],
)
def test_impossible_entries(entry, message):
    with pytest.raises(ConfigError) as error:
        parsed(entry, MIXTURES)
    assert message in str(error.value)
