"""Bipartite clustering and small-worldness against networkx's stored values and by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import LayeredGraph, bipartite_clustering, layered_graph, small_world
from topospike.analysis.smallworld import block_graph, lattice, path_length, squares_and_latapy
from topospike.errors import ConfigError

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"
STORED = json.loads((ORACLES / "bipartite_clustering.json").read_text())


def stored_chain(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        labels = stored["labels"]
        sizes = tuple(np.bincount(labels - labels.min()).tolist())
        return LayeredGraph(sizes, stored["edges"].astype(np.int64), labels - labels.min())


@pytest.mark.parametrize("name", ["chain60", "chainpl90"])
def test_whole_chain_matches_networkx(name):
    graph, expected = stored_chain(name), STORED[name]
    found = bipartite_clustering(graph)
    assert found.squares == expected["n_squares"]
    assert found.paths3 == expected["n_L3_paths"]
    assert found.robins_alexander == pytest.approx(expected["robins_alexander"], abs=1e-12)
    assert found.latapy == pytest.approx(expected["latapy_dot_mean"], abs=1e-12)
    np.testing.assert_allclose(
        squares_and_latapy(graph)[1], expected["latapy_dot_nodes"], atol=1e-12
    )
    assert path_length(graph) == pytest.approx(expected["avg_shortest_path"], abs=1e-12)


@pytest.mark.parametrize("name", ["chain60", "chainpl90"])
@pytest.mark.parametrize("pair", [(0, 1), (1, 2)])
def test_each_block_matches_networkx(name, pair):
    expected = STORED[name]["layer_pair"][f"{pair[0]}-{pair[1]}"]
    found = bipartite_clustering(block_graph(stored_chain(name), pair))
    assert found.robins_alexander == pytest.approx(expected["robins_alexander"], abs=1e-12)
    assert found.latapy == pytest.approx(expected["latapy_dot_mean"], abs=1e-12)


@pytest.mark.parametrize("name", ["chain60", "chainpl90"])
def test_masks_and_stored_links_are_the_same_chain(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        whole = layered_graph([stored["layer_mask0"] != 0, stored["layer_mask1"] != 0])
        assert whole.largest_component().tolist() == stored["keep"].tolist()
        np.testing.assert_array_equal(whole.subgraph(stored["keep"]).edges, stored["edges"])


def test_a_square_and_a_path_by_hand():
    square = bipartite_clustering(layered_graph([np.ones((2, 2), dtype=bool)]))
    assert (square.squares, square.paths3, square.latapy) == (1, 4, 1)
    path = bipartite_clustering(layered_graph([np.array([[1, 1]]) > 0, np.array([[1]]) > 0]))
    assert (path.squares, path.robins_alexander) == (0, 0)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10_000))
def test_squares_equal_a_brute_count(n_in, n_out, seed):
    mask = np.random.default_rng(seed).random((n_out, n_in)) < 0.5
    brute = sum(
        int(mask[a, c] & mask[a, d] & mask[b, c] & mask[b, d])
        for a in range(n_out)
        for b in range(a)
        for c in range(n_in)
        for d in range(c)
    )
    assert bipartite_clustering(layered_graph([mask])).squares == brute


def test_a_lattice_is_clustered_and_a_random_graph_is_not():
    rng = np.random.default_rng(0)
    random = layered_graph([rng.random((120, 120)) < 0.05, rng.random((120, 120)) < 0.05])
    ordered = lattice(random)
    assert {p: len(x) for p, x in ordered.blocks.items()} == {
        p: len(x) for p, x in random.blocks.items()
    }
    near, far = small_world(ordered, nulls=5), small_world(random, nulls=5)
    assert near.sigma > 2
    assert near.omega < -0.5
    assert far.sigma == pytest.approx(1.0, abs=0.2)
    assert far.omega > 0.5
    assert len(far.block_clustering) == 2
    assert far.path_length.value == pytest.approx(far.path_length.mean, rel=0.05)


def test_sampled_paths_agree_with_all_of_them():
    graph = stored_chain("chainpl90")
    some = path_length(graph, sources=np.arange(0, 150, 2))
    assert some == pytest.approx(path_length(graph), rel=0.05)


def test_without_nulls_or_squares_the_ratios_are_undefined():
    tree = layered_graph([np.eye(3, dtype=bool), np.ones((1, 3), dtype=bool)])
    world = small_world(tree, nulls=2)
    assert (world.clustering.value, world.sigma, world.sampled_sources) == (0.0, None, None)
    assert small_world(layered_graph([np.ones((3, 3), dtype=bool)]), nulls=0).sigma is None


def test_graphs_without_links_or_with_odd_cycles_are_refused():
    triangle = LayeredGraph((3,), np.array([[0, 1], [0, 2], [1, 2]]), np.zeros(3, dtype=np.int64))
    with pytest.raises(ConfigError, match="odd cycle"):
        bipartite_clustering(triangle)
    with pytest.raises(ConfigError, match="without links"):
        small_world(layered_graph([np.zeros((2, 2), dtype=bool)]))
    with pytest.raises(ConfigError, match="nulls=-2"):
        small_world(layered_graph([np.ones((2, 2), dtype=bool)]), nulls=-2)
