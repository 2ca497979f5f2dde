"""Coalescent embedding against the golden vectors, under the sign freedom of eigenvectors."""

import functools
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse

from topospike.analysis.embedding.geometry import c_score
from topospike.analysis.embedding.hyperbolic import (
    coalescent_embedding,
    degree_ranks,
    equidistant_adjustment,
    link_weights,
    polar_angle,
    radial_positions,
)
from topospike.analysis.embedding.reduction import (
    DENSE_NODES,
    centred,
    distances,
    landmark_nodes,
    leading_pairs,
)
from topospike.analysis.graphs.graph import LayeredGraph, layered_graph
from topospike.errors import ConfigError

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"
NETWORKS = ("karate", "chain60", "chainpl90", "npso100")
WEIGHTINGS = ("RA1", "RA2", "EBC", "original")
REDUCTIONS = ("ISO", "ncISO", "LE", "MCE", "ncMCE")


@functools.cache
def load(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        return dict(stored)


def network(stored):
    n = int(stored["n"])
    return LayeredGraph(
        sizes=(n,),
        edges=stored["edges"].astype(np.int64),
        layers=np.zeros(n, dtype=np.int64),
        weights=stored["edge_w_original"],
    )


def flags(name):
    return json.loads((ORACLES / f"net_{name}_flags.json").read_text())


def usable(only_untied=False):
    cases = []
    for name, weighting, reduction in itertools.product(NETWORKS, WEIGHTINGS, REDUCTIONS):
        flag = flags(name)[f"{weighting}_{reduction}"]
        if flag["use_in_test"] and (not only_untied or flag["n_tied_1e-9"] == 0):
            cases.append((name, weighting, reduction))
    return cases


def circular_error(a, b):
    return np.abs(np.pi - np.abs(np.pi - np.abs(a - b) % (2 * np.pi))).max()


def signed_versions(theta, reduction):
    if "MCE" in reduction:
        n = len(theta)
        return [theta, 2 * np.pi * (n - 1) / n - theta]
    return [theta, -theta, np.pi - theta, np.pi + theta]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_link_weights_match_the_reference(name, weighting):
    stored = load(name)
    ours = link_weights(network(stored), weighting)
    tolerance = 1e-10 if weighting == "EBC" else 1e-12
    np.testing.assert_allclose(ours, stored[f"edge_w_{weighting}"], rtol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_radii_and_gamma_match_the_reference(name):
    stored = load(name)
    embedding = coalescent_embedding(network(stored))
    assert embedding.gamma == pytest.approx(float(stored["gamma"]), abs=1e-9)
    assert embedding.fit.xmin == int(stored["xmin"])
    assert embedding.fit.loglik == pytest.approx(float(stored["loglik_nofinite"]), abs=1e-6)
    assert embedding.fit.alpha == pytest.approx(float(stored["gamma_nofinite"]), abs=1e-9)
    np.testing.assert_allclose(embedding.r, stored["r"], atol=1e-12)


@pytest.mark.parametrize(("name", "weighting", "reduction"), usable())
def test_original_angles_match_the_reference_up_to_sign(name, weighting, reduction):
    stored = load(name)
    ours = coalescent_embedding(network(stored), weighting, reduction, angles="original").theta
    theirs = stored[f"theta_{weighting}_{reduction}_original"]
    best = min(circular_error(v, theirs) for v in signed_versions(ours, reduction))
    assert best < 1e-6


@pytest.mark.parametrize(("name", "weighting", "reduction"), usable(only_untied=True))
def test_equidistant_angles_match_up_to_reflection_and_shift(name, weighting, reduction):
    stored = load(name)
    ours = coalescent_embedding(network(stored), weighting, reduction).theta
    theirs = stored[f"theta_{weighting}_{reduction}_EA"]
    n = len(ours)
    errors = [
        circular_error(sign * ours + 2 * np.pi * shift / n, theirs)
        for sign in (1, -1)
        for shift in range(n)
    ]
    assert min(errors) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("reduction", ["ISO", "ncISO", "LE"])
def test_equidistant_adjustment_of_stored_angles(name, weighting, reduction):
    stored = load(name)
    given = stored[f"theta_{weighting}_{reduction}_original"]
    order = np.argsort(given, kind="stable")
    gaps = np.diff(given[order])
    if gaps.min() > 1e-9:
        np.testing.assert_allclose(
            equidistant_adjustment(given), stored[f"theta_{weighting}_{reduction}_EA"], atol=1e-12
        )
    assert np.sort(equidistant_adjustment(given)) == pytest.approx(
        2 * np.pi * np.arange(len(given)) / len(given)
    )


def chain(seed=0, density=0.1):
    rng = np.random.default_rng(seed)
    return layered_graph([rng.random((40, 50)) < density, rng.random((30, 40)) < density])


def test_chain_weights_depend_on_degrees_only():
    graph = chain()
    di, dj = graph.degrees[graph.edges].T
    np.testing.assert_allclose(link_weights(graph, "RA1"), (1 + di) * (1 + dj) - 1)
    np.testing.assert_allclose(link_weights(graph, "RA2"), di * dj)


def test_embedding_covers_the_largest_component_only():
    graph = chain(density=0.03)
    embedding = coalescent_embedding(graph)
    assert embedding.nodes.tolist() == graph.largest_component().tolist()
    assert len(embedding.theta) < len(graph.active)
    np.testing.assert_array_equal(embedding.graph.layers, graph.layers[embedding.nodes])


@pytest.mark.parametrize("weighting", ["RA1", "RA2", "EBC", "none"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("angles", ["original", "circular", "equidistant"])
def test_every_combination_gives_angles_on_the_circle(weighting, reduction, angles):
    embedding = coalescent_embedding(chain(), weighting, reduction, angles)
    assert np.isfinite(embedding.theta).all()
    assert ((embedding.theta >= 0) & (embedding.theta < 2 * np.pi)).all()
    if reduction in ("MCE", "ncMCE") and angles == "circular":
        original = coalescent_embedding(chain(), weighting, reduction, "original")
        np.testing.assert_array_equal(embedding.theta, original.theta)


def test_lanczos_and_dense_eigenvectors_agree():
    graph = layered_graph([np.random.default_rng(0).random((250, 250)) < 0.05])
    graph = graph.subgraph(graph.largest_component())
    assert graph.n_nodes > DENSE_NODES
    kernel = centred(distances(graph, link_weights(graph), None), None)
    values, vectors = leading_pairs(kernel, 2)
    dense_values, dense_vectors = np.linalg.eigh(kernel)
    order = np.argsort(-np.abs(dense_values))[:2]
    np.testing.assert_allclose(values, dense_values[order], rtol=1e-9)
    overlap = np.abs((vectors * dense_vectors[:, order]).sum(axis=0))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_landmarks_approach_the_exact_angles(reduction):
    stored = load("npso100")
    graph = network(stored)
    exact = coalescent_embedding(graph, "EBC", reduction, "original")
    nearly = coalescent_embedding(graph, "EBC", reduction, "original", landmarks=90)
    assert (exact.landmarks, nearly.landmarks) == (None, 90)
    agreement = c_score(exact.theta, nearly.theta)
    assert agreement > (1 - 1e-12 if reduction == "LE" else 0.9)
    np.testing.assert_array_equal(exact.r, nearly.r)


def test_landmarks_are_taken_above_four_thousand_nodes_only():
    assert landmark_nodes(4000) is None
    assert len(landmark_nodes(4001)) == 1000
    with pytest.raises(ConfigError, match="landmarks=2"):
        landmark_nodes(100, 2)


def test_radius_falls_with_degree_and_ends_at_the_rim():
    k = np.array([1, 5, 2, 5])
    r = radial_positions(degree_ranks(k), 3.0)
    assert degree_ranks(k).tolist() == [4, 1, 3, 2]
    assert r[0] == pytest.approx(2 * np.log(4))
    assert r[1] < r[3] < r[2] < r[0]
    assert radial_positions(degree_ranks(k), 1.5).min() == 0.0


def test_angles_start_at_zero_and_turn_once():
    theta = polar_angle(np.array([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, -1e-300]]))
    assert theta.tolist()[:3] == [0, np.pi / 2, 3 * np.pi / 2]
    assert 0 <= theta[3] < 2 * np.pi


def test_graph_types_embed_alike():
    graph = chain()
    matrix = scipy.sparse.coo_array(
        (np.ones(graph.n_links), tuple(graph.edges.T)), shape=(graph.n_nodes,) * 2
    )
    one, two = coalescent_embedding(graph), coalescent_embedding(matrix + matrix.T)
    np.testing.assert_array_equal(one.theta, two.theta)
    np.testing.assert_array_equal(one.nodes, two.nodes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weighting": "RA3"}, "unknown weighting 'RA3'"),
        ({"reduction": "PCA"}, "unknown reduction 'PCA'"),
        ({"angles": "equal"}, "Did you mean 'equidistant'"),
        ({"weighting": "original"}, "without link weights"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        coalescent_embedding(chain(), **options)


def test_graphs_without_hierarchy_are_refused():
    with pytest.raises(ConfigError, match="without links"):
        coalescent_embedding(layered_graph([np.zeros((2, 2), dtype=bool)]))
    with pytest.raises(ConfigError, match="all 6 nodes of the largest component have degree 3"):
        coalescent_embedding(layered_graph([np.ones((3, 3), dtype=bool)]))
