"""Rivals of the power law and its bootstrap p-value, on samples of known origin."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.analysis.alternatives import (
    alternatives,
    best_exponential,
    bootstrap_p_value,
    cut_off_sum,
    draw_power_law,
    lognormal_logs,
    nested_p_value,
    vuong_p_value,
)
from topospike.analysis.degree import distinct_degrees, fitted_ccdf, power_law
from topospike.errors import ConfigError


def by_name(degrees):
    return {row.name: row for row in alternatives(degrees)}


def test_power_law_sample_beats_the_exponential():
    rows = by_name(np.random.default_rng(0).zipf(2.3, 3000))
    assert rows["exponential"].ratio > 0
    assert rows["exponential"].p_value < 0.01
    # The truncated law contains the power law and gains nothing here.
    assert rows["truncated"].ratio <= 0
    assert rows["truncated"].p_value > 0.05
    assert rows["truncated"].parameters[0] == pytest.approx(2.3, abs=0.15)


def test_exponential_sample_is_recognised_with_its_rate():
    k = np.random.default_rng(1).geometric(0.3, 3000)
    rows = by_name(k)
    assert rows["exponential"].ratio < 0
    fit = power_law(k)
    values, counts = distinct_degrees(k[k >= fit.xmin])
    (rate,), _ = best_exponential(values, counts, fit)
    assert rate == pytest.approx(-math.log(0.7), rel=0.1)


def test_lognormal_sample_beats_the_power_law():
    k = np.rint(np.random.default_rng(2).lognormal(2.0, 0.4, 3000)).astype(int)
    fit = power_law(k)
    assert fit.xmin > 1
    assert by_name(k)["lognormal"].ratio < 1e-6


def test_cut_off_is_found():
    rng = np.random.default_rng(3)
    support = np.arange(1, 2000)
    weight = support**-1.5 * np.exp(-0.05 * support)
    k = rng.choice(support, size=4000, p=weight / weight.sum())
    rows = {row.name: row for row in alternatives(k)}
    assert rows["truncated"].ratio < 0
    assert rows["truncated"].p_value < 0.01


@settings(deadline=None, derandomize=True, max_examples=25)
@given(st.integers(1, 20), st.floats(-1, 3), st.floats(0.2, 2), st.floats(0, 4), st.floats(-6, 0))
def test_probabilities_sum_to_one(xmin, mu, sigma, alpha, log_rate):
    k = np.arange(xmin, xmin + 50_000)
    total = np.exp(lognormal_logs(mu, sigma, k, xmin)).sum()
    assert total == pytest.approx(1, abs=2e-3)
    rate = math.exp(log_rate)
    terms = np.exp(-alpha * np.log(k) - rate * k)
    assert math.exp(cut_off_sum(alpha, rate, xmin)) == pytest.approx(terms.sum(), rel=1e-6)


def test_p_values_by_hand():
    assert vuong_p_value(np.array([1.0, 1.0]), np.array([3, 4])) == 1.0
    assert vuong_p_value(np.array([1.0, -1.0]), np.array([5, 5])) == pytest.approx(1.0)
    assert nested_p_value(0.0) == 1.0
    # chi-square(1) = 3.841 has p = 0.05.
    assert nested_p_value(-3.841458820694124 / 2) == pytest.approx(0.05)


def test_draws_follow_the_fitted_law():
    fit = power_law(np.random.default_rng(0).zipf(2.2, 2000))
    drawn = draw_power_law(fit, 20_000, np.random.default_rng(1))
    assert drawn.min() == fit.xmin
    points = np.array([2, 3, 5, 10, 30])
    expected = fitted_ccdf(fit, points) * fit.n / fit.n_tail
    observed = np.array([(drawn >= k).mean() for k in points])
    assert np.abs(observed - expected).max() < 5 * 0.5 / math.sqrt(20_000)


def test_bootstrap_accepts_power_laws_and_rejects_two_levels():
    rng = np.random.default_rng(4)
    assert bootstrap_p_value(rng.zipf(2.5, 500), samples=30) > 0.1
    k = np.repeat([3, 9], [200, 100])
    assert bootstrap_p_value(k, power_law(k), samples=30) == 0.0
    with pytest.raises(ConfigError, match="samples=0"):
        bootstrap_p_value(k, samples=0)
