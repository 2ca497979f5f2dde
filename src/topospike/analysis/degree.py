"""Stage analyse: the degree distribution and its power-law exponent gamma.

The fit is the discrete one of Clauset, Shalizi and Newman (2009) on the grid 1.01..10.00, which
is what the network-science literature of Cannistraci's group uses, with the exact Hurwitz zeta
function. Alternatives to the power law are compared in `topospike.analysis.alternatives`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Real

from topospike.errors import ConfigError

EXPONENTS = np.arange(101, 1001) / 100.0
SMALL_SAMPLE = 100
UPPER_BOUND = 9.99


@dataclass(frozen=True, slots=True)
class PowerLawFit:
    """A discrete power law P(k) = k^-alpha / zeta(alpha, xmin) fitted to the degrees >= xmin.

    Attributes
    ----------
    gamma
        The exponent: ``alpha``, corrected for small samples below 100 degrees.
    xmin
        Smallest degree of the fitted tail.
    n_tail, n
        Degrees in the tail, and all (non-zero) degrees.
    ks
        Kolmogorov-Smirnov distance of tail and fit.
    sigma
        Standard error of gamma, from the Fisher information of the discrete law.
    at_bound
        True when the likelihood still rises at the upper end of the grid: then gamma only says
        "about 10 or more", as random graphs do.
    alpha
        Grid exponent before the small-sample correction.
    loglik
        Log-likelihood of the tail at ``alpha``, its maximum on the grid.
    """

    gamma: float
    xmin: int
    n_tail: int
    ks: float
    sigma: float
    at_bound: bool
    alpha: float
    loglik: float
    n: int


def power_law(degrees: Int[np.ndarray, " node"]) -> PowerLawFit:
    """Fit gamma and xmin to a sample of degrees.

    Parameters
    ----------
    degrees : int, shape (node,)
        Degrees; zeros (isolated nodes) are left out.

    Returns
    -------
    PowerLawFit

    Raises
    ------
    ConfigError
        If a degree is negative or not an integer, or if fewer than two distinct non-zero degrees
        are present: a single value has no tail to fit.

    Notes
    -----
    For every candidate xmin (each distinct degree but the largest) alpha maximises
    -alpha sum ln k - n ln zeta(alpha, xmin) over the grid 1.01, 1.02, ..., 10.00 (first maximum);
    the xmin with the smallest KS distance wins (first minimum). With fewer than 100 degrees,
    gamma = alpha (n - 1) / n + 1 / n with n the size of the tail. Ours evaluates the Hurwitz zeta
    function directly; the reference subtracts partial sums from the Riemann zeta function, which
    cancels for large alpha and xmin and makes its values near 10 uncertain.

    References
    ----------
    .. [1] A. Clauset, C. R. Shalizi, M. E. J. Newman, "Power-law distributions in empirical
       data", SIAM Review 51 (2009), equations 3.5, 3.9 and appendix B.

    Examples
    --------
    >>> import numpy as np
    >>> fit = power_law(np.repeat([1, 2, 3, 4, 8], [53, 2, 3, 1, 1]))
    >>> round(fit.alpha, 2), fit.xmin, fit.n_tail, fit.at_bound
    (3.19, 1, 60, False)
    """
    values, counts = distinct_degrees(degrees)
    if len(values) < 2:
        what = f"all {counts.sum()} degrees equal {values[0]}" if len(values) else "no link at all"
        raise ConfigError(
            f"a power law cannot be fitted: {what}. At least two distinct degrees are required; "
            "a regular graph has no degree distribution to speak of."
        )
    best: tuple[float, float, int, float] | None = None
    for start in range(len(values) - 1):
        alpha, loglik, ks = fit_tail(values[start:], counts[start:])
        if best is None or ks < best[0]:
            best = (ks, alpha, start, loglik)
    assert best is not None
    ks, alpha, start, loglik = best
    n, n_tail, xmin = int(counts.sum()), int(counts[start:].sum()), int(values[start])
    gamma = alpha
    if n < SMALL_SAMPLE:
        gamma = alpha * (n_tail - 1) / n_tail + 1 / n_tail
    sigma = standard_error(gamma, xmin, n_tail)
    return PowerLawFit(
        gamma, xmin, n_tail, ks, sigma, alpha >= UPPER_BOUND - 1e-9, alpha, loglik, n
    )


def standard_error(gamma: float, xmin: int, n_tail: int) -> float:
    r"""Return the standard error of the exponent of a discrete power law.

    Notes
    -----
    :math:`1 / \sqrt{n I}` with the information of one degree, :math:`I = (\ln \zeta)''(\gamma,
    x_{min})`, the variance of ln k (Clauset, Shalizi and Newman 2009, equation 3.6). The continuous
    :math:`(\gamma - 1) / \sqrt{n}` is a quarter too small at xmin = 1 and gamma = 3.5.

    Examples
    --------
    >>> round(standard_error(3.5, 1, 2000), 4), round(standard_error(2.5, 1, 2000), 4)
    (0.0726, 0.0378)
    """
    from scipy.special import zeta

    step = min(1e-3, (gamma - 1) / 4)
    below, at, above = np.log(zeta(gamma + step * np.array([-1.0, 0.0, 1.0]), xmin))
    return float(step / math.sqrt(n_tail * (above - 2 * at + below)))


def distinct_degrees(
    degrees: Int[np.ndarray, " node"],
) -> tuple[Int[np.ndarray, " value"], Int[np.ndarray, " value"]]:
    """Return the distinct non-zero degrees, rising, and how often each occurs."""
    array = np.asarray(degrees).ravel()
    if array.size and not (np.isfinite(array).all() and (array == np.floor(array)).all()):
        raise ConfigError("degrees must be whole numbers; a non-integer or non-finite was given.")
    if array.size and array.min() < 0:
        raise ConfigError(f"a degree of {array.min()} was given; degrees are counts, 0 or more.")
    values, counts = np.unique(array[array > 0].astype(np.int64), return_counts=True)
    return values, counts.astype(np.int64)


def fit_tail(
    values: Int[np.ndarray, " value"], counts: Int[np.ndarray, " value"]
) -> tuple[float, float, float]:
    """Return (alpha, log-likelihood, KS distance) of the tail that starts at ``values[0]``."""
    from scipy.special import zeta

    xmin, total = int(values[0]), counts.sum()
    log_norm = np.log(zeta(EXPONENTS, xmin))
    likelihood = -EXPONENTS * (counts @ np.log(values)) - total * log_norm
    best = int(np.argmax(likelihood))
    alpha = float(EXPONENTS[best])
    ks = ks_distance(alpha, values, counts)
    return alpha, float(likelihood[best]), ks


def ks_distance(
    alpha: float, values: Int[np.ndarray, " value"], counts: Int[np.ndarray, " value"]
) -> float:
    """Largest distance of the fitted and the observed CDF over all degrees >= ``values[0]``.

    Between two observed degrees the observed CDF is flat and the fitted one rises, so the maximum
    lies at an observed degree or just below the next one.
    """
    from scipy.special import zeta

    norm = zeta(alpha, int(values[0]))
    observed = np.cumsum(counts) / counts.sum()
    at = 1 - zeta(alpha, values + 1.0) / norm
    below_next = 1 - zeta(alpha, values[1:].astype(np.float64)) / norm
    gaps = np.concatenate([np.abs(at - observed), np.abs(below_next - observed[:-1])])
    return float(gaps.max())


def fitted_ccdf(
    fit: PowerLawFit, degrees: Int[np.ndarray, " point"]
) -> Float[np.ndarray, " point"]:
    """P(K >= k) of the fit at the given degrees >= xmin, scaled to the tail's share of nodes."""
    from scipy.special import zeta

    return fit.n_tail / fit.n * zeta(fit.gamma, degrees) / zeta(fit.gamma, fit.xmin)


