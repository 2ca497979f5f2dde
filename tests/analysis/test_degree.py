"""The power-law fit against the golden samples, and degree statistics by hand."""

import json
from pathlib import Path

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis.degree import (
    ccdf,
    degree_statistics,
    fitted_ccdf,
    gini,
    heterogeneity,
    hub_share,
    power_law,
)
from topospike.errors import ConfigError

SAMPLES = json.loads(
    (Path(__file__).parents[1] / "oracles" / "topology" / "plfit.json").read_text()
)


def sample(case):
    return np.repeat(case["values"], case["counts"])


@pytest.mark.parametrize("name", list(SAMPLES))
def test_fit_equals_the_exact_grid_fit(name):
    case = SAMPLES[name]
    fit = power_law(sample(case))
    exact = case["exact_hurwitz_grid"]
    assert fit.alpha == pytest.approx(exact["gamma"], abs=1e-9)
    assert (fit.xmin, fit.n_tail, fit.n) == (exact["xmin"], exact["n_tail"], case["n"])
    assert fit.ks == pytest.approx(exact["ks"], abs=1e-10)
    at, first, second = (float(mpmath.zeta(fit.gamma, fit.xmin, order)) for order in range(3))
    information = second / at - (first / at) ** 2
    assert fit.sigma == pytest.approx((fit.n_tail * information) ** -0.5, rel=1e-5)


@pytest.mark.parametrize("name", list(SAMPLES))
def test_fit_agrees_with_the_reference_where_that_is_not_round_off_limited(name):
    case = SAMPLES[name]
    fit, reference = power_law(sample(case)), case["reference"]
    tolerance = 0.011 if reference["gamma"] < 8 else 0.5
    assert abs(fit.alpha - reference["gamma"]) < tolerance or fit.at_bound
    assert fit.xmin == reference["xmin"]
    if case["n"] < 100:
        assert fit.gamma == pytest.approx(reference["gamma_finite"], abs=tolerance)
    else:
        assert fit.gamma == fit.alpha


def test_a_known_exponent_is_recovered():
    rng = np.random.default_rng(1)
    fit = power_law(rng.zipf(2.5, 5000))
    assert abs(fit.gamma - 2.5) < 4 * fit.sigma
    assert not fit.at_bound


def test_isolated_nodes_do_not_count():
    k = np.array([1, 1, 1, 2, 2, 5])
    assert power_law(np.concatenate([k, np.zeros(50, int)])) == power_law(k)


def test_near_regular_degrees_are_flagged_at_the_bound():
    assert power_law(np.repeat([7, 8], [99, 1])).at_bound


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(1, 60), min_size=3, max_size=80))
def test_fit_stays_in_range_and_ignores_order(degrees):
    if len(set(degrees)) < 2:
        return
    k = np.array(degrees)
    fit = power_law(k)
    assert fit == power_law(k[::-1])
    assert 1.0 < fit.alpha <= 10.0
    assert 0 <= fit.ks <= 1
    assert fit.xmin in degrees
    assert fit.xmin < k.max()


@pytest.mark.parametrize(
    ("degrees", "message"),
    [
        (np.full(6, 3), "all 6 degrees equal 3"),
        (np.zeros(4, int), "no link at all"),
        (np.array([], dtype=int), "no link at all"),
        (np.array([1, -2]), "a degree of -2"),
        (np.array([1.5, 2.0]), "whole numbers"),
    ],
)
def test_degrees_without_a_tail_are_refused(degrees, message):
    with pytest.raises(ConfigError, match=message):
        power_law(degrees)


def test_statistics_by_hand():
    k = np.array([1, 1, 1, 1, 1, 1, 1, 1, 1, 11])
    assert gini(k) == pytest.approx(0.45)
    assert hub_share(k) == pytest.approx(0.55)
    assert heterogeneity(k) == pytest.approx(130 / 10 / 4)
    row = degree_statistics(np.concatenate([k, [0, 0]]), layer=2)
    assert (row.layer, row.nodes, row.active, row.maximum, row.mean) == (2, 12, 10, 11, 2.0)
    assert row.gamma is not None


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=40))
def test_gini_equals_its_definition(degrees):
    k = np.array(degrees, dtype=float)
    pairs = np.abs(k[:, None] - k[None, :]).sum()
    expected = pairs / (2 * len(k) ** 2 * k.mean()) if k.any() else 0.0
    assert gini(k) == pytest.approx(expected, abs=1e-12)


def test_empty_and_equal_degrees_have_plain_statistics():
    assert (gini(np.zeros(3)), hub_share(np.zeros(3)), heterogeneity(np.zeros(3))) == (0, 0, 0)
    row = degree_statistics(np.full(4, 2))
    assert (row.gini, row.kappa, row.gamma) == (0, 1, None)


def test_ccdf_starts_at_one_and_the_fit_meets_the_tail():
    k = sample(SAMPLES["zipf2p5_n2000"])
    values, share = ccdf(k)
    assert share[0] == 1.0
    assert (np.diff(share) < 0).all()
    fit = power_law(k)
    at_xmin = fitted_ccdf(fit, np.array([fit.xmin]))[0]
    assert at_xmin == pytest.approx(fit.n_tail / fit.n)
    assert np.abs(fitted_ccdf(fit, values[:10]) - share[:10]).max() < fit.ks + 1e-12
