"""Reproduce: one quantity over seeds, and whether two rules differ in it.

Two rules that were trained from the same seeds share data, order and augmentation, so they are
compared seed by seed: the differences ``d_s = x_s - y_s`` vary less than both values do. With
``n`` seeds, mean difference ``m`` and sample standard deviation ``s`` (over ``n - 1``), the
interval is that of Student's t::

    m +- t(0.975, n - 1) s / sqrt(n)

With three seeds ``t`` is 4.30, so only large or very steady differences stand out of it. Intervals
are not corrected for the number of comparisons in a table. Where many rules ran with the same
seeds, `least_difference` takes the noise from all of them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from topospike.errors import ConfigError

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation over seeds; ``None`` where there are too few values."""

    mean: float | None
    deviation: float | None
    seeds: int


@dataclass(frozen=True)
class PairedDifference:
    """How one rule differs from another, seed by seed.

    ``low`` and ``high`` bound the mean difference at 95 % confidence; both are ``None`` with fewer
    than two seeds in common.
    """

    mean: float
    low: float | None
    high: float | None
    seeds: tuple[int, ...]

    @property
    def is_noise(self) -> bool:
        """Whether the interval holds 0, or there is none."""
        return self.low is None or self.high is None or self.low <= 0.0 <= self.high


def spread(values: Mapping[int, float]) -> Spread:
    """Return mean and standard deviation of values by seed.

    Examples
    --------
    >>> spread({0: 1.0, 1: 3.0})
    Spread(mean=2.0, deviation=1.4142135623730951, seeds=2)
    """
    numbers = list(values.values())
    mean = statistics.fmean(numbers) if numbers else None
    return Spread(mean, statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


def paired_difference(
    values: Mapping[int, float], reference: Mapping[int, float]
) -> PairedDifference | None:
    """Compare two rules on the seeds that both have; ``None`` without any.

    Raises
    ------
    ConfigError
        A value is not finite.

    Examples
    --------
    >>> found = paired_difference({0: 5.0, 1: 7.0, 2: 9.0}, {0: 4.0, 1: 5.0, 2: 6.0})
    >>> found.mean, round(found.low, 3), round(found.high, 3), found.is_noise
    (2.0, -0.484, 4.484, True)
    """
    seeds = tuple(sorted(set(values) & set(reference)))
    if not seeds:
        return None
    differences = [values[seed] - reference[seed] for seed in seeds]
    if not all(math.isfinite(d) for d in differences):
        raise ConfigError(f"differences {differences} over seeds {seeds} must all be finite.")
    mean = statistics.fmean(differences)
    if len(seeds) < 2:
        return PairedDifference(mean, None, None, seeds)
    half = quantile(len(seeds) - 1) * statistics.stdev(differences) / math.sqrt(len(seeds))
    return PairedDifference(mean, mean - half, mean + half, seeds)


def least_difference(values: Mapping[str, Mapping[int, float]]) -> float | None:
    """Return by how much the means of two rules must differ, with noise pooled over all rules.

    A value is read as rule + seed + noise. With ``r`` rules and ``n`` seeds the noise has variance
    ``v``, the squares left over ``(r - 1) (n - 1)``, and the least difference at 95 % confidence is
    ``t(0.975, (r - 1) (n - 1)) sqrt(2 v / n)``: that of Fisher (1935), not corrected for the number
    of comparisons. Noise is taken to be the same in all rules.

    Parameters
    ----------
    values
        Rule -> seed -> value; rules that lack a seed of any other are left out.

    Returns
    -------
    float or None
        ``None`` with fewer than two whole rules or two seeds.

    Raises
    ------
    ConfigError
        A value is not finite.

    Examples
    --------
    >>> values = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 3.0, 1: 4.0, 2: 8.0}}
    >>> round(least_difference(values), 3)  # of two rules: half the width of the paired interval
    4.303
    """
    seeds = sorted(set().union(*values.values()))
    table = [[row[seed] for seed in seeds] for row in values.values() if len(row) == len(seeds)]
    if len(table) < 2 or len(seeds) < 2:
        return None
    if not all(math.isfinite(value) for row in table for value in row):
        raise ConfigError("a value is not finite; differences of rules need finite ones.")
    rules = [statistics.fmean(row) for row in table]
    means = [statistics.fmean(column) for column in zip(*table, strict=True)]
    whole = statistics.fmean(rules)
    left = sum(
        (value - rule - mean + whole) ** 2
        for row, rule in zip(table, rules, strict=True)
        for value, mean in zip(row, means, strict=True)
    )
    freedom = (len(table) - 1) * (len(seeds) - 1)
    return quantile(freedom) * math.sqrt(2 * left / freedom / len(seeds))


def quantile(freedom: int) -> float:
    """Return the quantile of Student's t that bounds an interval at the confidence used here."""
    from scipy.stats import t as student

    return float(student.ppf(0.5 + CONFIDENCE / 2, freedom))
