"""Credit-assigned paths: against products of masks, by hand, and through hubs."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import analyse, credit_paths, layered_graph
from topospike.analysis.connectivity import count_paths, hub_nodes
from topospike.errors import ConfigError


def masks(sizes, density, seed):
    rng = np.random.default_rng(seed)
    return [rng.random((high, low)) < density for low, high in pairwise(sizes)]


@given(
    st.lists(st.integers(1, 9), min_size=2, max_size=5), st.floats(0.1, 0.9), st.integers(0, 999)
)
@settings(max_examples=40, deadline=None)
def test_paths_are_the_sum_of_the_product_of_the_masks(sizes, density, seed):
    given_masks = masks(sizes, density, seed)
    product = given_masks[0].astype(float)
    for mask in given_masks[1:]:
        product = mask @ product
    graph = layered_graph(given_masks)
    assert credit_paths(graph, nulls=0).total.value == product.sum()


@given(st.integers(0, 999), st.sampled_from([0.1, 0.3, 1.0]))
@settings(max_examples=20, deadline=None)
def test_paths_through_hubs_are_those_of_masks_cut_to_the_hubs(seed, share):
    given_masks = masks((7, 10, 12, 5), 0.4, seed)
    graph = layered_graph(given_masks)
    kept = hub_nodes(graph, share)
    first, second = kept[7:17], kept[17:29]
    assert (first.sum(), second.sum()) == (max(1, round(10 * share)), max(1, round(12 * share)))
    weakest = graph.degrees[7:17][first].min()
    assert (graph.degrees[7:17][~first] <= weakest).all()
    a, b, c = (mask.astype(float) for mask in given_masks)
    through = (c * second) @ (b * first) @ a
    found = credit_paths(graph, hubs=share, nulls=0)
    assert count_paths(graph, kept) == through.sum()
    assert found.through_hubs.value == pytest.approx(through.sum() / found.total.value)


def test_random_links_have_the_expected_number_and_share():
    """Zhang et al. (2024) count 782 032 paths and 0.007 for SET: 784 x 1000 x 1000 x 1000, 1 %."""
    graph = layered_graph(masks((784, 1000, 1000, 1000), 0.01, 0))
    found = credit_paths(graph, nulls=3)
    assert found.total.value == pytest.approx(784_000, rel=0.03)
    assert found.total.mean == pytest.approx(found.total.value, rel=0.03)
    # hubs of random graphs have somewhat more links than others, hence more than 0.08 squared
    assert 0.0064 < found.through_hubs.value < 0.03


def test_hubs_that_feed_hubs_stand_out_of_the_null():
    first, second, third = np.eye(20, dtype=bool), np.eye(20, dtype=bool), np.eye(20, dtype=bool)
    first[0], second[0, 0], third[:, 0] = True, True, True
    report = analyse([first, second, third], nulls=5, embedding=False)
    assert report.paths.total.value == 20 * 20 + 19
    assert report.paths.through_hubs.value > 0.9
    assert report.paths.total.value > 2 * report.paths.total.mean


def test_what_has_no_path_or_no_layer_between_has_no_share():
    empty = credit_paths(layered_graph([np.zeros((2, 3), dtype=bool)]), nulls=2)
    assert (empty.total.value, empty.through_hubs) == (0, None)
    assert credit_paths(layered_graph([np.eye(3, dtype=bool)]), nulls=0).through_hubs is None
    with pytest.raises(ConfigError, match="hubs is 0"):
        credit_paths(layered_graph([np.eye(3, dtype=bool)]), hubs=0)
