import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.data.splits import (
    class_shares,
    limited_rows,
    stratified_choice,
    train_validation_rows,
)
from topospike.errors import ConfigError

LABELS = st.lists(st.integers(0, 6), min_size=2, max_size=200).map(np.array)


@given(st.lists(st.integers(0, 50), min_size=1, max_size=9), st.floats(0, 1))
@settings(deadline=None, derandomize=True, max_examples=50)
def test_shares_are_exact_and_within_one_of_proportional(counts, part):
    counts = np.array(counts)
    total = round(part * counts.sum())
    shares = class_shares(counts, total)
    assert shares.sum() == total
    assert np.all((shares >= 0) & (shares <= counts))
    assert np.all(np.abs(shares - counts * total / max(counts.sum(), 1)) < 1)


@given(LABELS, st.floats(0, 1), st.integers(0, 2**40))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_choice_is_a_partition(labels, part, seed):
    total = round(part * len(labels))
    chosen, rest = stratified_choice(labels, total, seed=seed)
    assert len(chosen) == total
    assert sorted([*chosen, *rest]) == list(range(len(labels)))


@given(LABELS, st.floats(0, 0.5), st.integers(0, 100), st.integers(2, 250))
@settings(deadline=None, derandomize=True, max_examples=25)
def test_validation_never_overlaps_training(labels, fraction, seed, limit):
    train, validation = train_validation_rows(labels, fraction, seed=seed, limit=limit)
    assert not set(train) & set(validation)
    used = min(limit, len(labels))
    assert len(train) + len(validation) == used
    wanted = round(fraction * used)
    assert len(validation) == (max(1, wanted) if fraction > 0 else 0)


def test_classes_keep_their_proportions():
    labels = np.repeat([0, 1, 2], [500, 300, 200])
    train, validation = train_validation_rows(labels, 0.1, seed=0)
    assert np.bincount(labels[validation]).tolist() == [50, 30, 20]
    assert np.bincount(labels[train]).tolist() == [450, 270, 180]


def test_same_seed_same_rows_other_seed_other_rows():
    labels = np.arange(1000) % 10
    first = train_validation_rows(labels, 0.2, seed=1)[1]
    assert np.array_equal(first, train_validation_rows(labels, 0.2, seed=1)[1])
    assert not np.array_equal(first, train_validation_rows(labels, 0.2, seed=2)[1])


def test_a_subset_is_stratified_and_the_global_generator_untouched():
    labels = np.arange(1000) % 10
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    rows = limited_rows(labels, 50, seed=3)
    assert np.bincount(labels[rows]).tolist() == [5] * 10
    assert np.array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert len(limited_rows(labels, 5000, seed=3)) == 1000


def test_fraction_that_leaves_nothing():
    with pytest.raises(ConfigError, match=r"0\.9 of 3 images leaves none"):
        train_validation_rows(np.zeros(3, np.int64), 0.9, seed=0)


def test_impossible_limits():
    with pytest.raises(ConfigError, match="cannot choose 4 of 3"):
        stratified_choice(np.zeros(3, np.int64), 4, seed=0)