def ccdf(
    degrees: Int[np.ndarray, " node"],
) -> tuple[Int[np.ndarray, " value"], Float[np.ndarray, " value"]]:
    """Return the distinct non-zero degrees k and the share of nodes with degree >= k.

    Examples
    --------
    >>> import numpy as np
    >>> ccdf(np.array([1, 1, 2, 4]))
    (array([1, 2, 4]), array([1.  , 0.5 , 0.25]))
    """
    values, counts = distinct_degrees(degrees)
    below = np.cumsum(counts) - counts
    return values, 1.0 - below / max(int(counts.sum()), 1)


def gini(degrees: Real[np.ndarray, " node"]) -> float:
    """Gini coefficient sum_ij |k_i - k_j| / (2 n^2 mean k); 0 for equal or no degrees.

    Examples
    --------
    >>> import numpy as np
    >>> gini(np.array([0, 0, 0, 4]))
    0.75
    """
    k = np.sort(np.asarray(degrees, dtype=np.float64))
    total = k.sum()
    if total == 0:
        return 0.0
    n = len(k)
    return max(0.0, float((2 * np.arange(1, n + 1) - n - 1) @ k / (n * total)))


def hub_share(degrees: Real[np.ndarray, " node"], fraction: float = 0.1) -> float:
    """Share of all links held by the ``ceil(fraction n)`` largest degrees; 0 without links."""
    k = np.sort(np.asarray(degrees))[::-1]
    total = int(k.sum())
    return float(k[: math.ceil(round(fraction * len(k), 9))].sum() / total) if total else 0.0


def heterogeneity(degrees: Real[np.ndarray, " node"]) -> float:
    """Kappa = <k^2> / <k>^2; 1 for equal degrees, 0 without links."""
    k = np.asarray(degrees, dtype=np.float64)
    return float((k**2).mean() / k.mean() ** 2) if k.size and k.any() else 0.0


@dataclass(frozen=True, slots=True)
class DegreeStatistics:
    """How the degrees of one layer are spread; over its active nodes, except ``nodes``."""

    layer: int
    nodes: int
    active: int
    mean: float
    maximum: int
    gini: float
    hub_share: float
    kappa: float
    gamma: float | None
    xmin: int | None
    n_tail: int | None
    at_bound: bool | None


def degree_statistics(degrees: Int[np.ndarray, " node"], *, layer: int = 0) -> DegreeStatistics:
    """Describe the degrees of one layer; gamma is None where fewer than two distinct degrees are.

    Examples
    --------
    >>> import numpy as np
    >>> row = degree_statistics(np.array([0, 1, 1, 2]))
    >>> row.active, round(row.gini, 3), row.maximum
    (3, 0.167, 2)
    """
    degrees = np.asarray(degrees)
    active = degrees[degrees > 0]
    fit = power_law(active) if len(np.unique(active)) > 1 else None
    return DegreeStatistics(
        layer=layer,
        nodes=len(degrees),
        active=len(active),
        mean=float(active.mean()) if active.size else 0.0,
        maximum=int(active.max()) if active.size else 0,
        gini=gini(active),
        hub_share=hub_share(active),
        kappa=heterogeneity(active),
        gamma=fit.gamma if fit else None,
        xmin=fit.xmin if fit else None,
        n_tail=fit.n_tail if fit else None,
        at_bound=fit.at_bound if fit else None,
    )
