"""Command line: what a sweep searches, from ``train.learning_rate=0.1,0.01`` to points.

An entry is a key of the recipe and its values, separated by commas, or a range ``low:high`` (on a
logarithmic scale ``low:high:log``), which only Optuna can search. Nothing is run here.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from topospike.cli.recipes import dotted_names, nearest
from topospike.errors import ConfigError
from topospike.recipe import Recipe

LOGARITHMIC = "log"


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; whole ones if both are."""

    low: float
    high: float
    logarithmic: bool = False

    def for_ray(self) -> Any:
        """Return the range as Ray Tune takes it."""
        from ray import tune

        if isinstance(self.low, int) and isinstance(self.high, int):
            kind = tune.lograndint if self.logarithmic else tune.randint
            return kind(self.low, self.high + 1)
        return (tune.loguniform if self.logarithmic else tune.uniform)(self.low, self.high)


@dataclass(frozen=True)
class Space:
    """The dimensions of a search, by recipe key: listed values, or a range."""

    dimensions: Mapping[str, tuple[Any, ...] | Range]

    def for_ray(self) -> dict[str, Any]:
        """Return the space as Ray Tune takes it, for sampling."""
        from ray import tune

        return {
            key: dimension.for_ray() if isinstance(dimension, Range) else tune.choice(dimension)
            for key, dimension in self.dimensions.items()
        }


def parse_space(entries: Sequence[str], *, known: Recipe) -> Space:
    """Read the entries of a search space.

    Raises
    ------
    ConfigError
        No entry, one without values, or a key that no recipe has; suggests the nearest one.

    Examples
    --------
    >>> space = parse_space(["data.batch_size=32,64", "seed=1:9", "train.learning_rate=.1:1:log"],
    ...                     known=Recipe())
    >>> for key, dimension in space.dimensions.items():
    ...     print(key, dimension)
    data.batch_size (32, 64)
    seed Range(low=1, high=9, logarithmic=False)
    train.learning_rate Range(low=0.1, high=1, logarithmic=True)
    """
    if not entries:
        raise ConfigError(
            "nothing to search; name what varies, such as --space train.learning_rate=0.1,0.01 "
            "data.batch_size=32,64."
        )
    names = dotted_names(type(known))
    dimensions: dict[str, tuple[Any, ...] | Range] = {}
    for entry in entries:
        key, equals, values = entry.partition("=")
        if not equals or not values:
            raise ConfigError(f"--space {entry!r} has no values; write {key}=0.1,0.01 or 0.01:0.1.")
        if key not in names:
            raise ConfigError(f"--space: unknown key {key!r}.{nearest(key, names)}")
        dimensions[key] = parse_values(entry, values)
    return Space(dimensions)


def parse_values(entry: str, text: str) -> tuple[Any, ...] | Range:
    """Read listed values or a range."""
    low, colon, rest = text.partition(":")
    if not colon:
        return tuple(yaml.safe_load(f"[{text}]"))
    high, _, scale = rest.partition(":")
    ends = [yaml.safe_load(end or "null") for end in (low, high)]
    if not all(isinstance(end, int | float) for end in ends) or scale not in ("", LOGARITHMIC):
        raise ConfigError(f"--space {entry!r} is no range; write low:high or low:high:log.")
    if ends[0] >= ends[1] or (scale and ends[0] <= 0):
        raise ConfigError(
            f"--space {entry!r}: the lower end must be smaller than the upper one, and above 0 on "
            "a logarithmic scale."
        )
    return Range(ends[0], ends[1], logarithmic=bool(scale))


def grid_points(space: Space) -> list[dict[str, Any]]:
    """Return every combination of the listed values, the last key varying fastest.

    Raises
    ------
    ConfigError
        A dimension is a range.

    Examples
    --------
    >>> grid_points(Space({"a": (1, 2), "b": (3,)}))
    [{'a': 1, 'b': 3}, {'a': 2, 'b': 3}]
    """
    lists = []
    for key, dimension in space.dimensions.items():
        if isinstance(dimension, Range):
            raise ConfigError(
                f"{key} is a range, which a grid cannot go through; list its values, or add "
                "--search optuna."
            )
        lists.append(dimension)
    return [dict(zip(space.dimensions, point, strict=True)) for point in itertools.product(*lists)]


def nested(point: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested mappings.

    Examples
    --------
    >>> nested({"train.epochs": 3, "seed": 1})
    {'train': {'epochs': 3}, 'seed': 1}
    """
    result: dict[str, Any] = {}
    for key, value in point.items():
        group, dot, name = key.partition(".")
        if dot:
            result[group] = {**result.get(group, {}), **nested({name: value})}
        else:
            result[key] = value
    return result
