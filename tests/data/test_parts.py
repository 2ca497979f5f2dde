"""Batches of which each process decodes its own part, and mixed ones, from settings to tensors."""

import torch

from topospike.data import load_data
from topospike.recipe import DataSettings
from topospike.train.distributed import Processes


def settings_for(folder, **changes):
    return DataSettings(
        source=str(folder), batch_size=8, validation_fraction=0.1, mean=(0.5,) * 3, std=(0.5,) * 3,
        **changes,
    )  # fmt: skip


def test_parts_make_up_the_whole_batch(parquet_folder):
    settings = settings_for(parquet_folder())
    whole = load_data(settings, seed=0, in_memory_bytes=0)
    parts = [load_data(settings, seed=0, in_memory_bytes=0, part=(r, 3)) for r in range(3)]
    assert not whole.in_memory
    for data in (whole, *parts):
        data.train.set_epoch(1)
    for (x, y), *pieces in zip(whole.train, *(p.train for p in parts), strict=True):
        assert all(torch.equal(labels, y) for _, labels in pieces)
        shared = [Processes(rank, 3).share(*piece) for rank, piece in enumerate(pieces)]
        assert sum(counted for *_, counted in shared) == len(y)
        assert torch.equal(torch.cat([px[:counted] for px, _, counted in shared]), x)
        assert torch.equal(torch.cat([py[:counted] for _, py, counted in shared]), y)
    assert len(parts[0].test) == len(whole.test)


def test_images_in_memory_are_not_parted(parquet_folder):
    data = load_data(settings_for(parquet_folder()), seed=0, part=(1, 2))
    x, y = next(iter(data.train))
    assert data.in_memory
    assert len(x) == len(y) == 8


def test_mixed_training_batches_and_plain_evaluation(parquet_folder):
    settings = settings_for(parquet_folder(), mix=("mixup", "cutmix"))
    data = load_data(settings, seed=0)
    first = [(x, y) for x, y in data.train]
    again = [(x, y) for x, y in data.train]
    x, y = first[0]
    assert y.shape == (8, 3)
    torch.testing.assert_close(y.sum(1), torch.ones(8))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, again, strict=True))
    plain = next(iter(load_data(settings_for(parquet_folder("other")), seed=0).train))
    assert plain[1].dtype == torch.int64
    assert not torch.equal(plain[0], x)
    for batches in (data.validation, data.test, data.calibration):
        assert next(iter(batches))[1].dtype == torch.int64
