import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.topology import ranking
from topospike.topology.ranking import best, draw, kth_largest

derandomised = settings(deadline=None, derandomize=True, max_examples=25)


def everyone(scores):
    return torch.ones(scores.shape, dtype=torch.bool)


@derandomised
@given(
    values=st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=30),
    k=st.integers(0, 31),
)
def test_best_takes_exactly_k_of_the_largest_and_of_ties_the_first(values, k):
    scores = torch.tensor([value for value, _ in values], dtype=torch.float32)
    candidates = torch.tensor([taking_part for _, taking_part in values])
    order = sorted(
        (i for i in range(len(values)) if candidates[i]), key=lambda i: (-values[i][0], i)
    )
    chosen = best(scores, candidates, k)
    assert chosen.nonzero().squeeze(1).tolist() == sorted(order[:k])


@derandomised
@given(values=st.lists(st.integers(0, 2), min_size=1, max_size=30), k=st.integers(1, 30))
def test_random_ties_change_who_is_taken_but_not_which_scores(values, k):
    scores = torch.tensor(values, dtype=torch.float32)
    taken = best(scores, everyone(scores), k, generator=torch.Generator().manual_seed(1))
    assert int(taken.sum()) == min(k, len(values))
    assert sorted(scores[taken]) == sorted(scores[best(scores, everyone(scores), k)])


def test_random_ties_are_uniform():
    generator = torch.Generator().manual_seed(0)
    scores = torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    counts = torch.zeros(6)
    for _ in range(1200):
        counts += best(scores, everyone(scores), 3, generator=generator)
    assert counts[0] == 1200
    # Each of five tied places is taken with probability 2/5: 480 +- 5 standard deviations of 17.
    assert bool(((counts[1:] - 480).abs() < 85).all())


@pytest.mark.parametrize("values", ["normal", "ties", "sorted", "mostly absent", "one outlier"])
def test_narrowing_finds_the_same_rank_as_sorting(monkeypatch, values):
    monkeypatch.setattr(ranking, "SAMPLE", 64)
    numbers = torch.randn(5000, generator=torch.Generator().manual_seed(4))
    if values == "ties":
        numbers = numbers.round()
    elif values == "sorted":
        numbers = numbers.sort().values
    elif values == "mostly absent":
        numbers[torch.arange(5000) % 7 > 0] = -torch.inf
    elif values == "one outlier":
        numbers[:-1] = 0
    descending = numbers.sort(descending=True).values
    for k in (1, 2, 40, 700, 2500, 4999, 5000):
        assert kth_largest(numbers, k) == descending[k - 1]


def test_draw_fills_up_with_weight_zero_only_when_needed():
    weights = torch.tensor([0.0, 1.0, 0.0, 7.0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert draw(weights, everyone(weights), 2, generator=generator).tolist() == [0, 1, 0, 1]
        three = draw(weights, everyone(weights), 3, generator=generator)
        assert int(three.sum()) == 3
        assert bool(three[1] & three[3])
    assert not draw(weights, everyone(weights), 0, generator=generator).any()
    assert draw(weights, everyone(weights), 9, generator=generator).all()
    only = torch.tensor([True, True, False, False])
    assert draw(weights, only, 9, generator=generator).tolist() == [1, 1, 0, 0]


def test_draw_survives_powers_beyond_the_range_of_floats():
    # 1e-20 ** 100 is 0 even in float64; the odds of the first two are e to 1.
    weights = torch.tensor([1e-20, 1e-20 * 0.9900498, 1e-30], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    first = torch.zeros(3)
    for _ in range(400):
        first += draw(weights, everyone(weights), 1, generator=generator, exponent=100.0)
    # 292 of 400 expected for the first, standard deviation 9.
    assert 245 < first[0] < 340
    assert first[2] == 0
