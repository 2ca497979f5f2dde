import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.evolve import REMOVAL_CRITERIA, RemovalInput
from topospike.topology import best, draw, share_count


def score(criterion, weight, gradient=None):
    return REMOVAL_CRITERIA[criterion].score(RemovalInput("fc", weight, 1, gradient))


derandomised = settings(deadline=None, derandomize=True, max_examples=25)


@pytest.mark.parametrize("criterion", ["magnitude", "ri"])
def test_kept_links_equal_the_reference_exactly(oracle, criterion):
    stored = oracle("removal_40x30")
    mask = torch.from_numpy(stored["mask"]).bool()
    links = int(mask.sum())
    removed = share_count(links, float(stored["drop_fraction"]))
    assert (links, removed) == (int(stored["n_links"]), int(stored["n_removed"]))
    scores = score(criterion, torch.from_numpy(stored["weight"]))
    kept = best(scores, mask, links - removed)
    assert np.array_equal(kept.numpy(), stored[f"keep_mask_{criterion}"].astype(bool))


def test_mest_adds_a_hundredth_of_the_gradient():
    given = score("mest", torch.tensor([-2.0]), torch.tensor([-3.0]))
    assert given.item() == pytest.approx(2.03)


def test_mest_without_a_gradient_says_what_to_do():
    with pytest.raises(ConfigError, match=r"'fc' removes by .* none was recorded"):
        score("mest", torch.ones(2))


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
        draw(scores, mask, keep, exponent=3.0, generator=generator)
        if soft
        else best(scores, mask, keep)
    )
    assert int(kept.sum()) == min(keep, int(mask.sum()))
    assert not (kept & ~mask).any()
    if not soft and kept.any() and (mask & ~kept).any():
        assert scores[kept].min() >= scores[mask & ~kept].max()


def test_an_existing_link_of_weight_zero_is_not_confused_with_an_absent_one():
    mask = torch.tensor([False, True, False, True])
    kept = best(torch.zeros(4), mask, 1)
    assert kept.tolist() == [False, True, False, False]


def test_soft_removal_follows_the_exponent():
    scores = torch.tensor([1.0, 2.0])
    mask = torch.ones(2, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for exponent, share in ((1.0, 2 / 3), (3.0, 8 / 9)):
        kept = sum(
            int(draw(scores, mask, 1, exponent=exponent, generator=generator)[1])
            for _ in range(1500)
        )
        assert abs(kept / 1500 - share) < 5 * (share * (1 - share) / 1500) ** 0.5


def test_a_high_exponent_does_not_underflow():
    scores = torch.tensor([1e-6, 3e-6, 2e-6])
    mask = torch.ones(3, dtype=torch.bool)
    kept = draw(scores, mask, 1, exponent=60.0, generator=torch.Generator().manual_seed(0))
    assert kept.tolist() == [False, True, False]


def test_errors_name_what_was_given():
    with pytest.raises(ConfigError, match="Did you mean 'magnitude'"):
        REMOVAL_CRITERIA["magnitud"]
