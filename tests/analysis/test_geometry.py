"""Hyperbolic distances and embedding scores against the golden vectors and tiny cases."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis import (
    LayeredGraph,
    c_score,
    greedy_routing,
    hd_correlation,
    hyperbolic_distances,
    layered_graph,
)
from topospike.errors import ConfigError, ShapeError

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"
NETWORKS = ("karate", "chain60", "chainpl90", "npso100")
COMPARISONS = [
    f"{weighting}_{reduction}_{angles}"
    for weighting in ("RA1", "RA2", "EBC")
    for reduction in ("ISO", "ncISO", "LE", "MCE", "ncMCE")
    for angles in ("original", "EA")
]


def load(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        return dict(stored)


def network(stored):
    n = int(stored["n"])
    return LayeredGraph((n,), stored["edges"].astype(np.int64), np.zeros(n, dtype=np.int64))


@pytest.mark.parametrize("name", NETWORKS)
def test_two_embeddings_compare_as_in_the_reference(name):
    stored = load(name)
    a, b, r = stored["theta_RA2_ISO_original"], stored["theta_RA1_LE_original"], stored["r"]
    expected_hd, expected_c = stored["m_cmp_RA2ISO_RA1LE"]
    # Nearly tied nodes take cosh(h) close to 1, where acosh keeps half of the digits.
    assert hd_correlation((a, r), (b, r)) == pytest.approx(expected_hd, abs=1e-8)
    assert c_score(a, b) == pytest.approx(expected_c, abs=1e-12)


@pytest.mark.parametrize("method", COMPARISONS)
def test_embeddings_compare_with_the_true_coordinates(method):
    stored = load("npso100")
    true_theta, true_r = stored["coords_true"].T
    theta = stored[f"theta_{method}"]
    hd = hd_correlation((theta, stored["r"]), (true_theta, true_r))
    assert hd == pytest.approx(stored[f"m_truth_{method}"][0], abs=1e-8)
    assert c_score(theta, true_theta) == pytest.approx(stored[f"m_truth_{method}"][1], abs=1e-12)


@pytest.mark.parametrize("name", NETWORKS)
def test_greedy_routing_matches_the_reference(name):
    stored = load(name)
    routing = greedy_routing(network(stored), stored["theta_RA2_ISO_original"], stored["r"])
    expected = stored["m_gr_RA2_ISO"]
    np.testing.assert_allclose([routing.score, routing.success, routing.hops], expected, atol=1e-12)


def test_distance_to_the_centre_and_across_it_is_radial():
    h = hyperbolic_distances(np.array([0.3, 0.3, 0.3 + np.pi]), np.array([0.0, 2.0, 1.0]))
    np.testing.assert_allclose(h, [[0, 2, 1], [2, 0, 3], [1, 3, 0]], atol=1e-9)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(2, 12), st.integers(0, 10_000))
def test_distances_are_a_metric(n, seed):
    rng = np.random.default_rng(seed)
    h = hyperbolic_distances(rng.uniform(0, 2 * np.pi, n), rng.uniform(0, 6, n))
    np.testing.assert_allclose(h, h.T, atol=1e-9)
    assert (h >= 0).all()
    assert (h[:, None, :] <= h[:, :, None] + h[None, :, :] + 1e-6).all()


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(3, 12), st.integers(0, 10_000))
def test_c_score_does_not_see_rotation_and_mirror(n, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.uniform(0, 2 * np.pi, (2, n))
    expected = c_score(a, b)
    assert c_score(a, (b + 1.234) % (2 * np.pi)) == pytest.approx(expected)
    assert c_score(a, -b) == pytest.approx(expected)
    assert c_score(a, a + 0.5) == 1.0


def test_a_message_that_would_return_is_dropped():
    # 0 - 1 - 2 - 3 on a line; the target 3 lies beside node 0 in the disk.
    path = LayeredGraph((4,), np.array([[0, 1], [1, 2], [2, 3]]), np.zeros(4, dtype=np.int64))
    theta = np.array([0.0, 1.5, 3.0, 0.1])
    routing = greedy_routing(path, theta, np.full(4, 3.0))
    assert routing.success < 1
    assert 0 < routing.score < 1


def test_bad_coordinates_are_refused():
    graph = layered_graph([np.ones((2, 2), dtype=bool)])
    with pytest.raises(ShapeError, match="3 coordinates were given for a graph of 4"):
        greedy_routing(graph, np.zeros(3), np.ones(3))
    with pytest.raises(ConfigError, match="finite"):
        hyperbolic_distances(np.array([np.nan, 0.0]), np.ones(2))
    with pytest.raises(ShapeError, match=r"4 and 5 nodes"):
        hd_correlation((np.zeros(4), np.ones(4)), (np.zeros(5), np.ones(5)))
