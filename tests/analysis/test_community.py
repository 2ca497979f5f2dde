"""Modularity against the stored partitions, and the Leiden search."""

import random
from pathlib import Path

import numpy as np
import pytest

from topospike.analysis import LayeredGraph, communities, layered_graph, modularity
from topospike.errors import ConfigError, ShapeError

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"


def load(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        n = int(stored["n"])
        graph = LayeredGraph((n,), stored["edges"].astype(np.int64), np.zeros(n, dtype=np.int64))
        return graph, stored["m_mod_Ci"], float(stored["m_mod_Q"])


@pytest.mark.parametrize("name", ["karate", "chain60", "chainpl90", "npso100"])
def test_modularity_of_the_stored_partition_and_of_ours(name):
    graph, membership, q = load(name)
    assert modularity(graph, membership) == pytest.approx(q, abs=1e-12)
    assert modularity(graph, communities(graph)) >= q - 0.02


def test_one_community_has_modularity_zero():
    graph, membership, _ = load("karate")
    assert modularity(graph, np.ones_like(membership)) == pytest.approx(0.0)


def test_the_search_is_seeded_and_leaves_other_generators_alone():
    graph = load("npso100")[0]
    random.seed(5)
    before = random.getstate()
    one, two = communities(graph, seed=3), communities(graph, seed=3)
    np.testing.assert_array_equal(one, two)
    assert random.getstate() == before


def test_bad_input_is_refused():
    graph = load("karate")[0]
    with pytest.raises(ShapeError, match="3 labels were given for a graph of 34"):
        modularity(graph, np.zeros(3, dtype=int))
    empty = layered_graph([np.zeros((2, 2), dtype=bool)])
    with pytest.raises(ConfigError, match="without links"):
        communities(empty)
    with pytest.raises(ConfigError, match="without links"):
        modularity(empty, np.zeros(4, dtype=int))
