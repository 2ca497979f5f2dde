"""Recipes: the ranges of a recipe's numbers, checked before anything is loaded or trained.

Settings of data, training and sparsity check themselves (`topospike.recipe`). The other stages
check what they are given; here a run of many hours is spared from failing at its last one. A
message names the key as it is written on the command line.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from topospike.errors import ConfigError
from topospike.recipe import Recipe

Limit = tuple[str, Callable[[Any], bool]]

POSITIVE_INTEGER: Limit = ("1 or more", lambda x: x >= 1)
POSITIVE: Limit = ("above 0", lambda x: x > 0)
NOT_NEGATIVE: Limit = ("0 or more", lambda x: x >= 0)
SHARE: Limit = ("at least 0 and below 1", lambda x: 0 <= x < 1)
PART: Limit = ("between 0 and 1", lambda x: 0 <= x <= 1)
INNER: Limit = ("above 0 and below 1", lambda x: 0 < x < 1)

LIMITS: dict[str, Limit] = {
    "data.validation_fraction": INNER,
    "prune.exponent": NOT_NEGATIVE,
    "prune.damping": POSITIVE,
    "prune.tolerance": NOT_NEGATIVE,
    "prune.calibration_images": POSITIVE_INTEGER,
    "prune.fine_tune": SHARE,
    "prune.fine_tune_rate": POSITIVE,
    "prune.fine_tune_dropout": SHARE,
    "quantise.epochs": NOT_NEGATIVE,
    "quantise.channel_epochs": NOT_NEGATIVE,
    "quantise.levels": POSITIVE_INTEGER,
    "quantise.learning_rate": POSITIVE,
    "quantise.channel_rate": POSITIVE,
    "quantise.weight_decay": NOT_NEGATIVE,
    "quantise.initial_threshold": POSITIVE,
    "quantise.percentile": PART,
    "quantise.dropout": SHARE,
    "direct.timesteps": POSITIVE_INTEGER,
    "direct.patience": POSITIVE_INTEGER,
    "measure.timesteps": POSITIVE_INTEGER,
    "measure.images": POSITIVE_INTEGER,
    "threads": POSITIVE_INTEGER,
}
FOLDER_NAME = r"\w[\w.-]*"
CONVERSION_LIMITS: dict[str, Limit] = {
    "timesteps": POSITIVE_INTEGER,
    "calibration_images": POSITIVE_INTEGER,
}


def check_limits(recipe: Recipe) -> None:
    """Raise a `ConfigError` for the first number of ``recipe`` that is out of range.

    Examples
    --------
    >>> import dataclasses
    >>> from topospike.recipe import MeasureSettings
    >>> check_limits(Recipe(measure=MeasureSettings(timesteps=0)))
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: measure.timesteps is 0; 1 or more is required.
    """
    for key, limit in LIMITS.items():
        value: Any = recipe
        for part in key.split("."):
            value = getattr(value, part)
        check(key, value, limit)
    for index, settings in enumerate(recipe.convert):
        for name, limit in CONVERSION_LIMITS.items():
            check(f"convert[{index}].{name}", getattr(settings, name), limit)
    check_conversions(recipe)
    if not (recipe.dense_twin or recipe.sparse_twin):
        raise ConfigError(
            "dense_twin and sparse_twin are both false, so there is nothing to train; one of them "
            "must be true."
        )


def check(key: str, value: Any, limit: Limit) -> None:
    """Raise when a number that is set lies outside its limit; NaN lies outside every one."""
    required, holds = limit
    if value is not None and not holds(value):
        raise ConfigError(f"{key} is {value}; {required} is required.")


def check_conversions(recipe: Recipe) -> None:
    """Raise when a conversion cannot name a folder, or two would write to one."""
    labels = [settings.label for settings in recipe.convert]
    for label in labels:
        if not re.fullmatch(FOLDER_NAME, label):
            raise ConfigError(
                f"convert has the name {label!r}; letters, digits, hyphens, underscores and dots "
                "inside are required, since a folder is named so."
            )
        if labels.count(label) > 1:
            raise ConfigError(
                f"convert names {label!r} {labels.count(label)} times; each name once is required, "
                "since each has its own folder. Give one of them a name: '{method: dcgs, name: "
                "dcgs-rate, options: {coding: rate}}'."
            )
