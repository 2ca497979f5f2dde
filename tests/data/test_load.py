import os
from dataclasses import replace

import pytest
import torch

from topospike.data import load_data
from topospike.errors import ConfigError
from topospike.recipe import DataSettings

WITH_DATA = pytest.mark.skipif(
    "TOPOSPIKE_DATA" not in os.environ,
    reason="TOPOSPIKE_DATA is not set; it names the folder that holds cifar10 and fashion_mnist",
)


def rows(batches) -> list[bytes]:
    return [image.numpy().tobytes() for x, _ in batches for image in x]


def test_digits_by_default():
    data = load_data(DataSettings(), seed=0)
    assert (data.name, data.classes, data.channels, data.image_size) == ("digits", 10, 1, (8, 8))
    assert data.label_names == tuple("0123456789")
    x = torch.cat([x for x, _ in data.train])
    assert x.shape == (1293, 1, 8, 8)
    assert torch.isfinite(x).all()
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std()) - 1) < 1e-3
    counts = torch.cat([y for _, y in data.validation]).bincount()
    assert counts.min() >= 13
    assert counts.max() <= 16


def test_parts_are_disjoint(parquet_folder):
    data = load_data(
        DataSettings(source=str(parquet_folder(train=60)), validation_fraction=0.25), seed=5
    )
    train, validation, test = (set(rows(b)) for b in (data.train, data.validation, data.test))
    assert (len(train), len(validation), len(test)) == (45, 15, 9)
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_seed_moves_the_cut_but_not_the_test_split(parquet_folder):
    settings = DataSettings(source=str(parquet_folder(train=60)), mean=(0.5,) * 3, std=(0.5,) * 3)
    first, again, other = (load_data(settings, seed=seed) for seed in (0, 0, 1))
    assert rows(first.validation) == rows(again.validation)
    assert set(rows(first.validation)) != set(rows(other.validation))
    assert rows(first.test) == rows(other.test)


def test_pixels_are_exact(parquet_folder, written_pictures):
    folder = parquet_folder()
    data = load_data(DataSettings(source=str(folder), mean=(0.0,) * 3, std=(1.0,) * 3), seed=0)
    x = torch.cat([x for x, _ in data.test])
    written = torch.from_numpy(written_pictures(9, seed=1)).permute(0, 3, 1, 2)
    assert torch.equal(x, written.float() / 255)


def test_both_paths_give_the_same_batches(parquet_folder):
    settings = DataSettings(
        source=str(parquet_folder()), augment=("crop:2", "flip"), batch_size=7, eval_batch_size=4
    )
    memory, demand = (load_data(settings, seed=3, in_memory_bytes=n) for n in (10**6, 100))
    assert (memory.in_memory, demand.in_memory) == (True, False)
    assert (memory.mean, memory.std) == (demand.mean, demand.std)
    for name in ("train", "validation", "test"):
        one, other = getattr(memory, name), getattr(demand, name)
        one.set_epoch(2)
        other.set_epoch(2)
        assert rows(one) == rows(other)


def test_limits_are_stratified_and_apply_before_decoding(parquet_folder):
    folder = parquet_folder(train=60, test=30)
    settings = DataSettings(
        source=str(folder), limit_train=30, limit_test=6, validation_fraction=0.2
    )
    data = load_data(settings, seed=0)
    assert (data.train.images, data.validation.images, data.test.images) == (24, 6, 6)
    assert data.test.labels.bincount().tolist() == [2, 2, 2]
    assert data.train.labels.bincount().tolist() == [8, 8, 8]


def test_only_training_images_are_measured(parquet_folder):
    settings = DataSettings(source=str(parquet_folder(train=60)), validation_fraction=0.5)
    data = load_data(settings, seed=0)
    x = torch.cat([x for x, _ in data.train])
    assert torch.allclose(x.mean(dim=(0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(x.std(dim=(0, 2, 3)), torch.ones(3), atol=1e-3)
    half = load_data(replace(settings, mean=(0.5, 0.5, 0.5)), seed=0)
    assert half.mean == (0.5, 0.5, 0.5)
    assert half.std == data.std


def test_known_constants_and_no_validation(parquet_folder):
    data = load_data(
        DataSettings(source=str(parquet_folder("cifar10")), validation_fraction=0.0), seed=0
    )
    assert data.mean == (0.4914, 0.4822, 0.4465)
    assert (data.name, data.validation.images, list(data.validation)) == ("cifar10", 0, [])


def test_image_folder_of_another_size(image_folder):
    folder = image_folder(size=(20, 30))
    settings = DataSettings(
        source=str(folder), image_size=(14, 14), augment=("resized_crop", "flip"), channels=1
    )
    data = load_data(settings, seed=0)
    assert (data.channels, data.image_size) == (1, (14, 14))
    for batches in (data.train, data.validation, data.test):
        assert next(iter(batches))[0].shape[1:] == (1, 14, 14)


def test_digits_take_no_column_names():
    with pytest.raises(ConfigError, match=r"data\.image_column = 'img' has no meaning"):
        load_data(DataSettings(image_column="img"), seed=0)


def test_wrong_number_of_constants():
    with pytest.raises(ConfigError, match="3 values; the images have 1 channels"):
        load_data(DataSettings(mean=(0.5, 0.5, 0.5)), seed=0)


@pytest.mark.parametrize("in_memory_bytes", [None, 0])
def test_calibration_is_the_training_images_themselves(parquet_folder, in_memory_bytes):
    settings = DataSettings(source=str(parquet_folder()))
    data = load_data(settings, seed=0, in_memory_bytes=in_memory_bytes, device="meta")
    assert data.calibration._source is data.train._source or (
        data.calibration._source.pixels is data.train._source.pixels
    )


@pytest.mark.parametrize(
    "change",
    [
        {"augment": ("crop:2",)},
        {"mix": ("mixup",)},
        {"mean": (0.9,)},
        {"batch_size": 64},
        {"limit_train": 700},
        {"validation_fraction": 0.2},
    ],
)
def test_data_that_train_differently_have_another_identity(change):
    base = load_data(DataSettings(), seed=0).identity
    assert load_data(DataSettings(**change), seed=0).identity != base
    assert load_data(DataSettings(), seed=1).identity != base


def test_data_that_train_alike_have_the_same_identity(parquet_folder):
    settings = DataSettings(source=str(parquet_folder("here")))
    moved = replace(settings, source=str(parquet_folder("there")), workers=3, eval_batch_size=7)
    one, other = load_data(settings, seed=0), load_data(moved, seed=0, in_memory_bytes=0)
    assert one.identity == other.identity


@WITH_DATA
def test_cifar10():
    data = load_data(DataSettings(source="cifar10", limit_train=1000, limit_test=500), seed=0)
    assert (data.classes, data.channels, data.image_size) == (10, 3, (32, 32))
    assert data.label_names is not None
    assert data.label_names[3] == "cat"
    x, y = next(iter(data.test))
    assert torch.isfinite(x).all()
    assert float(x.mean().abs()) < 0.3
    assert data.test.labels.bincount().tolist() == [50] * 10
    assert y.max() <= 9


@WITH_DATA
def test_fashion_mnist():
    data = load_data(
        DataSettings(source="fashion_mnist", limit_train=600, limit_test=300, augment=("shift",)),
        seed=0,
    )
    assert (data.classes, data.channels, data.image_size) == (10, 1, (28, 28))
    assert (data.mean, data.std) == ((0.2860,), (0.3530,))
    x = torch.cat([x for x, _ in data.test])
    assert abs(float(x.mean())) < 0.15
    assert abs(float(x.std()) - 1) < 0.15
