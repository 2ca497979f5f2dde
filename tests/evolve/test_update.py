import json
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.evolve import ch_scores
from topospike.topology import best, draw

SOFT_SAMPLING = Path(__file__).parent.parent / "oracles" / "cht" / "soft_sampling.json"

derandomised = settings(deadline=None, derandomize=True, max_examples=25)


def test_soft_regrowth_has_the_inclusion_frequencies_of_the_reference():
    stored = json.loads(SOFT_SAMPLING.read_text())
    scores = torch.tensor(stored["score"], dtype=torch.float64)
    empty = torch.zeros(len(scores), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    draws = 8000
    counts = torch.zeros(len(scores), dtype=torch.float64)
    for _ in range(draws):
        counts += draw(scores, ~empty, stored["k"], generator=generator)
    ours = counts / draws
    theirs = torch.tensor(stored["inclusion_frequency"], dtype=torch.float64)
    error = torch.tensor(stored["std_error"], dtype=torch.float64)
    combined = (error**2 + theirs * (1 - theirs) / draws).sqrt()
    assert not ours[scores == 0].any()
    assert bool(((ours - theirs).abs() <= 5 * combined).all())


@derandomised
@given(
    seed=st.integers(0, 999),
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    density=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    count=st.integers(0, 60),
    way=st.sampled_from(["drawn", "best", "uniform"]),
)
def test_growth_is_exact_and_disjoint(seed, rows, columns, density, count, way):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, columns, generator=generator) < density
    scores = ch_scores(mask)

    def grow(seed):
        generator = torch.Generator().manual_seed(seed)
        if way == "uniform":
            return draw(torch.zeros_like(scores), ~mask, count, generator=generator)
        choose = draw if way == "drawn" else best
        return choose(scores, ~mask, count, generator=generator)

    grown = grow(seed)
    assert int(grown.sum()) == min(count, int((~mask).sum()))
    assert not (grown & mask).any()
    assert torch.equal(grown, grow(seed))
    positive = (scores > 0) & ~mask
    if way != "uniform":
        # Score zero is grown only when every positive score has been.
        assert bool((grown & positive).sum() == min(count, int(positive.sum())))


def test_scores_on_present_links_are_ignored():
    mask = torch.tensor([True, False, False])
    scores = torch.tensor([1e9, 0.5, 1.0])
    generator = torch.Generator().manual_seed(0)
    assert best(scores, ~mask, 1, generator=generator).tolist() == [False, False, True]
    assert not draw(scores, ~mask, 1, generator=generator)[0]


def test_an_empty_layer_grows_uniformly():
    mask = torch.zeros(4, 5, dtype=torch.bool)
    counts = torch.zeros(4, 5)
    generator = torch.Generator().manual_seed(0)
    scores = ch_scores(mask)
    for _ in range(1000):
        counts += draw(scores, ~mask, 4, generator=generator)
    # 200 expected in each of 20 places, standard deviation 12.6.
    assert bool(((counts - 200).abs() < 65).all())


def test_hard_regrowth_obeys_the_scores_of_the_reference(oracle):
    stored = oracle("evolve_topk_ch2l3n")
    for layer in range(3):
        before = torch.from_numpy(stored[f"mask_percolated_{layer}"]).bool()
        target = int(stored[f"mask_in_{layer}"].sum())
        scores = ch_scores(before, "CH2-L3n")
        expected = torch.from_numpy(stored[f"scores_{layer}"])
        torch.testing.assert_close(
            scores[~before], expected[~before], rtol=1e-5, atol=1e-5 * float(expected.max())
        )
        k, kth, _ = stored["kth_and_next_score"][layer]
        missing = target - int(before.sum())
        assert missing - int(k) in (0, 1)  # the reference may count one link short
        grown = best(scores, ~before, int(k), generator=torch.Generator().manual_seed(0))
        must, may_not = scores > kth * (1 + 1e-5), scores < kth * (1 - 1e-5)
        assert bool(grown[must & ~before].all())
        assert not bool(grown[may_not].any())
        assert int((before | grown).sum()) == int(stored[f"mask_out_{layer}"].sum())
