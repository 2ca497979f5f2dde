import numpy as np
import torch
from sklearn.datasets import load_digits

from topospike.data import digits


def test_every_scan_is_used_once_and_exactly():
    train, test = digits()
    scans = load_digits()
    ours = torch.cat([train.pixels, test.pixels]).flatten(1).numpy()
    labels = np.concatenate([train.labels, test.labels])
    rows = sorted(zip(map(bytes, ours), labels, strict=True))
    theirs = scans.data.astype(np.uint8)
    assert rows == sorted(zip(map(bytes, theirs), scans.target, strict=True))


def test_split_is_fixed_and_stratified():
    first, second = digits(), digits()
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.pixels, b.pixels)
    counts = np.bincount(first[1].labels)
    assert counts.sum() == 360
    assert counts.min() >= 34
    assert counts.max() <= 37


def test_grey_levels():
    train, test = digits()
    assert train.scale == test.scale == 16.0
    assert int(train.pixels.max()) == 16
