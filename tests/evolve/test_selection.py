import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.evolve.selection import best, draw

derandomised = settings(deadline=None, derandomize=True, max_examples=25)


@derandomised
@given(values=st.lists(st.integers(0, 4), min_size=1, max_size=30), k=st.integers(0, 31))
def test_best_takes_exactly_k_of_the_largest_and_of_ties_the_first(values, k):
    scores = torch.tensor(values, dtype=torch.float32)
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert sorted(best(scores, k).tolist()) == sorted(order[:k])


@derandomised
@given(values=st.lists(st.integers(0, 2), min_size=1, max_size=30), k=st.integers(1, 30))
def test_random_ties_change_who_is_taken_but_not_which_scores(values, k):
    scores = torch.tensor(values, dtype=torch.float32)
    taken = best(scores, k, generator=torch.Generator().manual_seed(1))
    assert len(set(taken.tolist())) == min(k, len(values))
    assert sorted(scores[taken].tolist()) == sorted(scores[best(scores, k)].tolist())


def test_random_ties_are_uniform():
    generator = torch.Generator().manual_seed(0)
    counts = torch.zeros(6)
    for _ in range(1200):
        counts[best(torch.tensor([1.0, 0.0, 0.0, 0.0, 0.0, 0.0]), 3, generator=generator)] += 1
    assert counts[0] == 1200
    # Each of five tied places is taken with probability 2/5: 480 +- 5 standard deviations of 17.
    assert bool(((counts[1:] - 480).abs() < 85).all())


def test_draw_fills_up_with_weight_zero_only_when_needed():
    logs = torch.tensor([-torch.inf, 0.0, -torch.inf, 2.0])
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        assert sorted(draw(logs, 2, generator=generator).tolist()) == [1, 3]
        three = draw(logs, 3, generator=generator).tolist()
        assert {1, 3} < set(three)
        assert len(set(three)) == 3
    assert draw(logs, 0, generator=generator).numel() == 0
    assert sorted(draw(logs, 4, generator=generator).tolist()) == [0, 1, 2, 3]


def test_draw_survives_weights_beyond_the_range_of_floats():
    logs = torch.tensor([-4000.0, -4001.0, -9000.0], dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    first = torch.zeros(3)
    for _ in range(400):
        first[draw(logs, 1, generator=generator)] += 1
    # exp(-1) odds: 292 of 400 expected for the first, standard deviation 9.
    assert 245 < first[0] < 340
    assert first[2] == 0
