"""Layered graphs from masks and from other graph types."""

from itertools import pairwise

import igraph
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import connectivity, graph_from_blocks, layered_graph
from topospike.analysis.connectivity import active_neurons
from topospike.analysis.graphs.graph import adjacency, as_graph
from topospike.errors import ConfigError, ShapeError

FIRST = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
SECOND = np.array([[0, 1], [0, 0], [0, 1]], dtype=bool)


def random_masks(seed, sizes, density=0.3):
    rng = np.random.default_rng(seed)
    return [rng.random((n_out, n_in)) < density for n_in, n_out in pairwise(sizes)]


def test_chain_by_hand():
    graph = layered_graph([FIRST, SECOND])
    assert graph.sizes == (3, 2, 3)
    assert graph.layers.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    assert graph.edges.tolist() == [[0, 3], [0, 4], [1, 4], [4, 5], [4, 7]]
    assert graph.degrees.tolist() == [2, 1, 0, 1, 4, 1, 0, 1]
    assert graph.active.tolist() == [0, 1, 3, 4, 5, 7]
    assert {pair: len(links) for pair, links in graph.blocks.items()} == {(0, 1): 3, (1, 2): 2}


def test_torch_masks_and_weights_give_the_same_graph():
    weight = torch.tensor([[0.5, 0.0, 0.0], [-1.0, 2.0, -0.0]], dtype=torch.bfloat16)
    from_weight = layered_graph([weight.requires_grad_()])
    assert from_weight.edges.tolist() == layered_graph([torch.tensor(FIRST)]).edges.tolist()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=5), st.integers(0, 10_000))
def test_chain_holds_every_link_of_every_mask(sizes, seed):
    masks = random_masks(seed, sizes)
    graph = layered_graph(masks)
    matrix = adjacency(graph).toarray()
    offsets = np.cumsum([0, *sizes]).tolist()
    for layer, mask in enumerate(masks):
        a, b, c = offsets[layer : layer + 3]
        np.testing.assert_array_equal(matrix[b:c, a:b], mask)
    assert graph.n_links == sum(int(mask.sum()) for mask in masks)
    assert (matrix == matrix.T).all()
    assert graph.degrees.sum() == 2 * graph.n_links


def test_largest_component_prefers_the_lowest_index_among_equals():
    graph = layered_graph([np.eye(3, dtype=bool)])
    assert graph.largest_component().tolist() == [0, 3]
    part = graph.subgraph(graph.largest_component())
    assert (part.sizes, part.edges.tolist()) == ((1, 1), [[0, 1]])


def test_subgraph_keeps_layers_and_weights():
    matrix = scipy.sparse.csr_array(np.array([[0, 2, 0], [2, 0, 3], [0, 3, 0]], dtype=float))
    part = as_graph(matrix).subgraph(np.array([1, 2]))
    assert part.edges.tolist() == [[0, 1]]
    assert part.weights.tolist() == [3.0]


def test_igraph_and_sparse_read_alike():
    pairs = [(0, 3), (1, 2), (0, 1)]
    plain = igraph.Graph(4, pairs)
    dense = np.zeros((4, 4))
    for i, j in pairs:
        dense[i, j] = dense[j, i] = 1
    one, two = as_graph(plain), as_graph(scipy.sparse.csr_array(dense))
    assert one.edges.tolist() == two.edges.tolist() == [[0, 1], [0, 3], [1, 2]]
    assert one.weights is None
    assert two.weights is None
    plain.es["weight"] = [3.0, 2.0, 1.0]
    assert as_graph(plain).weights.tolist() == [1.0, 3.0, 2.0]
    plain.vs["layer"] = [5, 7, 5, 7]
    assert as_graph(plain).layers.tolist() == [0, 1, 0, 1]


def test_shared_node_sets_count_a_link_once():
    eye = np.eye(2, dtype=bool)
    graph = graph_from_blocks([2, 2], [(0, 1, eye), (0, 1, np.ones((2, 2), dtype=bool))])
    assert graph.n_links == 4
    merged = graph_from_blocks([3], [(0, 0, np.ones((3, 3), dtype=bool))])
    assert merged.edges.tolist() == [[0, 1], [0, 2], [1, 2]]


def test_connectivity_counts_pieces_among_active_nodes():
    row = connectivity(layered_graph([FIRST, SECOND]))
    assert (row.active, row.active_nodes, row.components) == ((2, 2, 2), 6, 1)
    assert row.largest_share == 1.0
    assert row.density == pytest.approx(5 / 12)
    empty = connectivity(layered_graph([np.zeros((2, 2), dtype=bool)]))
    assert (empty.components, empty.largest_nodes, empty.largest_share) == (0, 0, 0.0)


def test_active_neurons_in_both_forms():
    # Hidden neuron 0 has inputs only, 1 both sides; input 2 and output 1 are isolated.
    assert active_neurons([FIRST, SECOND]) == (pytest.approx(5 / 8), 0.5)
    assert active_neurons([FIRST]) == (pytest.approx(4 / 5), None)


@pytest.mark.parametrize(
    ("masks", "error", "message"),
    [
        ([], ConfigError, "no masks given"),
        ([FIRST, FIRST], ShapeError, r"mask 1 has shape \(2, 3\) but mask 0 has shape \(2, 3\)"),
        ([np.ones((2, 2, 3, 3), dtype=bool)], ShapeError, "channel_mask or unfold"),
        ([np.ones((0, 3), dtype=bool)], ShapeError, "non-empty"),
        ([np.array([[np.nan, 1.0]])], ConfigError, "mask 0 holds NaN"),
        ([np.array([["a"]])], ConfigError, "dtype <U1"),
    ],
)
def test_masks_that_make_no_chain_are_refused(masks, error, message):
    with pytest.raises(error, match=message):
        layered_graph(masks)


def test_graphs_that_are_not_simple_and_undirected_are_refused():
    asymmetric = scipy.sparse.csr_array(np.array([[0, 1], [0, 0]], dtype=float))
    with pytest.raises(ConfigError, match="not symmetric"):
        as_graph(asymmetric)
    with pytest.raises(ConfigError, match="self-loops"):
        as_graph(scipy.sparse.eye_array(3, format="csr"))
    with pytest.raises(ShapeError, match="square"):
        as_graph(scipy.sparse.csr_array((2, 3)))
    negative = scipy.sparse.csr_array(np.array([[0, -1], [-1, 0]], dtype=float))
    with pytest.raises(ConfigError, match="weight -1"):
        as_graph(negative)
    with pytest.raises(ConfigError, match="directed"):
        as_graph(igraph.Graph(2, [(0, 1)], directed=True))
    with pytest.raises(ConfigError, match="a ndarray was given"):
        as_graph(np.eye(2))
    with pytest.raises(ShapeError, match=r"\(2, 3\) is required"):
        graph_from_blocks([3, 2], [(0, 1, np.ones((3, 3), dtype=bool))])
