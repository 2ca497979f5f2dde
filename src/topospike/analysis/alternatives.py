"""Stage analyse: how believable the power law is, and whether another law fits better.

The exponent alone proves nothing: a fit always returns one. Here a bootstrap p-value says whether
the degrees could come from the fitted power law, and likelihood ratios compare it with a lognormal,
an exponential, and a power law with exponential cut-off on the same tail.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.degree import PowerLawFit, distinct_degrees, power_law
from topospike.errors import ConfigError

LARGEST_DEGREE = 2**40
SUMMED_TERMS = 2000


@dataclass(frozen=True, slots=True)
class Alternative:
    """One rival of the power law on the same tail.

    Attributes
    ----------
    name
        ``lognormal``, ``exponential`` or ``truncated`` (power law with exponential cut-off).
    parameters
        (mu, sigma), (lambda,) or (alpha, lambda).
    loglik
        Log-likelihood of the tail.
    ratio
        Log-likelihood of the power law minus this one: positive favours the power law.
    p_value
        Vuong's two-sided p for ``ratio`` (not nested), or the chi-square p for the truncated law,
        which contains the power law. A small p says that the sign of ``ratio`` can be trusted.
    """

    name: str
    parameters: tuple[float, ...]
    loglik: float
    ratio: float
    p_value: float


Values = Int[np.ndarray, " value"]
Logs = Float[np.ndarray, " value"]


def alternatives(
    degrees: Int[np.ndarray, " node"], fit: PowerLawFit | None = None
) -> tuple[Alternative, ...]:
    """Compare the power law with a lognormal, an exponential and a truncated power law.

    Parameters
    ----------
    degrees : int, shape (node,)
        Degrees; zeros are left out.
    fit
        Their power-law fit; None fits it.

    Notes
    -----
    All laws are discrete and live on k >= xmin: the lognormal and the exponential are the integrals
    of their continuous forms over [k - 1/2, k + 1/2] and [k, k + 1], the truncated law is
    proportional to k^-alpha e^(-lambda k). With few degrees in the tail no comparison is
    conclusive, whatever the p.

    References
    ----------
    .. [1] A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in empirical
       data", SIAM Review 51 (2009), section 5 and appendix C.

    Examples
    --------
    >>> import numpy as np
    >>> exponential = np.random.default_rng(0).geometric(0.3, 3000)
    >>> {a.name: a.ratio < 0 for a in alternatives(exponential)}["exponential"]
    True
    """
    fit = power_law(degrees) if fit is None else fit
    values, counts = distinct_degrees(degrees)
    values, counts = values[values >= fit.xmin], counts[values >= fit.xmin]
    own = power_law_logs(fit.alpha, values, fit.xmin)
    rows = []
    for name, best in (
        ("lognormal", best_lognormal),
        ("exponential", best_exponential),
        ("truncated", best_truncated),
    ):
        parameters, logs = best(values, counts, fit)
        ratio = float(counts @ (own - logs))
        if name == "truncated":
            ratio = min(ratio, 0.0)
            p_value = nested_p_value(ratio)
        else:
            p_value = vuong_p_value(own - logs, counts)
        rows.append(Alternative(name, parameters, float(counts @ logs), ratio, p_value))
    return tuple(rows)


def power_law_logs(alpha: float, values: Values, xmin: int) -> Logs:
    """Log-probability of each degree under the power law."""
    from scipy.special import zeta

    return -alpha * np.log(values) - math.log(float(zeta(alpha, xmin)))


def vuong_p_value(difference: Logs, counts: Values) -> float:
    """Two-sided p that the mean log-likelihood difference is zero; 1 where it does not vary."""
    n = counts.sum()
    mean = counts @ difference / n
    variance = counts @ (difference - mean) ** 2 / n
    if variance <= 1e-300:
        return 1.0
    return math.erfc(abs(mean) * math.sqrt(n) / math.sqrt(2 * variance))


def nested_p_value(ratio: float) -> float:
    """Chi-square (one degree of freedom) p of a log-likelihood gain by one more parameter."""
    return math.erfc(math.sqrt(max(-ratio, 0.0)))


def best_exponential(
    values: Values, counts: Values, fit: PowerLawFit
) -> tuple[tuple[float, ...], Logs]:
    """Maximum-likelihood exponential: lambda = ln(1 + 1 / (mean k - xmin))."""
    rate = math.log1p(1 / (counts @ values / counts.sum() - fit.xmin))
    return (rate,), math.log(-math.expm1(-rate)) - rate * (values - fit.xmin)


def best_lognormal(
    values: Values, counts: Values, fit: PowerLawFit
) -> tuple[tuple[float, ...], Logs]:
    """Maximum-likelihood discretised lognormal."""
    logs = np.log(values)
    start = (counts @ logs / counts.sum(), 0.0)

    def probabilities(parameters: np.ndarray) -> Logs:
        return lognormal_logs(parameters[0], math.exp(parameters[1]), values, fit.xmin)

    best = minimise(probabilities, counts, start, ((-30.0, 30.0), (-5.0, 4.0)))
    return (float(best[0]), math.exp(best[1])), probabilities(best)


def lognormal_logs(mu: float, sigma: float, values: Values, xmin: int) -> Logs:
    """Log-probability of k: the lognormal mass on [k - 1/2, k + 1/2] given k >= xmin."""
    from scipy.special import log_ndtr

    upper = log_ndtr(-(np.log(values - 0.5) - mu) / sigma)
    lower = log_ndtr(-(np.log(values + 0.5) - mu) / sigma)
    tail = float(log_ndtr(-(math.log(xmin - 0.5) - mu) / sigma))
    share = -np.expm1(np.minimum(lower - upper, 0.0))
    return upper + np.log(np.maximum(share, 1e-300)) - tail


def best_truncated(
    values: Values, counts: Values, fit: PowerLawFit
) -> tuple[tuple[float, ...], Logs]:
    """Maximum-likelihood power law with exponential cut-off."""

    def probabilities(parameters: np.ndarray) -> Logs:
        alpha, rate = float(parameters[0]), math.exp(parameters[1])
        norm = cut_off_sum(alpha, rate, fit.xmin)
        return -alpha * np.log(values) - rate * values - norm

    start = (min(fit.alpha, 9.0), -7.0)
    best = minimise(probabilities, counts, start, ((0.0, 12.0), (-14.0, 3.0)))
    return (float(best[0]), math.exp(best[1])), probabilities(best)


def cut_off_sum(alpha: float, rate: float, xmin: int) -> float:
    """Log of sum over k >= xmin of k^-alpha e^(-rate k).

    The first terms are added, the rest is the integral from half a step before the next one.
    """
    from scipy.integrate import quad

    first = np.arange(xmin, xmin + SUMMED_TERMS)
    terms = np.exp(-alpha * np.log(first / xmin) - rate * (first - xmin))
    edge = xmin + SUMMED_TERMS - 0.5
    end = math.log1p(750 / (rate * edge))
    rest = quad(cut_off_term, 0.0, end, (alpha, rate, xmin, edge), limit=200)[0]
    return math.log(float(terms.sum()) + rest) - alpha * math.log(xmin) - rate * xmin


def cut_off_term(x: float, alpha: float, rate: float, xmin: int, edge: float) -> float:
    """Return what is summed at k = edge e^x, relative to that at xmin, times dk/dx."""
    k = edge * math.exp(x)
    return k * math.exp(-alpha * math.log(k / xmin) - rate * (k - xmin))


def minimise(
    probabilities: Callable[[np.ndarray], Logs],
    counts: Values,
    start: tuple[float, float],
    bounds: tuple[tuple[float, float], tuple[float, float]],
) -> np.ndarray:
    """Parameters within bounds that maximise the likelihood (simplex search)."""
    from scipy.optimize import minimize

    found = minimize(
        lambda parameters: -float(counts @ probabilities(parameters)),
        np.array(start),
        method="Nelder-Mead",
        bounds=bounds,
        options={"xatol": 1e-6, "fatol": 1e-8, "maxiter": 2000},
    )
    return found.x


def bootstrap_p_value(
    degrees: Int[np.ndarray, " node"],
    fit: PowerLawFit | None = None,
    *,
    samples: int = 100,
    seed: int = 0,
) -> float:
    """Share of synthetic samples that fit a power law worse than the degrees do.

    Parameters
    ----------
    degrees : int, shape (node,)
        Degrees; zeros are left out.
    fit
        Their power-law fit; None fits it.
    samples
        Synthetic samples; the p-value is good to about 1 / (2 sqrt(samples)).
    seed
        Seed of the samples.

    Returns
    -------
    float
        Below 0.1 the power law is implausible (Clauset's rule). It cannot be confirmed by a large
        value, least of all with few degrees in the tail.

    Raises
    ------
    ConfigError
        If ``samples`` is below 1.

    Notes
    -----
    Semiparametric: each degree is drawn from the observed ones below xmin with probability
    1 - n_tail / n, else from the fitted law; every sample is fitted anew, xmin included.

    References
    ----------
    .. [1] A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in empirical
       data", SIAM Review 51 (2009), section 4.

    Examples
    --------
    >>> import numpy as np
    >>> bootstrap_p_value(np.random.default_rng(0).zipf(2.5, 300), samples=20) > 0.1
    True
    """
    if samples < 1:
        raise ConfigError(f"samples={samples} was given; at least one is required.")
    fit = power_law(degrees) if fit is None else fit
    k = np.asarray(degrees)
    body = k[(k > 0) & (k < fit.xmin)]
    rng = np.random.default_rng(seed)
    worse = 0
    for _ in range(samples):
        n_tail = rng.binomial(fit.n, fit.n_tail / fit.n)
        below = rng.choice(body, size=fit.n - n_tail) if len(body) else body
        sample = np.concatenate([below, draw_power_law(fit, n_tail, rng)])
        if len(np.unique(sample)) > 1:
            worse += power_law(sample).ks >= fit.ks
    return worse / samples


def draw_power_law(
    fit: PowerLawFit, size: int, generator: np.random.Generator
) -> Int[np.ndarray, " draw"]:
    """Draw degrees from the fitted law by inverting its exact CCDF; capped at 2^40."""
    from scipy.special import zeta

    # The largest k with P(K >= k) >= u, bracketed by doubling and bisected.
    u = 1 - generator.random(size)
    norm = zeta(fit.gamma, fit.xmin)
    low = np.full(size, fit.xmin, dtype=np.int64)
    step = np.ones(size, dtype=np.int64)
    growing = np.ones(size, dtype=bool)
    while growing.any():
        reach = low + step
        growing &= (zeta(fit.gamma, reach.astype(np.float64)) / norm >= u) & (
            reach < LARGEST_DEGREE
        )
        low, step = np.where(growing, reach, low), np.where(growing, 2 * step, step)
    high = low + step
    while (high - low > 1).any():
        middle = (low + high) // 2
        inside = zeta(fit.gamma, middle.astype(np.float64)) / norm >= u
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return low
