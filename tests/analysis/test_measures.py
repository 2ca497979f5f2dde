"""Classical measures and structural consistency against the golden vectors."""

from pathlib import Path

import igraph
import numpy as np
import pytest

from topospike.analysis import LayeredGraph, layered_graph
from topospike.analysis.measures import (
    compared_consistency,
    lcp_correlation,
    local_community_links,
    structural_consistency,
    topological_measures,
)
from topospike.errors import ConfigError

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"
NETWORKS = ("karate", "chain60", "chainpl90", "npso100")
STORED_NAMES = {
    "nodes": "m_N",
    "links": "m_E",
    "density": "m_density",
    "average_degree": "m_avgdeg",
    "clustering": "m_clustering",
    "path_length": "m_char_path",
    "efficiency": "m_efficiency_glob",
    "local_efficiency": "m_efficiency_loc",
    "closeness": "m_closeness",
    "radiality": "m_radiality",
    "edge_betweenness": "m_EBC",
    "node_betweenness": "m_BC",
    "assortativity": "m_assortativity",
    "lcp_correlation": "m_LCPcorr",
}


def load(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        values = dict(stored)
    n = int(values["n"])
    graph = LayeredGraph((n,), values["edges"].astype(np.int64), np.zeros(n, dtype=np.int64))
    return graph, values


@pytest.mark.parametrize("name", NETWORKS)
def test_every_measure_matches_the_reference(name):
    graph, stored = load(name)
    measures = topological_measures(graph)
    for ours, theirs in STORED_NAMES.items():
        assert getattr(measures, ours) == pytest.approx(float(stored[theirs]), abs=1e-10), ours


@pytest.mark.parametrize("name", NETWORKS)
def test_common_neighbours_and_their_links_match_per_link(name):
    graph, stored = load(name)
    shared, inner = local_community_links(graph)
    order = np.lexsort((graph.edges[:, 0], graph.edges[:, 1]))
    np.testing.assert_array_equal(shared[order], stored["m_lcp_cn"])
    np.testing.assert_array_equal(inner[order], stored["m_lcp_lcl"])


@pytest.mark.parametrize("name", NETWORKS)
def test_structural_consistency_of_the_stored_removal(name):
    graph, stored = load(name)
    assert stored["m_sc_gap"] > 1e-9
    found = structural_consistency(graph, removed=stored["sc_removed"])
    assert found == pytest.approx(float(stored["m_sc_value"]), abs=1e-12)


def test_a_complete_bipartite_graph_is_fully_predictable():
    # Repeated eigenvalues everywhere: the first-order correction needs the rotated basis.
    graph = layered_graph([np.ones((8, 8), dtype=bool)])
    assert structural_consistency(graph, seed=2) == 1.0
    rng = np.random.default_rng(0)
    noise = layered_graph([rng.random((30, 30)) < 0.1])
    assert structural_consistency(noise, seed=2) < 0.5


def test_regular_and_triangle_free_graphs_have_plain_values():
    ring = topological_measures(igraph.Graph.Ring(6))
    assert (ring.assortativity, ring.clustering, ring.local_efficiency) == (None, 0, 0)
    assert ring.path_length == pytest.approx(9 / 5)
    assert lcp_correlation(layered_graph([np.ones((3, 3), dtype=bool)])) == 0.0


def test_bad_input_is_refused():
    empty = layered_graph([np.zeros((2, 2), dtype=bool)])
    with pytest.raises(ConfigError, match="without links"):
        topological_measures(empty)
    with pytest.raises(ConfigError, match="no link is removed"):
        structural_consistency(empty)
    with pytest.raises(ConfigError, match="not a link"):
        structural_consistency(layered_graph([np.eye(2, dtype=bool)]), removed=np.array([[0, 1]]))


def test_consistency_stands_beside_graphs_with_the_same_degrees():
    complete = layered_graph([np.ones((8, 8), dtype=bool)])
    row = compared_consistency(complete, draws=2, seed=0)
    assert (row.value, row.mean, row.draws) == (1.0, 1.0, 2)
    blocks = np.kron(np.eye(4, dtype=bool), np.ones((8, 8), dtype=bool))
    noise = np.random.default_rng(0).random(blocks.shape) < 0.05
    planted = compared_consistency(layered_graph([blocks | noise]), draws=3, seed=0)
    assert planted.value > planted.mean + 0.2
    assert planted == compared_consistency(layered_graph([blocks | noise]), draws=3, seed=0)


def test_too_few_links_have_no_consistency():
    pair = layered_graph([np.eye(2, dtype=bool)])
    assert compared_consistency(pair, draws=1, seed=0).value == 0.0
    with pytest.raises(ConfigError, match="draws=0"):
        compared_consistency(pair, draws=0, seed=0)
