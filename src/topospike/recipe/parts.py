"""The runs a recipe is made of: networks that are converted, and one that is trained through time.

Each part is a recipe of its own, on the same data, seed and model, so that every stage knows one
kind of network alone.
"""

from __future__ import annotations

from dataclasses import replace

from topospike.recipe.complete import Recipe
from topospike.recipe.files import merged, recipe_from, to_plain
from topospike.recipe.sparsity import PruneSettings
from topospike.recipe.spiking import DirectSettings, QuantisationSettings

DIRECT = "direct"
"""In ``convert``: the network that is trained through time, and not converted."""


def parts(recipe: Recipe) -> tuple[Recipe, ...]:
    """Return the recipes of a run: of the networks to be converted first, then of the other one.

    With ``direct.rule``, a recipe whose ``convert`` names ``direct`` beside other methods is two:
    its twins are ANNs and are converted, and one sparse network more (with the rule ``dense``, one
    dense network) is trained through time, as `DirectSettings.changes` says. Any other recipe is
    its only part; ``changes`` are laid over it all the same.

    Raises
    ------
    ConfigError
        If a change is none of a recipe's.

    Examples
    --------
    >>> from topospike.recipe.files import resolve
    >>> converted, direct = parts(resolve("digits-events"))
    >>> converted.sparsity.rule, direct.sparsity.rule, [s.method for s in direct.convert]
    ('chts', 'ch-snn', ['direct'])
    """
    through_time = tuple(s for s in recipe.convert if s.method == DIRECT)
    if recipe.direct.rule is None or not through_time:
        return (recipe,)
    others = tuple(s for s in recipe.convert if s.method != DIRECT)
    own = replace(
        recipe,
        convert=through_time,
        direct=replace(recipe.direct, changes={}),
        prune=PruneSettings(),
        quantise=QuantisationSettings(),
    )
    own = recipe_from(merged(to_plain(own), recipe.direct.changes), source="direct.changes")
    if not others:
        return (own,)
    is_dense = own.direct.rule == "dense"
    own = replace(
        own,
        name=f"{recipe.name}-{DIRECT}",
        dense_twin=is_dense,
        sparse_twin=not is_dense,
    )
    return replace(recipe, convert=others, direct=DirectSettings()), own
