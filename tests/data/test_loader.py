import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.data import Augmenter, Batches, Normalisation, TensorImages
from topospike.data.hub import open_source
from topospike.errors import ConfigError
from topospike.recipe import DataSettings

PLAIN = Normalisation((0.0,), (1.0,))


def numbered(count: int) -> TensorImages:
    """Image i is filled with the grey level i and has class i."""
    pixels = torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)
    return TensorImages(pixels.contiguous(), np.arange(count))


def batches(count: int = 50, *, augment=(), **options) -> Batches:
    augmenter = Augmenter(augment, image_size=(4, 4), normalisation=PLAIN)
    return Batches(numbered(count), augmenter, **{"batch_size": 8, **options})


def content(source: Batches) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return [(x.clone(), y.clone()) for x, y in source]


def same(a, b) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x1, x2) and torch.equal(y1, y2) for (x1, y1), (x2, y2) in zip(a, b, strict=True)
    )


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.integers(0, 5))
@settings(deadline=None, derandomize=True, max_examples=40)
def test_every_image_once_with_its_label(count, size, shuffle, epoch):
    source = batches(count, batch_size=size, shuffle=shuffle)
    source.set_epoch(epoch)
    given = content(source)
    assert len(given) == len(source)
    assert source.images == count
    labels = torch.cat([y for _, y in given])
    assert sorted(labels.tolist()) == list(range(count))
    for x, y in given:
        assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
        if shuffle and count > 1 and size > 1:
            assert len(y) > 1


def test_kinds_and_order_without_shuffling():
    source = batches(20)
    x, y = next(iter(source))
    assert (x.dtype, y.dtype) == (torch.float32, torch.int64)
    assert x.shape == (8, 1, 4, 4)
    assert torch.cat([y for _, y in source]).tolist() == list(range(20))
    before = content(source)
    source.set_epoch(3)
    assert same(before, content(source))


def test_same_seed_and_epoch_same_batches():
    options = {"augment": ("crop:1", "flip", "shift"), "shuffle": True}
    first, second = batches(seed=7, **options), batches(seed=7, **options)
    for epoch in (0, 3):
        first.set_epoch(epoch)
        second.set_epoch(epoch)
        assert same(content(first), content(second))
        assert same(content(first), content(first))


def test_a_later_epoch_does_not_need_the_earlier_ones():
    options = {"augment": ("crop:1",), "shuffle": True, "seed": 1}
    walked, jumped = batches(**options), batches(**options)
    for epoch in range(3):
        walked.set_epoch(epoch)
        last = content(walked)
    jumped.set_epoch(2)
    assert same(last, content(jumped))


def test_other_epoch_or_seed_other_order_and_augmentation():
    source = batches(augment=("crop:1",), shuffle=True, seed=1)
    first = content(source)
    source.set_epoch(1)
    second = content(source)
    assert not torch.equal(first[0][1], second[0][1])
    other = batches(augment=("crop:1",), shuffle=True, seed=2)
    assert not torch.equal(first[0][1], other._order(0)[0])
    # the same image is cropped differently in the next epoch
    by_label = [
        {int(label): image for x, y in epoch for label, image in zip(y, x, strict=True)}
        for epoch in (first, second)
    ]
    assert any(not torch.equal(by_label[0][i], by_label[1][i]) for i in range(50))


def test_global_generator_neither_moves_nor_matters():
    source = batches(augment=("crop:1", "flip", "cutout"), shuffle=True)
    before = torch.get_rng_state()
    first = content(source)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert same(first, content(source))


