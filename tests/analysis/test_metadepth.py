"""Meta-depth on generated graphs whose values are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import layered_graph, meta_depth, power_law
from topospike.analysis.metadepth import depths, hierarchy, mid_ranks, stratification
from topospike.errors import ConfigError

LINKS = 2621


def uniform(n_out, n_in, links, rng):
    mask = np.zeros(n_out * n_in, dtype=bool)
    mask[rng.choice(mask.size, size=links, replace=False)] = True
    return mask.reshape(n_out, n_in)


def hub_weighted(n_out, n_in, links, powers, rng):
    """Links without replacement, probability w_i w_j, w = rank^-power."""
    out, into = (np.arange(1.0, n + 1) ** -p for n, p in zip((n_out, n_in), powers, strict=True))
    weight = np.outer(out, into).ravel()
    mask = np.zeros(weight.size, dtype=bool)
    mask[rng.choice(weight.size, size=links, replace=False, p=weight / weight.sum())] = True
    return mask.reshape(n_out, n_in)


def gamma(graph):
    return power_law(graph.degrees).gamma


def test_a_random_chain_is_not_meta_deep_though_its_middle_layer_is_central():
    rng = np.random.default_rng(0)
    graph = layered_graph([uniform(512, 512, LINKS, rng) for _ in range(2)])
    depth = meta_depth(graph, gamma(graph), nulls=10)
    assert abs(depth.index) < 0.02
    assert abs(depth.pooled_gini.z) < 3
    assert depth.meta_deep is False
    assert depth.stratification.value == pytest.approx(0.44, abs=0.03)
    assert [row.value for row in depth.enrichment] == pytest.approx([0.02, 2.95, 0.02], abs=0.15)
    assert depth.mean_depth[1] > 2 * depth.mean_depth[0]


def test_complete_blocks_have_no_hierarchy_inside_layers():
    block = np.zeros((512, 512), dtype=bool)
    block[:51, :51] = True
    graph = layered_graph([block, block])
    depth = meta_depth(graph, gamma(graph), nulls=10)
    own = hierarchy(graph)
    assert gamma(graph) == pytest.approx(5.15, abs=0.02)
    assert own.active == (51, 51, 51)
    assert own.gini == (0.0, 0.0, 0.0)
    assert own.hub_share == pytest.approx((6 / 51,) * 3)
    assert own.enrichment == pytest.approx((0, 3, 0))
    assert own.stratification == pytest.approx(1.0)
    assert own.kappa == pytest.approx(1.125)
    assert depth.index == pytest.approx(-0.218, abs=0.01)
    assert depth.pooled_gini.z < -20
    assert depth.meta_deep is False


def test_hubs_in_the_middle_are_found_there():
    rng = np.random.default_rng(1)
    graph = layered_graph(
        [hub_weighted(512, 512, LINKS, powers, rng) for powers in ((0.8, 0.3), (0.3, 0.8))]
    )
    depth = meta_depth(graph, gamma(graph), nulls=10)
    assert depth.index == pytest.approx(0.162, abs=0.03)
    assert depth.pooled_gini.z > 20
    assert (depth.excess_condition, depth.significance_condition) == (True, True)
    assert depth.layers[1].value == pytest.approx(0.57, abs=0.04)
    assert depth.gamma_condition is (gamma(graph) <= 3)
    assert depth.meta_deep is depth.gamma_condition


def test_the_three_conditions_are_separate_and_configurable():
    rng = np.random.default_rng(2)
    graph = layered_graph([hub_weighted(60, 60, 300, (0.8, 0.8), rng)])
    strict = meta_depth(graph, 3.5, nulls=5)
    assert (strict.excess_condition, strict.gamma_condition, strict.meta_deep) == (
        True,
        False,
        False,
    )
    assert meta_depth(graph, 3.5, nulls=5, max_gamma=4.0).meta_deep is True
    without = meta_depth(graph, None, nulls=0)
    assert (without.index, without.meta_deep, without.deepest_layer) == (None, None, None)


def test_ranks_and_depths_by_hand():
    k = np.array([4, 1, 1, 2])
    assert mid_ranks(k).tolist() == [1.0, 3.5, 3.5, 2.0]
    depth = depths(k, 3.0)
    assert depth[0] == pytest.approx(0.5)
    assert depth[1] == depth[2] < depth[3] < depth[0]
    assert depths(np.array([3]), 2.5).tolist() == [0.0]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 100))
def test_stratification_is_a_share(degrees, seed):
    k = np.array(degrees)
    layers = np.random.default_rng(seed).integers(0, 3, len(k))
    assert 0 <= stratification(k, layers) <= 1 + 1e-12
    assert stratification(np.ones(len(k), dtype=int), layers) == 0


def test_bad_input_is_refused():
    with pytest.raises(ConfigError, match="without links"):
        meta_depth(layered_graph([np.zeros((2, 2), dtype=bool)]), None)
    with pytest.raises(ConfigError, match="nulls=-1"):
        meta_depth(layered_graph([np.ones((2, 2), dtype=bool)]), None, nulls=-1)
