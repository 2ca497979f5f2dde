"""Which masks form a chain, and conv masks as unfolded and channel graphs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import channel_chains, channel_mask, linear_chains, main_chain, tap_counts
from topospike.analysis.graphs.channels import unfold
from topospike.errors import ConfigError, ShapeError


def ones(*shape):
    return np.ones(shape, dtype=bool)


VGG = {
    "features.0.weight": ones(4, 3, 3, 3),
    "features.3.weight": ones(8, 4, 3, 3),
    "classifier.0.weight": ones(6, 8),
    "classifier.3.weight": ones(6, 6),
}


def test_longest_linear_chain_is_taken():
    chain = main_chain(VGG)
    assert chain.names == ("classifier.0.weight", "classifier.3.weight")
    assert (chain.kind, chain.graph().sizes) == ("linear", (8, 6, 6))


def test_without_linear_masks_the_channel_graph_is_taken():
    chain = main_chain({name: mask for name, mask in VGG.items() if "features" in name})
    assert (chain.kind, chain.graph().sizes) == ("channel", (3, 4, 8))
    assert (chain.graph().taps == 9).all()


def test_a_chain_can_be_named_with_or_without_weight():
    chain = main_chain(VGG, ["features.3", "classifier.0.weight"])
    assert (chain.kind, chain.graph().sizes) == ("channel", (4, 8, 6))


def test_parallel_projections_do_not_chain():
    block = {f"layer.0.{n}.weight": ones(4, 4) for n in ("query", "key", "value", "dense")}
    block |= {"layer.0.fc1.weight": ones(8, 4), "layer.0.fc2.weight": ones(4, 8)}
    names = [chain.names for chain in linear_chains(block)]
    assert names[:3] == [(f"layer.0.{n}.weight",) for n in ("query", "key", "value")]
    assert main_chain(block).names[-2:] == ("layer.0.fc1.weight", "layer.0.fc2.weight")


def test_sizes_that_do_not_fit_end_a_chain():
    masks = {"a.weight": ones(4, 3), "b.weight": ones(5, 9), "c.weight": ones(2, 5)}
    assert [len(chain.names) for chain in linear_chains(masks)] == [1, 2]


def test_grouped_and_depthwise_convolutions_link_existing_pairs_only():
    grouped = tap_counts(ones(4, 2, 3, 3), channels=4)
    expected = np.kron(np.eye(2, dtype=int), np.full((2, 2), 9))
    np.testing.assert_array_equal(grouped, expected)
    masks = {"a.weight": ones(6, 3, 1, 1), "b.weight": ones(6, 1, 3, 3), "c.weight": ones(2, 24)}
    (chain,) = channel_chains(masks)
    assert [int(mask.sum()) for mask in chain.masks] == [18, 6, 12]
    assert chain.graph().taps.tolist().count(9) == 6


def test_flattened_maps_collapse_in_channel_major_order():
    mask = np.zeros((1, 8), dtype=bool)
    mask[0, 5] = True  # channel 1 of 2, position 1 of 4
    assert channel_mask(mask, channels=2).tolist() == [[False, True]]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(0, 1000))
def test_taps_sum_to_the_links(c_out, c_in, k, seed):
    mask = np.random.default_rng(seed).random((c_out, c_in, k, k)) < 0.4
    taps = tap_counts(mask)
    assert taps.sum() == mask.sum() == unfold(mask).sum()
    np.testing.assert_array_equal(channel_mask(mask), mask.any(axis=(2, 3)))


def test_channel_graph_keeps_the_taps_of_each_link():
    rng = np.random.default_rng(0)
    masks = {"a.weight": rng.random((4, 3, 3, 3)) < 0.1, "b.weight": rng.random((5, 4, 3, 3)) < 0.1}
    chain = main_chain(masks)
    graph = chain.graph()
    for link, (i, j) in enumerate(graph.edges):
        layer = int(graph.layers[i])
        o, n = j - sum(graph.sizes[: layer + 1]), i - sum(graph.sizes[:layer])
        name = chain.names[layer]
        assert graph.taps[link] == masks[name][o, n].sum()


def test_bad_chains_are_refused():
    with pytest.raises(ConfigError, match="no mask"):
        main_chain({})
    with pytest.raises(ConfigError, match=r"Did you mean 'classifier\.3'"):
        main_chain(VGG, ["classifier.4"])
    with pytest.raises(ConfigError, match="names no layer"):
        main_chain(VGG, [])
    with pytest.raises(ShapeError, match="cannot read 4 channels"):
        main_chain(VGG, ["features.0", "classifier.3"])
    with pytest.raises(ShapeError, match="without empty axes"):
        unfold(ones(4))
