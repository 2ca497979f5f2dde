"""Random graphs that keep layers, and layers and degrees."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import (
    LayeredGraph,
    degree_preserving_null,
    graph_from_blocks,
    layered_graph,
    random_null,
)
from topospike.analysis.graphs.null import compare_with_null, trade_round
from topospike.analysis.smallworld import block_graph
from topospike.errors import ConfigError


def chain(seed, sizes, density=0.3):
    rng = np.random.default_rng(seed)
    return layered_graph([rng.random((b, a)) < density for a, b in pairwise(sizes)])


def is_simple(graph):
    code = graph.edges[:, 0] * graph.n_nodes + graph.edges[:, 1]
    return len(np.unique(code)) == graph.n_links and (graph.edges[:, 0] < graph.edges[:, 1]).all()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    st.lists(st.integers(2, 12), min_size=2, max_size=4),
    st.integers(0, 10_000),
    st.floats(0.05, 0.9),
)
def test_nulls_keep_what_they_promise(sizes, seed, density):
    graph = chain(seed, sizes, density)
    rng = np.random.default_rng(seed)
    counts = {pair: len(links) for pair, links in graph.blocks.items()}
    for null in (random_null(graph, rng), degree_preserving_null(graph, rng)):
        assert {pair: len(links) for pair, links in null.blocks.items()} == counts
        assert is_simple(null)
        assert null.sizes == graph.sizes
    swapped = degree_preserving_null(graph, rng)
    for pair in graph.blocks:
        before, after = block_graph(graph, pair), block_graph(swapped, pair)
        np.testing.assert_array_equal(after.degrees, before.degrees)


def test_swaps_reach_all_graphs_of_given_degrees_equally():
    # Degrees 1, 1, 1 on both sides: the six permutations of three links.
    graph = layered_graph([np.eye(3, dtype=bool)])
    rng = np.random.default_rng(0)
    draws = 300
    seen: dict[tuple, int] = {}
    for _ in range(draws):
        key = tuple(degree_preserving_null(graph, rng).edges[:, 1].tolist())
        seen[key] = seen.get(key, 0) + 1
    assert len(seen) == 6
    # Six standard deviations of a binomial count.
    assert max(abs(n - draws / 6) for n in seen.values()) < 6 * np.sqrt(draws * 5 / 36)


def test_swaps_shuffle_a_sparse_block():
    graph = chain(1, (60, 60), 0.1)
    null = degree_preserving_null(graph, np.random.default_rng(2))
    kept = set(map(tuple, graph.edges.tolist())) & set(map(tuple, null.edges.tolist()))
    assert len(kept) < 0.25 * graph.n_links


def test_a_complete_block_is_its_own_null():
    graph = layered_graph([np.ones((4, 5), dtype=bool)])
    null = degree_preserving_null(graph, np.random.default_rng(0))
    np.testing.assert_array_equal(null.edges, graph.edges)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 10_000), st.floats(0, 1))
def test_trades_keep_all_degrees(n_rows, n_columns, seed, density):
    rng = np.random.default_rng(seed)
    before = rng.random((n_rows, n_columns)) < density
    after = before.copy()
    trade_round(after, rng)
    np.testing.assert_array_equal(after.sum(axis=0), before.sum(axis=0))
    np.testing.assert_array_equal(after.sum(axis=1), before.sum(axis=1))


def test_trades_reach_every_matrix_equally_often():
    rng = np.random.default_rng(0)
    matrix = np.eye(3, dtype=bool)
    seen: dict[bytes, int] = {}
    for _ in range(6000):
        trade_round(matrix, rng)
        seen[matrix.tobytes()] = seen.get(matrix.tobytes(), 0) + 1
    assert len(seen) == 6
    assert min(seen.values()) > 850
    assert max(seen.values()) < 1150


def test_large_dense_blocks_are_shuffled_as_well():
    graph = layered_graph([np.tri(400, 400, dtype=bool) ^ (np.eye(400) > 0)])
    null = degree_preserving_null(graph, np.random.default_rng(0))
    np.testing.assert_array_equal(null.degrees, graph.degrees)
    random = chain(0, (300, 300), density=0.7)
    kept = degree_preserving_null(random, np.random.default_rng(0))
    shared = len(np.intersect1d(*(g.edges @ [g.n_nodes, 1] for g in (random, kept))))
    assert shared / random.n_links == pytest.approx(0.7, abs=0.01)


def test_interleaved_layers_and_skip_blocks_keep_their_degrees():
    rng = np.random.default_rng(5)
    masks = [rng.random((6, 6)) < 0.4 for _ in range(3)]
    graph = graph_from_blocks([6, 6, 6], [(0, 1, masks[0]), (1, 2, masks[1]), (0, 2, masks[2])])
    order = rng.permutation(graph.n_nodes)
    mixed = LayeredGraph(
        graph.sizes, np.sort(np.argsort(order)[graph.edges], axis=1), graph.layers[order]
    )
    null = degree_preserving_null(mixed, rng)
    np.testing.assert_array_equal(null.degrees, mixed.degrees)
    assert {p: len(x) for p, x in null.blocks.items()} == {
        p: len(x) for p, x in mixed.blocks.items()
    }


def test_same_seed_same_null():
    graph = chain(3, (10, 10, 10))
    one, two = (degree_preserving_null(graph, np.random.default_rng(9)) for _ in range(2))
    np.testing.assert_array_equal(one.edges, two.edges)


def test_links_inside_a_layer_are_refused():
    ring = LayeredGraph((3,), np.array([[0, 1], [1, 2], [0, 2]]), np.zeros(3, dtype=np.int64))
    with pytest.raises(ConfigError, match="layer 0 has links among its own nodes"):
        random_null(ring, np.random.default_rng(0))


def test_comparison_without_spread_has_no_z():
    assert compare_with_null(1.0, []).mean is None
    assert compare_with_null(1.0, [1.0, 1.0]).z == 0.0
    assert compare_with_null(2.0, [1.0, 1.0]).z is None
    assert compare_with_null(4.0, [1.0, 3.0]).z == pytest.approx(2 / np.sqrt(2))
