"""Exact counts and ties."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError
from topospike.pruning.methods import keep_largest
from topospike.topology import share_count


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    outputs=st.integers(1, 9),
    inputs=st.integers(2, 30),
    sparsity=st.floats(0.0, 0.95),
    seed=st.integers(0, 99),
)
def test_every_group_loses_exactly_its_count_and_the_smallest(outputs, inputs, sparsity, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randint(0, 6, (1, outputs, inputs), generator=generator).float()
    for comparison, size in (("row", inputs), ("layer", outputs * inputs)):
        keep = keep_largest(scores, sparsity, comparison=comparison).view(-1, size)
        assert ((~keep).sum(1) == share_count(size, sparsity)).all()
        for row, kept in zip(scores.view(-1, size), keep, strict=True):
            if (~kept).any():
                largest = row[~kept].max()
                assert largest <= row[kept].min()
                tied = (row == largest).nonzero().flatten()
                assert not kept[tied].tolist()[0]  # the first of equals goes first
                assert kept[tied].tolist() == sorted(kept[tied].tolist())


def test_a_constant_layer_does_not_lose_every_tie():
    keep = keep_largest(torch.ones(1, 24, 40), 0.3)
    assert int((~keep).sum()) == 288


def test_published_counts_of_vit_b():
    for shape, expected in [((2304, 768), 1_238_630), ((768, 768), 412_876)]:
        assert share_count(shape[0] * shape[1], 0.7) == expected
    assert share_count(3072 * 768, 0.7) == 1_651_507
    assert share_count(768, 0.7) == 537
    assert share_count(3072, 0.7) == 2150


def test_sparsity_zero_prunes_nothing_and_one_is_refused():
    scores = torch.rand(1, 3, 4)
    assert keep_largest(scores, 0.0).all()
    with pytest.raises(ConfigError, match=r"sparsity is 1.0; it must lie in \[0, 1\)"):
        keep_largest(scores, 1.0)
    with pytest.raises(ConfigError, match="leaves none of the 4 links of a row"):
        keep_largest(scores, 1 - 1e-8, comparison="row")
