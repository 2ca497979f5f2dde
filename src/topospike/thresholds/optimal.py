"""The threshold of least mean squared error, for a normal variable through an N-step quantiser.

The decoded value of a site is, at best, its input x rounded to a grid and clipped::

    f(x; theta) = (theta / N) clip(floor(N x / theta + 1/2), a, b)

For x normal, E[f x] and E[f^2] are sums over the cell edges. They give the best rescaling of the
output for given cells, k(theta) = E[f x] / E[f^2], and the mean squared error, which is least
where k(theta) = 1. [a, b] is [0, N] at a ReLU site (then E[f x] = E[f max(x, 0)]) and [-N, N] at an
identity site. The search is for all units at once: a bracketed root in log theta, and two
exceptions (units that are never active, units narrower than a cell).

Theory: Zhang et al. (AAAI 2026), Lemmas 4.4-4.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.errors import ConfigError

CHUNK_ELEMENTS = 1 << 16
"""Largest [units, N] table held at once: 512 KiB in float64, within a core's cache."""
SMALLEST_THRESHOLD = 1e-30
"""Threshold of a unit that is never active: positive, and its reciprocal is finite in float32."""

DEAD_PROBABILITY = 1e-12
"""A unit less likely than this to be positive is not solved for."""

BISECTIONS, FALSE_POSITIONS = 12, 12
NARROW_CANDIDATES, NARROW_ITERATIONS = 6, 30
TOLERANCE = 1e-12


def scale_factor(
    theta: Float[Tensor, "*unit"],
    mean: Float[Tensor, "*unit"],
    variance: Float[Tensor, "*unit"],
    *,
    quantisation_levels: int,
    clip: tuple[int, int] | None = None,
) -> Float[Tensor, "*unit"]:
    """Return k(theta), the best rescaling of the quantiser's output for its cells.

    Parameters
    ----------
    theta, mean, variance
        Threshold and moments per unit, all of one shape and dtype.
    quantisation_levels
        N, the quantiser's steps between 0 and theta.
    clip
        (a, b), the clip range in steps, a <= 0 <= b; ``None`` means (0, N), a ReLU site.

    Returns
    -------
    Tensor
        k per unit; NaN where the unit is never active (0 / 0).

    Notes
    -----
    With c_j = (2j - 1) theta / (2N), z_j = (c_j - mean) / (sqrt(2) sigma), Q_j = erfc(z_j) and
    G_j = exp(-z_j^2), for the positive half::

        k = (mean sum Q_j + sigma sqrt(2/pi) sum G_j) / ((theta/N) sum (2j - 1) Q_j)

    and the negative half adds the same sums for -x. Written with erfc instead of 1 - erf, which
    keeps the digits of rarely active units; the reference code loses them below mean / sigma of
    about -5 (float32) or -8 (float64).

    Examples
    --------
    >>> one = torch.ones(1, dtype=torch.float64)
    >>> k = scale_factor(3.923886 * one, 0 * one, one, quantisation_levels=128)
    >>> bool((k - 1).abs() < 1e-6)
    True
    """
    overlap, energy = quantiser_moments(
        theta, mean, variance, quantisation_levels=quantisation_levels, clip=clip
    )
    return overlap / (theta / quantisation_levels * energy)


def mean_squared_error(
    theta: Float[Tensor, "*unit"],
    mean: Float[Tensor, "*unit"],
    variance: Float[Tensor, "*unit"],
    *,
    quantisation_levels: int,
    clip: tuple[int, int] | None = None,
) -> Float[Tensor, "*unit"]:
    """Return E[(f(x; theta) - target)^2] in closed form, x normal.

    The target is max(x, 0) for clip (0, N) and x otherwise. Parameters as in `scale_factor`.

    Notes
    -----
    E[f^2] - 2 E[f x] + E[target^2], where E[max(x, 0)^2] = (mean^2 + sigma^2) Phi(r) +
    mean sigma phi(r) with r = mean / sigma.

    Examples
    --------
    With one step and x normal around 0, theta = 0 leaves the whole second moment, 1/2.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(mean_squared_error(1e-9 * one, 0 * one, one, quantisation_levels=1).item(), 6)
    0.5
    """
    overlap, energy = quantiser_moments(
        theta, mean, variance, quantisation_levels=quantisation_levels, clip=clip
    )
    step = theta / quantisation_levels
    second = mean.square() + variance
    if clip is None or clip[0] == 0:
        sigma = variance.sqrt()
        ratio = mean / sigma
        density = torch.exp(-0.5 * ratio.square()) / math.sqrt(2.0 * math.pi)
        second = second * torch.special.ndtr(ratio) + mean * sigma * density
    return 0.5 * step * (step * energy - 2.0 * overlap) + second


def quantiser_moments(
    theta: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    quantisation_levels: int,
    clip: tuple[int, int] | None,
) -> tuple[Tensor, Tensor]:
    """Return E[f x] in units of theta / 2N, and E[f^2] in units of (theta / N)^2 / 2."""
    low, high = check_clip(quantisation_levels, clip)
    flat = theta.reshape(-1), mean.reshape(-1), variance.sqrt().reshape(-1)
    rows = max(1, CHUNK_ELEMENTS // max(high, -low, 1))
    overlaps, energies = [], []
    for t, m, s in zip(*(part.split(rows) for part in flat), strict=True):
        overlap, energy = one_sided_moments(t / quantisation_levels, m, s, high)
        if low < 0:
            mirrored = one_sided_moments(t / quantisation_levels, -m, s, -low)
            overlap, energy = overlap + mirrored[0], energy + mirrored[1]
        overlaps.append(overlap)
        energies.append(energy)
    return torch.cat(overlaps).reshape(theta.shape), torch.cat(energies).reshape(theta.shape)


def one_sided_moments(
    step: Tensor, mean: Tensor, sigma: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """Sum over the cell edges (j - 1/2) step, j = 1..count, of the positive half."""
    odd = torch.arange(1, 2 * count, 2, dtype=step.dtype, device=step.device)
    z = (step[:, None] * (0.5 * odd) - mean[:, None]).div_(math.sqrt(2.0) * sigma[:, None])
    tail = torch.special.erfc(z)
    gauss = z.square_().neg_().exp_().sum(1)
    overlap = mean * tail.sum(1) + math.sqrt(2.0 / math.pi) * sigma * gauss
    return overlap, tail @ odd


def check_clip(quantisation_levels: int, clip: tuple[int, int] | None) -> tuple[int, int]:
    """Return the clip range in steps, (0, N) by default; `ConfigError` if it is impossible."""
    if quantisation_levels < 1:
        raise ConfigError(f"quantisation_levels is {quantisation_levels}; it must be at least 1.")
    low, high = (0, quantisation_levels) if clip is None else clip
    if not low <= 0 < high:
        raise ConfigError(f"clip is {(low, high)}; it must be (a, b) steps with a <= 0 < b.")
    return low, high


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