def test_decoding_on_demand_gives_the_same_batches_and_leaves_the_generator(parquet_folder):
    train = open_source(DataSettings(source=str(parquet_folder()))).train
    normalisation = Normalisation((0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    augmenter = Augmenter(("crop:2", "flip"), image_size=(8, 8), normalisation=normalisation)
    options = {"batch_size": 5, "seed": 4, "shuffle": True}
    encoded, decoded = (
        Batches(train, augmenter, **options),
        Batches(train.decoded(), augmenter, **options),
    )
    before = torch.get_rng_state()
    for epoch in (0, 1):
        encoded.set_epoch(epoch)
        decoded.set_epoch(epoch)
        assert same(content(encoded), content(decoded))
    assert torch.equal(before, torch.get_rng_state())


def test_left_over_image_joins_the_batch_before():
    assert [len(y) for _, y in batches(17, shuffle=True)] == [8, 9]
    assert [len(y) for _, y in batches(17)] == [8, 8, 1]
    assert [len(y) for _, y in batches(1, shuffle=True)] == [1]


def test_no_images_no_batches():
    empty = batches(3)._source.take(np.array([], dtype=np.int64))
    augmenter = Augmenter((), image_size=(4, 4), normalisation=PLAIN)
    source = Batches(empty, augmenter, batch_size=4)
    assert (len(source), source.images, list(source)) == (0, 0, [])


def test_impossible_options():
    with pytest.raises(ConfigError, match="batch of 0 images"):
        batches(batch_size=0)
    with pytest.raises(ConfigError, match="epoch -1"):
        batches().set_epoch(-1)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_passes_that_are_under_way_at_once_do_not_disturb_each_other(parquet_folder, workers):
    """Two passes over one set of pictures, a third begun and left: as each would be alone."""
    train = open_source(DataSettings(source=str(parquet_folder()))).train
    plain = Augmenter((), image_size=(8, 8), normalisation=Normalisation((0.0,) * 3, (1.0,) * 3))
    shuffled = Batches(train, plain, batch_size=5, shuffle=True, seed=4, workers=workers)
    ordered = Batches(train, plain, batch_size=4, workers=workers)
    alone = content(shuffled), content(ordered)
    for _ in range(2):
        together = []
        for number, batch in enumerate(shuffled):
            together.append(batch)
            if number == 1:
                next(iter(ordered))
            if number == 2:
                assert same(content(ordered), alone[1])
                assert same(content(shuffled), alone[0])
        assert same(together, alone[0])


def flips_of(batches: Batches, epoch: int) -> dict[int, bool]:
    """Say of every image, known by its label, whether its left column came out on the right."""
    batches.set_epoch(epoch)
    return {
        int(y): bool(x[0, 0, 0] > x[0, 0, -1])
        for xs, ys in batches
        for x, y in zip(xs, ys, strict=True)
    }


def striped(count: int) -> TensorImages:
    """Images that grow brighter from left to right."""
    pixels = torch.arange(4, dtype=torch.uint8).expand(count, 1, 4, 4)
    return TensorImages(pixels.contiguous(), np.arange(count))


@given(st.integers(2, 60), st.integers(0, 5), st.integers(0, 3))
@settings(max_examples=15, deadline=None)
def test_alternating_flips_show_both_sides_in_two_epochs(count, epoch, seed):
    augmenter = Augmenter(("alternating_flip",), image_size=(4, 4), normalisation=PLAIN)
    batches = Batches(striped(count), augmenter, batch_size=7, seed=seed, shuffle=True)
    first, second, third = (flips_of(batches, epoch + later) for later in range(3))
    assert all(first[image] != second[image] for image in range(count))
    assert first == third
    # another loader, as after a restart, needs no earlier epoch to know the sides
    again = Batches(striped(count), augmenter, batch_size=7, seed=seed, shuffle=True)
    assert flips_of(again, epoch + 1) == second


def test_alternating_flips_start_from_both_sides_and_follow_the_seed():
    augmenter = Augmenter(("alternating_flip",), image_size=(4, 4), normalisation=PLAIN)
    given = [
        flips_of(Batches(striped(400), augmenter, batch_size=64, seed=s, shuffle=True), 0)
        for s in (0, 1)
    ]
    assert all(150 < sum(flips.values()) < 250 for flips in given)
    assert given[0] != given[1]
    plain = Batches(striped(9), augmenter, batch_size=4)
    assert not any(flips_of(plain, 1).values())
