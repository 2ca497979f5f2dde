"""Convert: a normal variable through an N-step quantiser, in closed form.

The decoded value of a site is, at best, its input x rounded to a grid and clipped::

    f(x; theta) = (theta / N) clip(floor(N x / theta + 1/2), a, b)

For x normal, E[f x] and E[f^2] are sums over the cell edges. They give the best rescaling of the
output for given cells, k(theta) = E[f x] / E[f^2], and the mean squared error. [a, b] is [0, N] at
a ReLU site (then E[f x] = E[f max(x, 0)]) and [-N, N] at an identity site. Solving for theta is
the business of `topospike.conversion.thresholds`.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.errors import ConfigError

CHUNK_ELEMENTS = 1 << 16
"""Largest [units, N] table held at once: 512 KiB in float64, within a core's cache."""


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
