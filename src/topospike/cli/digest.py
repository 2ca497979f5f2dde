"""Command line: run folders named after what a run depends on.

The digest covers every setting that changes a trained network and differs from its default. So the
same network is found again whatever it is called and however it is converted, and a setting that a
later version adds leaves the names of old folders as they are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topospike.cli.recipes import to_plain
from topospike.recipe import Recipe

# What a run is called, how fast it goes, and what is done with the networks it trains.
FREE = ("name", "threads", "convert", "measure", "analyse")
FREE_BELOW: Mapping[str, tuple[str, ...]] = {
    "data": ("workers", "eval_batch_size"),
    "train": ("checkpoint_every",),
}
LENGTH = 10


def run_folder(root: Path, recipe: Recipe) -> Path:
    """Return the folder of a recipe's networks, such as ``root/name-seed0-1f0c...``.

    Examples
    --------
    >>> first = run_folder(Path("runs"), Recipe(name="a", threads=1))
    >>> second = run_folder(Path("runs"), Recipe(name="a", threads=2))
    >>> first == second, first == run_folder(Path("runs"), Recipe(name="a", seed=1))
    (True, False)
    """
    return root / f"{recipe.name}-seed{recipe.seed}-{settings_digest(recipe)}"


def settings_digest(recipe: Recipe) -> str:
    """Return a short name of the settings that the networks of a recipe depend on."""
    settings = differing(to_plain(recipe), to_plain(Recipe()))
    settings = {name: value for name, value in settings.items() if name not in FREE}
    for group, free in FREE_BELOW.items():
        if group in settings:
            settings[group] = {k: v for k, v in settings[group].items() if k not in free}
    for group, is_used in (
        ("sparsity", recipe.sparse_twin),
        ("prune", recipe.prune.method is not None),
        ("direct", recipe.direct.rule is not None),
    ):
        if not is_used:
            settings.pop(group, None)
    kept = {name: value for name, value in settings.items() if value != {}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:LENGTH]


def differing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from their defaults, group by group.

    Examples
    --------
    >>> differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}})
    {'b': {'d': 3}}
    """
    result: dict[str, Any] = {}
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = differing(value, default)
            if value:
                result[name] = value
        elif value != default:
            result[name] = value
    return result
