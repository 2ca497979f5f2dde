"""Thresholds: the reference iteration, the optimum, and the other solvers."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from topospike.errors import ConfigError, ConversionError, ShapeError
from topospike.thresholds.optimal import (
    SMALLEST_THRESHOLD,
    mean_squared_error,
    optimal_thresholds,
    scale_factor,
)
from topospike.thresholds.solvers import (
    check_thresholds,
    decodable_levels,
    given_thresholds,
    iterated_thresholds,
    solve_thresholds,
)
from topospike.thresholds.statistics import observe

ORACLES = Path(__file__).parents[1] / "oracles" / "dcgs"
PROPERTY = settings(deadline=None, derandomize=True, max_examples=25)
MEANS, SIGMAS = st.floats(-5, 6), st.floats(0.01, 30)
LEVELS = st.sampled_from([1, 4, 8, 128, 1024])


@pytest.fixture(scope="module")
def reference():
    with np.load(ORACLES / "thr_iter.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def quantise(x, theta, levels, clip):
    """The quantiser itself, for checks against its closed-form moments."""
    step = theta / levels
    return step * torch.floor(x / step + 0.5).clamp(*clip)


def expectation(f, mean, sigma):
    """Integrate f against the normal density on a fine grid."""
    x = torch.linspace(mean - 10 * sigma, mean + 10 * sigma, 400_001, dtype=torch.float64)
    density = torch.exp(-0.5 * ((x - mean) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    return torch.trapezoid(f(x) * density, x).item()


@pytest.mark.parametrize("levels", [8, 64, 256])
@pytest.mark.parametrize("theta", [0.25, 1.0, 4.0])
@pytest.mark.parametrize(("precision", "least"), [("f32", -3), ("f64", -5)])
def test_single_factor_equals_the_reference(reference, levels, theta, precision, least):
    """1e-4 relative, NaN included, except where 1 - erf of the reference has lost its digits."""
    dtype = torch.float64 if precision == "f64" else torch.float32
    mean, variance = (reference[key].to(dtype) for key in ("mean", "var"))
    expected = reference[f"k1_{precision}_N{levels}_theta{theta}"]
    k = scale_factor(torch.full_like(mean, theta), mean, variance, quantisation_levels=levels)
    usual = mean / variance.sqrt() > least
    torch.testing.assert_close(k[usual], expected[usual], rtol=1e-4, atol=0, equal_nan=True)


@pytest.mark.parametrize("levels", [8, 64, 256])
@pytest.mark.parametrize("precision", ["f32", "f64"])
def test_hundred_iterations_equal_the_reference(reference, levels, precision):
    """Including NaN -> 1; float32 only for mean / sigma > -3."""
    dtype = torch.float64 if precision == "f64" else torch.float32
    mean, variance = (reference[key].to(dtype) for key in ("mean", "var"))
    expected = reference[f"theta100_{precision}_N{levels}"]
    theta = iterated_thresholds(mean, variance, quantisation_levels=levels)
    assert theta.dtype == dtype
    usual = mean / variance.sqrt() > (-3 if precision == "f32" else -torch.inf)
    torch.testing.assert_close(theta[usual], expected[usual], rtol=1e-4, atol=0)
    assert (expected == 1).any()


@pytest.mark.parametrize(
    ("mean", "iterated", "optimum"),
    [
        (-2, 2.1437, 2.6633),
        (-1, 2.6128, 3.2228),
        (0, 3.2114, 3.9239),
        (1, 3.9363, 4.7575),
    ],
)
def test_known_values_at_128_levels(mean, iterated, optimum):
    mu, one = double(mean), double(1)
    assert iterated_thresholds(mu, one, quantisation_levels=128).item() == pytest.approx(
        iterated, abs=1e-4
    )
    assert optimal_thresholds(mu, one, quantisation_levels=128).item() == pytest.approx(
        optimum, abs=1e-4
    )


@pytest.mark.parametrize("clip", [(0, 6), (-6, 6), (-3, 6), (-6, 1)])
@pytest.mark.parametrize("mean", [-1.5, 0.0, 0.7])
def test_closed_forms_equal_numerical_integration(clip, mean):
    theta, sigma, levels = 2.3, 1.2, 6
    moments = double(theta), double(mean), double(sigma**2)

    def f(x):
        return quantise(x, theta, levels, clip)

    def target(x):
        return x.clamp_min(0) if clip[0] == 0 else x

    k = scale_factor(*moments, quantisation_levels=levels, clip=clip).item()
    ratio = expectation(lambda x: f(x) * x, mean, sigma) / expectation(
        lambda x: f(x) ** 2, mean, sigma
    )
    assert k == pytest.approx(ratio, abs=1e-4)
    error = mean_squared_error(*moments, quantisation_levels=levels, clip=clip).item()
    integral = expectation(lambda x: (f(x) - target(x)) ** 2, mean, sigma)
    assert error == pytest.approx(integral, abs=1e-4)


@PROPERTY
@given(ratio=MEANS, sigma=SIGMAS, levels=LEVELS, signed=st.booleans())
def test_p14_the_optimum_is_a_fixed_point_of_least_error(ratio, sigma, levels, signed):
    clip = (-levels, levels) if signed else (0, levels)
    mu, variance = double(ratio * sigma), double(sigma**2)
    options = {"quantisation_levels": levels, "clip": clip}
    theta = optimal_thresholds(mu, variance, **options)
    if abs(ratio) * 1.001 < levels or (ratio <= 0 and not signed):
        k = scale_factor(theta, mu, variance, **options)
        torch.testing.assert_close(k, torch.ones_like(k), rtol=0, atol=1e-9)
    scan = sigma * torch.linspace(0.02, 20, 1500, dtype=torch.float64)
    errors = mean_squared_error(scan, mu.expand_as(scan), variance.expand_as(scan), **options)
    least = mean_squared_error(theta, mu, variance, **options)
    assert least <= errors.min() * (1 + 1e-3) + 1e-12 * variance


@PROPERTY
@given(ratio=MEANS, sigma=SIGMAS, levels=LEVELS)
def test_p14_the_error_never_grows_along_the_iteration(ratio, sigma, levels):
    mu, variance, theta = double(ratio * sigma), double(sigma**2), double(3.0 * sigma)
    errors = []
    for _ in range(12):
        errors.append(mean_squared_error(theta, mu, variance, quantisation_levels=levels).item())
        theta = theta * scale_factor(theta, mu, variance, quantisation_levels=levels)
    assert all(b <= a + 1e-12 * (a + sigma**2) for a, b in pairwise(errors))


@PROPERTY
@given(ratio=st.floats(-9, 40), sigma=st.floats(0.1, 10), scale=st.floats(1e-3, 1e3))
def test_p14_the_optimum_follows_the_scale_of_the_data(ratio, sigma, scale):
    mu, variance = double(ratio * sigma), double(sigma**2)
    one = optimal_thresholds(mu, variance, quantisation_levels=64)
    other = optimal_thresholds(scale * mu, scale**2 * variance, quantisation_levels=64)
    if one != SMALLEST_THRESHOLD:
        torch.testing.assert_close(other, scale * one, rtol=1e-7, atol=0)


def test_units_do_not_influence_each_other():
    mu, variance = torch.linspace(-9, 300, 50).double(), torch.linspace(0, 9, 50).double()
    together = optimal_thresholds(mu, variance, quantisation_levels=32)
    for i in range(50):
        alone = optimal_thresholds(mu[i : i + 1], variance[i : i + 1], quantisation_levels=32)
        torch.testing.assert_close(alone[0], together[i], rtol=1e-9, atol=0)
    assert (together > 0).all()
    assert together.isfinite().all()


def test_units_that_are_hardly_ever_positive_take_their_maximum():
    mu, variance = double(-8, -3, -1, 0), double(1, 0, 0, 0)
    observed = double(0.25, 0.0, -1.0, 0.0)
    theta = optimal_thresholds(mu, variance, quantisation_levels=8, maximum=observed)
    assert theta.tolist() == [0.25, SMALLEST_THRESHOLD, SMALLEST_THRESHOLD, SMALLEST_THRESHOLD]
    # An identity site transmits their negative values as well.
    signed = optimal_thresholds(mu[:3], variance[:3], quantisation_levels=8, clip=(-8, 8))
    assert (signed[1:] == double(3, 1)).all()
    assert signed[0] > 8


def test_a_constant_unit_gets_its_value_and_large_tables_are_split():
    theta = optimal_thresholds(double(0.3, 5.0), double(0, 0), quantisation_levels=128)
    assert theta.tolist() == [0.3, 5.0]
    wide = optimal_thresholds(torch.zeros(3000).double(), torch.ones(3000).double(),
                              quantisation_levels=128)  # fmt: skip
    torch.testing.assert_close(wide, torch.full_like(wide, 3.92388), rtol=1e-5, atol=0)


def seen_at(x, **options):
    return observe(x, site="conv1", **options)


def test_each_solver_reads_its_statistic():
    x = torch.randn(500, 3, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[1.0], [2.0], [4.0]]
    )
    seen = seen_at(x, quantile_level=0.99)
    optimal = solve_thresholds(seen, "optimal", quantisation_levels=128)
    assert optimal.shape == (1, 3, 1)
    torch.testing.assert_close(optimal.flatten(), 3.92 * double(1, 2, 4), rtol=0.1, atol=0)
    iterated = solve_thresholds(seen, quantisation_levels=128)
    assert torch.equal(
        iterated, iterated_thresholds(seen.mean, seen.variance, quantisation_levels=128)
    )
    assert torch.equal(solve_thresholds(seen, "percentile", scale=4.0), 4 * seen.quantile)
    assert torch.equal(solve_thresholds(seen, "max"), seen.maximum)
    signed = solve_thresholds(seen, "optimal", quantisation_levels=128, signed=True)
    k = scale_factor(signed, seen.mean, seen.variance, quantisation_levels=128, clip=(-128, 128))
    torch.testing.assert_close(k, torch.ones_like(k), rtol=0, atol=1e-9)


def test_negative_statistics_are_clamped_to_zero():
    seen = seen_at(torch.tensor([[-3.0, 2.0], [-1.0, 1.0]]), quantile_level=0.5)
    assert solve_thresholds(seen, "percentile").tolist() == [[0.0, 1.5]]
    assert solve_thresholds(seen, "max").tolist() == [[0.0, 2.0]]


def test_solvers_say_what_they_miss():
    seen = seen_at(torch.ones(2, 3))
    with pytest.raises(ConfigError, match=r"conv1: solver 'percentile' needs a quantile"):
        solve_thresholds(seen, "percentile")
    with pytest.raises(ConfigError, match=r"'optimal' needs quantisation_levels"):
        solve_thresholds(seen, "optimal")
    with pytest.raises(ConfigError, match=r"unknown threshold solver 'optimum'.*mean 'optimal'"):
        solve_thresholds(seen, "optimum", quantisation_levels=8)
    with pytest.raises(ConfigError, match=r"conv1: threshold scale is 0"):
        solve_thresholds(seen, "max", scale=0)
    with pytest.raises(ConfigError, match=r"quantisation_levels is 0"):
        solve_thresholds(seen, "optimal", quantisation_levels=0)
    with pytest.raises(ConfigError, match=r"clip is \(1, 8\)"):
        optimal_thresholds(double(0), double(1), quantisation_levels=8, clip=(1, 8))


@pytest.mark.parametrize("solver", ["iterations", "optimal", "percentile", "max"])
@pytest.mark.parametrize("value", [0.0, -2.0])
def test_a_site_that_was_never_active_is_refused(solver, value):
    seen = seen_at(torch.full((4, 3), value), quantile_level=0.999)
    with pytest.raises(ConversionError, match=r"conv1: no unit was ever positive .*4 images"):
        solve_thresholds(seen, solver, quantisation_levels=8)


def test_given_thresholds_are_shaped_and_checked():
    shape = (8, 3, 5, 5)
    assert given_thresholds(2.0, site="a", shape=shape).shape == ()
    assert given_thresholds(torch.ones(3), site="a", shape=shape).shape == (1, 3, 1, 1)
    assert given_thresholds(torch.ones(1, 3, 5, 5), site="a", shape=shape).shape == (1, 3, 5, 5)
    for wrong in (torch.ones(4), torch.ones(8, 3, 5, 5), torch.ones(2, 1, 3, 5, 5)):
        with pytest.raises(ShapeError, match=r"a: thresholds of shape .* do not fit"):
            given_thresholds(wrong, site="a", shape=shape)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ConversionError, match=r"a: 1 of 1 thresholds are unusable"):
            given_thresholds(bad, site="a", shape=shape)


def test_checked_thresholds():
    some_silent = double(0.0, 1.0)
    assert check_thresholds(some_silent, site="a") is some_silent
    with pytest.raises(ConversionError, match=r"a: 1 of 2 .* must be finite and positive"):
        check_thresholds(some_silent, site="a", all_positive=True)
    with pytest.raises(ConversionError, match=r"a: 2 of 2 thresholds are unusable, e\.g\. 0"):
        check_thresholds(double(0.0, 0.0), site="a")
    with pytest.raises(ConversionError, match=r"a: 1 of 2 thresholds are unusable, e\.g\. nan"):
        check_thresholds(double(math.nan, 1.0), site="a")


def test_decodable_levels():
    assert [decodable_levels(8, 4), decodable_levels(64, 8), decodable_levels(16, None)] == [
        128, 16384, 16,
    ]  # fmt: skip
    with pytest.raises(ConfigError, match=r"timesteps is 0; .* at least one step"):
        decodable_levels(0, 4)
