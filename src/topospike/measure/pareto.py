"""Accuracy, or another metric, against energy: fronts over the time steps of any set of runs.

Each time step of each run is a point. A point is on the front if no other is at least as good for
at most as much energy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from topospike.contracts import Evaluation
from topospike.errors import ConfigError


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One time step of one run: joules per image and the metric, accuracy as a fraction."""

    run: str
    timestep: int
    energy_joule: float
    value: float


def pareto_front(
    runs: Mapping[str, Evaluation], metric: str = "accuracy"
) -> tuple[FrontPoint, ...]:
    """Return the points of all runs that no other point beats, cheapest first.

    Parameters
    ----------
    runs
        Name -> evaluation. Compare only evaluations of the same data, energy model and
        conventions.
    metric
        What is good: a name in the ``metrics`` of every run. Whether high or low, the runs say.

    Raises
    ------
    ConfigError
        If there is no run, a run lacks the metric, or they differ in energy model or conventions.

    Notes
    -----
    Sorted by energy (of equal energies the better first), a point is on the front if it is better
    than every cheaper one. Steps before a run's first answer are no points.
    """
    if not runs:
        raise ConfigError("there is no run to compare; at least one evaluation is required.")
    refuse_mixed_conventions(runs)
    points = [
        FrontPoint(name, t, energy, value)
        for name, run in runs.items()
        for t, energy, value in zip(
            run.timesteps, run.energy_joule, curve_of(run, metric, name), strict=True
        )
        if t >= (1 if run.wider is None else run.wider.first_answer)
    ]
    sign = -1 if metric in next(iter(runs.values())).lower_is_better else 1
    front = front_of([(point.energy_joule, sign * point.value) for point in points])
    return tuple(points[place] for place in front)


def front_of(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points (energy, goodness) that no other beats, cheapest first."""
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


def curve_of(run: Evaluation, metric: str, name: str = "the run") -> tuple[float, ...]:
    """Return the values of a metric at t = 1, 2, ...; `ConfigError` if it was not measured."""
    if metric not in run.metrics:
        raise ConfigError(
            f"{name} has no {metric!r}; it was measured for {', '.join(run.metrics)}. Evaluate "
            f"with metric={metric!r}."
        )
    return run.metrics[metric]


def refuse_mixed_conventions(runs: Mapping[str, Evaluation]) -> None:
    """Raise `ConfigError` if energies were counted in different ways."""
    (first, reference), *others = runs.items()
    for name, run in others:
        for key, value in reference.conventions.items():
            if run.conventions.get(key) != value:
                raise ConfigError(
                    f"{name!r} was counted with {key}={run.conventions.get(key)!r}, {first!r} with "
                    f"{value!r}; their energies cannot be compared. Measure both alike."
                )


def area_under_front(front: Sequence[FrontPoint], *, low_joule: float, high_joule: float) -> float:
    """Return the mean accuracy that a front offers between two budgets, on a log energy axis.

    For metrics that are shares, such as accuracy: nothing bought counts as 0.

    Parameters
    ----------
    front
        From `pareto_front`.
    low_joule, high_joule
        The budgets; the same two for all fronts that are compared.

    Returns
    -------
    float
        Between 0 and 1. A budget buys the best point that costs no more; below the cheapest point
        the accuracy is 0.

    Raises
    ------
    ConfigError
        Unless ``0 < low_joule < high_joule``.

    Notes
    -----
    ``integral of a(E) d(log E) / log(high / low)`` with the staircase a(E); no interpolation,
    because there is nothing between two time steps.

    Examples
    --------
    >>> front = (FrontPoint("a", 1, 1.0, 0.5), FrontPoint("a", 2, 10.0, 0.9))
    >>> round(area_under_front(front, low_joule=0.1, high_joule=100.0), 4)
    0.4667
    """
    if not 0 < low_joule < high_joule:
        raise ConfigError(
            f"the budgets are {low_joule} and {high_joule} joule; 0 < low < high is required."
        )
    ends = [*(point.energy_joule for point in front[1:]), math.inf]
    total = 0.0
    for point, end in zip(front, ends, strict=True):
        begin, stop = max(point.energy_joule, low_joule), min(end, high_joule)
        if stop > begin:
            total += point.value * math.log(stop / begin)
    return total / math.log(high_joule / low_joule)


def iso_accuracy_energy(
    run: Evaluation, accuracy: float, metric: str = "accuracy"
) -> FrontPoint | None:
    """Return the first time step at which a run reaches an accuracy, ``None`` if it never does.

    Energy grows with time, so the first step is the cheapest.

    Parameters
    ----------
    run
        An evaluation.
    accuracy
        The accuracy to reach, as a fraction, or the value of another metric.
    metric
        A name in the run's ``metrics``.

    Raises
    ------
    ConfigError
        If ``accuracy`` is outside 0..1, or the metric was not measured.
    """
    if metric == "accuracy" and not 0 <= accuracy <= 1:
        raise ConfigError(f"accuracy is {accuracy}; a fraction between 0 and 1 is required.")
    sign = -1 if metric in run.lower_is_better else 1
    curve = curve_of(run, metric)
    for t, energy, reached in zip(run.timesteps, run.energy_joule, curve, strict=True):
        if sign * reached >= sign * accuracy:
            return FrontPoint("", t, energy, reached)
    return None
