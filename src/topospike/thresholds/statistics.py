"""Streaming statistics of what reaches a site, the raw material of its thresholds.

One pass over the calibration batches gives, per layer, channel, feature or neuron: mean and
population variance (merged exactly), the maximum, and optionally a quantile (averaged over batches
by their number of images, as the reference does). Shapes keep the reduced axes as 1, so that every
statistic broadcasts against the activation. Nothing is decided here: see
`topospike.thresholds.solvers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.errors import ConfigError, ConversionError, NonFiniteError, ShapeError
from topospike.registry import Registry

Granularity = Literal["layer", "channel", "feature", "neuron"]
Values = Literal["signed", "absolute", "rectified"]
UNITS = Registry("granularity", dict.fromkeys(get_args(Granularity)))
"""What one threshold of a site may stand for."""

# Selecting the top of each row is fast only while that top is small.
TOP_SHARE = 16


@dataclass(frozen=True, slots=True)
class SiteStatistics:
    """What the calibration data looked like at one site.

    Attributes
    ----------
    site
        Name of the site, for messages.
    granularity
        ``layer`` (one unit), ``channel`` (axis 1: channels of an image, tokens of a sequence),
        ``feature`` (last axis) or ``neuron`` (all but the batch).
    values
        What maximum and quantile were taken of: ``signed``, ``absolute`` or ``rectified`` values.
        Mean and variance are always those of the signed values.
    images
        Images seen.
    count
        Values seen per unit.
    mean, variance, maximum
        Float64, axes reduced over kept as 1; the variance is that of the population.
    quantile
        Mean over batches, weighted by images, of the batch quantile at ``quantile_level``, or
        ``None`` when none was asked for. Level 1 is the mean of the batch maxima.
    driven
        Bool, shape of one image's activation: neurons that some image drives (to a positive value
        if ``values`` is ``rectified``, else away from 0).
    """

    site: str
    granularity: Granularity
    values: Values
    images: int
    count: int
    mean: Float[Tensor, "*unit"]
    variance: Float[Tensor, "*unit"]
    maximum: Float[Tensor, "*unit"]
    quantile: Float[Tensor, "*unit"] | None = None
    quantile_level: float | None = None
    driven: Bool[Tensor, "*shape"] | None = None


def observe(
    x: Float[Tensor, "batch ..."],
    *,
    site: str,
    granularity: Granularity = "channel",
    values: Values = "signed",
    quantile_level: float | None = None,
    dtype: torch.dtype | None = None,
) -> SiteStatistics:
    """Summarise one batch.

    Parameters
    ----------
    x
        Activation, batch first.
    site
        Name of the site, for messages.
    granularity, values
        See `SiteStatistics`.
    quantile_level
        Quantile to take, in [0, 1] (linear interpolation); ``None`` skips this costly part.
    dtype
        Precision of the sums within the batch; ``None`` keeps that of ``x`` (at least float32).
        Results and their merging are always float64.

    Raises
    ------
    ConfigError
        If an option has an unknown value.
    ShapeError
        If ``x`` is empty or has too few axes.
    NonFiniteError
        If ``x`` contains NaN or infinity, or is too large to be squared.

    Notes
    -----
    The batch is centred on a first estimate m of its mean before squaring, and the rest of the
    mean is taken out of the variance: with d = x - m, ``mean = m + E[d]`` and
    ``variance = E[d^2] - E[d]^2``. This costs a fraction of a running (Welford) pass and is as
    accurate.

    Examples
    --------
    >>> batch = torch.tensor([[1.0, -2.0], [3.0, 2.0]])
    >>> seen = observe(batch, site="fc1", granularity="feature")
    >>> seen.mean.tolist(), seen.variance.tolist(), seen.maximum.tolist()
    ([[2.0, 0.0]], [[1.0, 4.0]], [[3.0, 2.0]])
    """
    _, look = UNITS[granularity], LOOKS[values]
    if x.numel() == 0:
        raise ShapeError(f"{site}: calibration batch of shape {tuple(x.shape)} is empty.")
    axes = reduced_axes(x.ndim, granularity, site=site)
    x = x.detach().to(dtype or torch.promote_types(x.dtype, torch.float32))
    centre = x.mean(axes, keepdim=True)
    centred = x - centre
    rest = centred.mean(axes, keepdim=True).double()
    square = centred.square_().mean(axes, keepdim=True).double()
    mean, variance = centre.double() + rest, (square - rest.square()).clamp_min_(0.0)
    if not bool((mean.isfinite() & square.isfinite()).all()):
        raise NonFiniteError(non_finite_message(x, site))
    highest, driven = extremes(x, values)
    return SiteStatistics(
        site=site,
        granularity=granularity,
        values=values,
        images=x.shape[0],
        count=x.numel() // mean.numel(),
        mean=mean,
        variance=variance,
        maximum=highest.amax(axes, keepdim=True).double(),
        quantile=None if quantile_level is None else quantile(look(x), quantile_level, axes=axes),
        quantile_level=quantile_level,
        driven=driven,
    )


LOOKS: Registry[Callable[[Tensor], Tensor]] = Registry(
    "values", {"signed": lambda x: x, "absolute": torch.abs, "rectified": torch.relu}
)


def extremes(x: Tensor, values: Values) -> tuple[Tensor, Tensor]:
    """Return, for each neuron, the largest value looked at (1, ...) and whether it is driven (...).

    Taken over the images first: what is left is small, so the large batch is read once or twice.
    """
    highest = x.amax(0, keepdim=True)
    if values == "rectified":
        return highest.relu(), highest[0] > 0
    lowest = x.amin(0, keepdim=True)
    driven = (highest[0] > 0) | (lowest[0] < 0)
    return (torch.maximum(highest, -lowest) if values == "absolute" else highest), driven


def merge(a: SiteStatistics, b: SiteStatistics) -> SiteStatistics:
    """Combine the statistics of two disjoint sets of images, in any order and grouping.

    Raises
    ------
    ConfigError
        If they were taken with different settings or at different sites.
    ShapeError
        If their units differ in number.

    Notes
    -----
    With w = n_b / (n_a + n_b) and delta = mean_b - mean_a (Chan et al., 1979):
    ``mean = mean_a + w delta``, ``variance = (1-w) var_a + w (var_b + (1-w) delta^2)``. The
    quantile is a weighted mean, not the quantile of the union.

    Examples
    --------
    >>> a, b = (observe(torch.tensor(v), site="fc1", granularity="layer") for v in ([1.0], [3.0]))
    >>> merge(a, b).variance.item()
    1.0
    """
    for setting in ("site", "granularity", "values", "quantile_level"):
        given, other = getattr(a, setting), getattr(b, setting)
        if given != other:
            raise ConfigError(
                f"{a.site}: cannot merge statistics whose {setting} is {given!r} and {other!r}; "
                "collect both with the same settings."
            )
    if a.mean.shape != b.mean.shape:
        raise ShapeError(
            f"{a.site}: {a.granularity} statistics have shapes {tuple(a.mean.shape)} and "
            f"{tuple(b.mean.shape)}; calibration inputs must agree in size, or use granularity "
            "'layer'."
        )
    weight = b.count / (a.count + b.count)
    delta = b.mean - a.mean
    spread = b.variance + (1.0 - weight) * delta.square()
    quantile, driven = None, None
    if a.quantile is not None and b.quantile is not None:
        quantile = torch.lerp(a.quantile, b.quantile, b.images / (a.images + b.images))
    if a.driven is not None and b.driven is not None and a.driven.shape == b.driven.shape:
        driven = a.driven | b.driven  # unknown where the images differ in size
    return replace(
        a,
        images=a.images + b.images,
        count=a.count + b.count,
        mean=a.mean + weight * delta,
        variance=(1.0 - weight) * a.variance + weight * spread,
        maximum=torch.maximum(a.maximum, b.maximum),
        quantile=quantile,
        driven=driven,
    )


class SiteObserver:
    """Collects the statistics of one site, batch by batch; call it with each activation.

    Parameters
    ----------
    site, **settings
        See `observe`.

    Examples
    --------
    >>> observer = SiteObserver("fc1", granularity="layer")
    >>> for batch in (torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 6.0]])):
    ...     observer(batch)
    >>> observer.statistics.mean.item(), observer.statistics.images
    (3.0, 2)
    """

    def __init__(self, site: str, **settings: Any) -> None:
        self.site = site
        self.settings = settings
        self.seen: SiteStatistics | None = None

    def __call__(self, x: Float[Tensor, "batch ..."]) -> None:
        """Add one batch."""
        batch = observe(x, site=self.site, **self.settings)
        self.seen = batch if self.seen is None else merge(self.seen, batch)

    @property
    def statistics(self) -> SiteStatistics:
        """Statistics of all batches so far; `ConversionError` when there were none."""
        if self.seen is None:
            raise ConversionError(
                f"{self.site}: no calibration batch reached this site; give at least one batch, "
                "and check that the site is on the path from the input to the output."
            )
        return self.seen


def reduced_axes(ndim: int, granularity: Granularity, *, site: str) -> tuple[int, ...]:
    """Return the axes over which a statistic of the given granularity is taken.

    Examples
    --------
    >>> reduced_axes(4, "channel", site="conv1"), reduced_axes(3, "feature", site="fc1")
    ((0, 2, 3), (0, 1))
    """
    least = 1 if granularity == "layer" else 2
    if ndim < least:
        raise ShapeError(
            f"{site}: granularity {granularity!r} needs an activation with at least {least} axes, "
            f"batch first; got {ndim}."
        )
    kept = {
        "layer": (),
        "channel": (1,),
        "feature": (ndim - 1,),
        "neuron": tuple(range(1, ndim)),
    }[granularity]
    return tuple(axis for axis in range(ndim) if axis not in kept)


def quantile(
    x: Float[Tensor, "*shape"], level: float, *, axes: tuple[int, ...]
) -> Float[Tensor, "*unit"]:
    """Return a quantile over some axes (kept as 1) by selection, in float64.

    Parameters
    ----------
    x
        Values, any size (`torch.quantile` sorts, and stops at 16 million values).
    level
        In [0, 1]; linear interpolation between the two neighbouring order statistics.
    axes
        Axes to reduce.

    Raises
    ------
    ConfigError
        If ``level`` is outside [0, 1].

    Examples
    --------
    >>> quantile(torch.tensor([4.0, 1.0, 3.0, 2.0]), 0.5, axes=(0,))
    tensor([2.5000], dtype=torch.float64)
    """
    if not 0.0 <= level <= 1.0:
        raise ConfigError(
            f"quantile_level is {level}; it must lie in [0, 1], e.g. 0.999 for 99.9 %."
        )
    kept = tuple(axis for axis in range(x.ndim) if axis not in axes)
    rows = x.permute(*kept, *axes).reshape(math.prod(x.shape[axis] for axis in kept), -1)
    last = rows.shape[1] - 1
    below = math.floor(level * last)
    above = min(below + 1, last)
    if (last + 1 - below) * TOP_SHARE <= last + 1:
        top = rows.topk(last + 1 - below, dim=1).values
        low, high = top[:, last - below], top[:, last - above]
    else:
        low, high = rows.kthvalue(below + 1, dim=1).values, rows.kthvalue(above + 1, dim=1).values
    result = torch.lerp(low.double(), high.double(), level * last - below)
    return result.reshape([1 if axis in axes else x.shape[axis] for axis in range(x.ndim)])


def non_finite_message(x: Tensor, site: str) -> str:
    """Say how many values of ``x`` are not finite, and where the first one is."""
    bad = (~x.isfinite()).nonzero()
    if len(bad) == 0:
        return (
            f"{site}: calibration values up to {x.abs().max().item():.3g} are too large to be "
            "squared; normalise the input, or check the weights before this site."
        )
    first = tuple(bad[0].tolist())
    return (
        f"{site}: {len(bad)} of {x.numel()} calibration values are not finite, the first is "
        f"{x[first].item()} at index {first}; check the calibration data and the weights before "
        "this site."
    )
