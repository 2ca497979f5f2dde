"""Convert: the threshold of least mean squared error, where k(theta) = 1.

The normal model and k are in `topospike.conversion.normal_quantiser`; here is only the search, for
all units at once: a bracketed root in log theta, and two exceptions (units that are never active,
units narrower than a cell). Theory: Zhang et al. (AAAI 2026), Lemmas 4.4-4.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.conversion.normal_quantiser import check_clip, mean_squared_error, scale_factor

SMALLEST_THRESHOLD = 1e-30
"""Threshold of a unit that is never active: positive, and its reciprocal is finite in float32."""

DEAD_PROBABILITY = 1e-12
"""A unit less likely than this to be positive is not solved for."""

BISECTIONS, FALSE_POSITIONS = 12, 12
NARROW_CANDIDATES, NARROW_ITERATIONS = 6, 30
TOLERANCE = 1e-12


def optimal_thresholds(
    mean: Float[Tensor, "*unit"],
    variance: Float[Tensor, "*unit"],
    *,
    quantisation_levels: int,
    clip: tuple[int, int] | None = None,
    maximum: Float[Tensor, "*unit"] | None = None,
) -> Float[Tensor, "*unit"]:
    """Solve k(theta) = 1 for every unit at once: the threshold of least mean squared error.

    Parameters
    ----------
    mean, variance
        Moments per unit.
    quantisation_levels, clip
        As in `scale_factor`.
    maximum
        Largest value observed per unit: the threshold of units that are practically never
        positive (probability below 1e-12 under the normal model).

    Returns
    -------
    Tensor
        Positive, float64, of the shape of ``mean``.

    Notes
    -----
    Solved for x / sigma, so that scaling x scales theta exactly. The logarithm of k is bracketed
    on theta / sigma in [1e-3, 20 + |mean| / sigma]; bisection in log theta closes in, false
    position (Illinois rule) finishes to 1e-12. Where sigma is below the width of a cell k = 1 has
    many roots; see `narrow_thresholds`.

    Examples
    --------
    >>> zero, one = torch.zeros(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)
    >>> round(optimal_thresholds(zero, one, quantisation_levels=128).item(), 4)
    3.9239
    >>> round(optimal_thresholds(zero, 1e-4 * one, quantisation_levels=128).item(), 6)
    0.039239
    """
    low, high = check_clip(quantisation_levels, clip)
    mu, sigma = mean.double().reshape(-1), variance.double().sqrt().reshape(-1)
    if low == 0:
        dead = torch.special.ndtr(mu / sigma) < DEAD_PROBABILITY
        dead |= (sigma == 0) & (mu <= 0)
    else:
        dead = (sigma == 0) & (mu == 0)
    side = torch.where(mu >= 0, mu.new_tensor(high), mu.new_tensor(-low))
    narrow = ~dead & (side > 0) & (sigma * side < mu.abs())
    theta = torch.full_like(mu, SMALLEST_THRESHOLD)
    if maximum is not None:
        theta = torch.maximum(theta, maximum.double().reshape(-1))
    theta[narrow] = narrow_thresholds(
        mu[narrow], sigma[narrow], quantisation_levels=quantisation_levels, clip=(low, high)
    )
    open_ = ~(dead | narrow)
    root = unit_variance_root(
        mu[open_] / sigma[open_], quantisation_levels=quantisation_levels, clip=(low, high)
    )
    theta[open_] = sigma[open_] * root
    return theta.reshape(mean.shape)


def narrow_thresholds(
    mu: Tensor, sigma: Tensor, *, quantisation_levels: int, clip: tuple[int, int]
) -> Tensor:
    """Return the best of a few local optima for units whose sigma is below one cell width.

    k = 1 near theta = |mean| N / j for every integer j: the mean sits on a level. The largest j
    have the finest cells, the next ones leave room above the mean.
    """
    top = torch.where(mu >= 0, mu.new_tensor(clip[1]), mu.new_tensor(-clip[0]))
    best = torch.full_like(mu, torch.inf)
    least = torch.full_like(mu, torch.inf)
    for back in range(NARROW_CANDIDATES):
        theta = quantisation_levels / (top - back).clamp_min(1.0)
        moments = mu.sign(), (sigma / mu).square()
        for _ in range(NARROW_ITERATIONS):
            k = scale_factor(theta, *moments, quantisation_levels=quantisation_levels, clip=clip)
            theta = theta * k
        error = mean_squared_error(
            theta, *moments, quantisation_levels=quantisation_levels, clip=clip
        )
        better = error < least
        best, least = torch.where(better, theta, best), torch.where(better, error, least)
    return mu.abs() * best


def unit_variance_root(ratio: Tensor, *, quantisation_levels: int, clip: tuple[int, int]) -> Tensor:
    """Return the root of k(theta) = 1 for x normal with mean ``ratio`` and variance 1."""
    variance = torch.ones_like(ratio)

    def log_k(log_theta: Tensor) -> Tensor:
        theta = log_theta.exp()
        k = scale_factor(theta, ratio, variance, quantisation_levels=quantisation_levels, clip=clip)
        return k.log()

    left = torch.full_like(ratio, math.log(1e-3))
    right = (20.0 + ratio.abs()).log()
    for _ in range(BISECTIONS):
        middle = 0.5 * (left + right)
        rises = log_k(middle) > 0
        left, right = torch.where(rises, middle, left), torch.where(rises, right, middle)
    return false_position(log_k, left, right).exp()


def false_position(f: Callable[[Tensor], Tensor], left: Tensor, right: Tensor) -> Tensor:
    """Find where f falls through 0 between ``left`` and ``right``, elementwise (Illinois rule)."""
    f_left, f_right = f(left), f(right)
    moved = torch.zeros_like(left)
    for _ in range(FALSE_POSITIONS):
        middle = right - f_right * (right - left) / (f_right - f_left)
        f_middle = f(middle)
        if bool((f_middle.abs() < TOLERANCE).all()):
            return middle
        above = f_middle > 0
        # An end that stays put twice running slows the method down: halve its value.
        f_right = torch.where(above & (moved > 0), 0.5 * f_right, f_right)
        f_left = torch.where(~above & (moved < 0), 0.5 * f_left, f_left)
        left, f_left = torch.where(above, middle, left), torch.where(above, f_middle, f_left)
        right, f_right = torch.where(above, right, middle), torch.where(above, f_right, f_middle)
        moved = torch.where(above, 1.0, -1.0)
    return torch.where(f_left.abs() < f_right.abs(), left, right)
