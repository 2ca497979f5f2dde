import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from topospike.evolve.removal import removal_count

from topospike.errors import ConfigError, ShapeError
from topospike.evolve import (
    REMOVAL_CRITERIA,
    keep_best,
    keep_drawn,
    mest_importance,
    relative_importance,
    removal_exponent,
)

derandomised = settings(deadline=None, derandomize=True, max_examples=25)


@pytest.mark.parametrize("criterion", ["magnitude", "ri"])
def test_kept_links_equal_the_reference_exactly(oracle, criterion):
    stored = oracle("removal_40x30")
    mask = torch.from_numpy(stored["mask"]).bool()
    links = int(mask.sum())
    removed = removal_count(links, float(stored["drop_fraction"]))
    assert (links, removed) == (int(stored["n_links"]), int(stored["n_removed"]))
    scores = REMOVAL_CRITERIA[criterion].score(torch.from_numpy(stored["weight"]), None)
    kept = keep_best(scores, mask, links - removed)
    assert np.array_equal(kept.numpy(), stored[f"keep_mask_{criterion}"].astype(bool))


def test_relative_importance_equals_the_reference_to_1e_6(oracle):
    stored = oracle("removal_40x30")
    ours = relative_importance(torch.from_numpy(stored["weight"])).numpy()
    assert np.abs(ours - stored["ri_score"]).max() <= 1e-6 * stored["ri_score"].max()


def test_relative_importance_of_a_kernel_is_that_of_its_im2col_matrix():
    weight = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = relative_importance(weight.flatten(1)).view(weight.shape)
    assert torch.equal(relative_importance(weight), expected)


def test_relative_importance_of_an_empty_layer_is_zero():
    assert not relative_importance(torch.zeros(3, 4)).any()


def test_mest_adds_a_hundredth_of_the_gradient():
    assert mest_importance(torch.tensor([-2.0]), torch.tensor([-3.0])).item() == pytest.approx(2.03)


def test_mest_without_a_gradient_says_what_to_do():
    with pytest.raises(ConfigError, match="no gradient was recorded"):
        REMOVAL_CRITERIA["mest"].score(torch.ones(2), None)


@derandomised
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    density=st.sampled_from([0.0, 0.3, 1.0]),
    keep=st.integers(0, 70),
    soft=st.booleans(),
)
def test_the_kept_are_an_exact_number_of_existing_links(seed, rows, columns, density, keep, soft):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=generator) < density
    # Quantised, so that ties and zero weights of existing links abound.
    scores = (torch.rand(rows, columns, generator=generator) * 3).floor()
    kept = (
        keep_drawn(scores, mask, keep, exponent=3.0, generator=generator)
        if soft
        else keep_best(scores, mask, keep)
    )
    assert int(kept.sum()) == min(keep, int(mask.sum()))
    assert not (kept & ~mask).any()
    if not soft and kept.any() and (mask & ~kept).any():
        assert scores[kept].min() >= scores[mask & ~kept].max()


def test_an_existing_link_of_weight_zero_is_not_confused_with_an_absent_one():
    mask = torch.tensor([False, True, False, True])
    kept = keep_best(torch.zeros(4), mask, 1)
    assert kept.tolist() == [False, True, False, False]


def test_soft_removal_follows_the_exponent():
    scores = torch.tensor([1.0, 2.0])
    mask = torch.ones(2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for exponent, share in ((1.0, 2 / 3), (3.0, 8 / 9)):
        kept = sum(
            int(keep_drawn(scores, mask, 1, exponent=exponent, generator=generator)[1])
            for _ in range(1500)
        )
        assert abs(kept / 1500 - share) < 5 * (share * (1 - share) / 1500) ** 0.5


def test_a_high_exponent_does_not_underflow():
    scores = torch.tensor([1e-6, 3e-6, 2e-6])
    mask = torch.ones(3, dtype=torch.bool)
    kept = keep_drawn(scores, mask, 1, exponent=60.0, generator=torch.Generator().manual_seed(0))
    assert kept.tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("schedule", "middle"), [("linear_exponent", 5.0), ("linear_delta", 0.7 / 0.3)]
)
def test_both_exponent_schedules_meet_at_the_ends_and_differ_between(schedule, middle):
    values = [removal_exponent(p, start=1, end=9, schedule=schedule) for p in (0, 0.5, 1)]
    assert values == pytest.approx([1.0, middle, 9.0])


def test_errors_name_what_was_given():
    with pytest.raises(ConfigError, match=r"'cosine'.*linear_delta, linear_exponent"):
        removal_exponent(0.5, schedule="cosine")
    with pytest.raises(ShapeError, match=r"\(3,\), the mask \(2,\)"):
        keep_best(torch.ones(3), torch.ones(2, dtype=torch.bool), 1)
    with pytest.raises(ConfigError, match="Did you mean 'magnitude'"):
        REMOVAL_CRITERIA["magnitud"]


@pytest.mark.parametrize(("links", "fraction", "count"), [(100, 0.29, 29), (7, 0.0, 0), (7, 1, 7)])
def test_the_removed_count_is_the_floor(links, fraction, count):
    assert removal_count(links, fraction) == count
