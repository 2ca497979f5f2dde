"""From the statistics of a site to its base threshold theta.

Threshold iteration models the pre-activation of a unit as normal and looks for the theta whose
N-step quantiser has the least mean squared error; it is optimal where k(theta) = 1
(`topospike.thresholds.optimal`, whose `optimal_thresholds` finds the root). The other
solver, `iterated_thresholds`, repeats theta <- k(theta) theta a fixed number of times from 1, as
the reference code. Percentile and maximum are the two classical alternatives.

Source: Huang et al. (ICML 2025); theory in Zhang et al. (AAAI 2026), Lemmas 4.4-4.7. No activation
is touched here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.errors import ConfigError, ConversionError, ShapeError
from topospike.registry import Registry
from topospike.thresholds.optimal import optimal_thresholds, scale_factor
from topospike.thresholds.statistics import SiteStatistics


def decodable_levels(timesteps: int, levels: int | None) -> int:
    """Return N, the number of positive values a site can decode to after a run.

    Parameters
    ----------
    timesteps
        Run length T, at least 1.
    levels
        Positive thresholds n of a multi-threshold neuron; ``None`` for single-threshold neurons.

    Notes
    -----
    T 2^n, or T for a single-threshold neuron (Huang et al., ICML 2025, reference code).

    Examples
    --------
    >>> decodable_levels(8, 4), decodable_levels(8, None)
    (128, 8)
    """
    if timesteps < 1:
        raise ConfigError(f"timesteps is {timesteps}; thresholds need a run of at least one step.")
    return timesteps if levels is None else timesteps * 2**levels


def iterated_thresholds(
    mean: Float[Tensor, "*unit"],
    variance: Float[Tensor, "*unit"],
    *,
    quantisation_levels: int,
    clip: tuple[int, int] | None = None,
    iterations: int = 100,
    initial: float = 1.0,
) -> Float[Tensor, "*unit"]:
    """Repeat theta <- k(theta) theta a fixed number of times: the reference behaviour.

    Parameters
    ----------
    mean, variance
        Moments per unit; their dtype is that of the arithmetic.
    quantisation_levels, clip
        As in `scale_factor`.
    iterations, initial
        Number of repetitions and the value to start from.

    Notes
    -----
    For N above about 16 a hundred iterations do not converge (theta is 18 % below the optimum at
    mean 0, N = 128), and where they stop depends on the scale of x. A unit whose probability of
    being active is lost in rounding (mean / sigma below about -8 in float64, -5 in float32), or
    that ends in NaN, gets threshold 1, as in the reference code.

    Examples
    --------
    >>> zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    >>> round(iterated_thresholds(zero, one, quantisation_levels=128).item(), 4)
    3.2114
    """
    theta = torch.full_like(mean, initial)
    for _ in range(iterations):
        theta = theta * scale_factor(
            theta, mean, variance, quantisation_levels=quantisation_levels, clip=clip
        )
    # The reference computes 1 - erf, which is 0 (and k NaN) for these units.
    rounded_away = torch.special.erfc(-mean / (2.0 * variance).sqrt())
    silent = theta.isnan() | (rounded_away < 0.5 * torch.finfo(mean.dtype).eps)
    return theta.masked_fill_(silent, 1.0)


def solve_thresholds(
    statistics: SiteStatistics,
    solver: str = "iterations",
    *,
    quantisation_levels: int | None = None,
    signed: bool = False,
    scale: float = 1.0,
    floor: float = 0.0,
) -> Float[Tensor, "*unit"]:
    """Turn the statistics of one site into its thresholds.

    Parameters
    ----------
    statistics
        What calibration saw at the site.
    solver
        ``iterations`` or ``optimal`` (mean and variance), ``percentile`` (the quantile) or
        ``max`` (the largest value seen).
    quantisation_levels
        N of the first two solvers; see `decodable_levels`. Fix it to keep thresholds, hence the
        course over t, independent of the length of the run.
    signed
        ``True`` at an identity site: the model quantiser takes both signs.
    scale
        Factor on the result (4 is usual for transformers with 8 levels).
    floor
        Least threshold of a unit, as a share of the largest of the site.

    Returns
    -------
    Tensor
        Float64, finite, >= 0, some unit > 0, broadcastable against the activation.

    Raises
    ------
    ConfigError
        Unknown solver, or an input the solver needs is missing.
    ConversionError
        No unit got a positive threshold, or no unit was ever active in calibration.

    Notes
    -----
    Differs from the reference code, which reads its scale from nowhere (a literal 8 for
    transformers), and whose maximum is the mean of the batch maxima: that is ``percentile`` with a
    quantile level of 1.

    Examples
    --------
    >>> from topospike.thresholds.statistics import observe
    >>> x = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    >>> seen = observe(x, site="fc1", granularity="layer")
    >>> round(solve_thresholds(seen, "optimal", quantisation_levels=128).item(), 1)
    3.9
    """
    if not scale > 0.0 or math.isinf(scale):
        raise ConfigError(f"{statistics.site}: threshold scale is {scale}; it must be positive.")
    if not signed and not bool((statistics.maximum > 0).any()):
        raise ConversionError(
            f"{statistics.site}: no unit was ever positive in calibration "
            f"({statistics.images} images, largest value {statistics.maximum.max().item():.3g}); "
            "give calibration batches like the training data, and check the weights before this "
            "site."
        )
    solve, grid = SOLVERS[solver], {}
    if solver in ("iterations", "optimal"):
        if quantisation_levels is None:
            raise ConfigError(
                f"{statistics.site}: solver {solver!r} needs quantisation_levels; use "
                "decodable_levels(timesteps, levels)."
            )
        clip = (-quantisation_levels, quantisation_levels) if signed else None
        grid = {"quantisation_levels": quantisation_levels, "clip": clip}
    elif solver == "percentile" and statistics.quantile is None:
        raise ConfigError(
            f"{statistics.site}: solver 'percentile' needs a quantile; collect the statistics with "
            "quantile_level, e.g. 0.999."
        )
    theta = solve(statistics, **grid) * scale
    return check_thresholds(theta.clamp_min(floor * theta.max()), site=statistics.site)


SOLVERS: Registry[Callable[..., Tensor]] = Registry(
    "threshold solver",
    {
        "iterations": lambda seen, **grid: iterated_thresholds(seen.mean, seen.variance, **grid),
        "optimal": lambda seen, **grid: optimal_thresholds(
            seen.mean, seen.variance, maximum=seen.maximum, **grid
        ),
        "percentile": lambda seen: seen.quantile.clamp_min(0.0),
        "max": lambda seen: seen.maximum.clamp_min(0.0),
    },
)
"""The threshold solvers by their names in settings."""


def given_thresholds(
    theta: float | Float[Tensor, ...], *, site: str, shape: Sequence[int | torch.SymInt]
) -> Float[Tensor, ...]:
    """Check thresholds the user supplies for one site.

    Parameters
    ----------
    theta
        One number, one value per channel (axis 1), or anything broadcastable to ``shape``.
    site
        Name of the site.
    shape
        Shape of the activation, batch first.

    Raises
    ------
    ShapeError
        If ``theta`` fits neither way.
    ConversionError
        If a value is not finite or not positive.

    Examples
    --------
    >>> given_thresholds(torch.tensor([1.0, 2.0]), site="conv1", shape=(8, 2, 4, 4)).shape
    torch.Size([1, 2, 1, 1])
    """
    value = torch.as_tensor(theta)
    value = value if value.is_floating_point() else value.double()
    if value.ndim == 1 and len(shape) > 1 and len(value) == shape[1]:
        value = value.reshape(1, -1, *(1 for _ in shape[2:]))
    try:
        fits = torch.broadcast_shapes(value.shape, (1, *shape[1:])) == (1, *shape[1:])
    except RuntimeError:
        fits = False
    if not fits:
        raise ShapeError(
            f"{site}: thresholds of shape {tuple(value.shape)} do not fit an activation of shape "
            f"(batch, {', '.join(map(str, shape[1:]))}); give one number, or one per channel "
            f"({shape[1:2]})."
        )
    return check_thresholds(value, site=site, all_positive=True)


def check_thresholds(
    theta: Float[Tensor, "*unit"], *, site: str, all_positive: bool = False
) -> Float[Tensor, "*unit"]:
    """Return ``theta`` if it can be used, else raise `ConversionError` naming the site.

    Parameters
    ----------
    theta
        Thresholds of one site.
    site
        Name of the site.
    all_positive
        ``True`` refuses any threshold <= 0 (a single-threshold neuron would fire at every step);
        ``False`` accepts zeros and clamped units (they never emit) as long as one is positive.
    """
    finite, positive = theta.isfinite(), theta > 0
    good = finite & positive if all_positive else finite & (theta >= 0)
    if bool(good.all()) and bool(positive.any()):
        return theta
    bad = theta[~good] if not bool(good.all()) else theta.reshape(-1)
    raise ConversionError(
        f"{site}: {bad.numel()} of {theta.numel()} thresholds are unusable, e.g. "
        f"{bad[0].item():.4g}; every one must be finite and "
        f"{'positive' if all_positive else 'not negative, and one positive'}. Check the "
        "calibration data, or use another threshold solver or granularity."
    )
