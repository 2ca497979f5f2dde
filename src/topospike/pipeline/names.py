"""Pipeline: the names in a recipe, looked up before anything is loaded or trained.

A misspelt method would otherwise be noticed by the last stage of a long run. The tables are those
of the stages; their errors list the known names and the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from topospike.conversion import METHODS
from topospike.direct import check_rule, training_method
from topospike.direct.neurons import check_neuron
from topospike.errors import ConfigError
from topospike.evolve import REMOVAL_CRITERIA, RULES, SCORE_RULES
from topospike.measure import ENERGY_MODELS, METRICS
from topospike.models import MODELS
from topospike.models.qcfs import POSITIVE_MAPS, Order
from topospike.pipeline.showing import conventions_of, input_of
from topospike.pruning import PRUNING_METHODS
from topospike.recipe import Recipe
from topospike.registry import Registry
from topospike.snn.executors import EXECUTORS
from topospike.topology import (
    DENSITY_SCHEDULES,
    INITIAL_TOPOLOGIES,
    WEIGHT_INITS,
    ZETA_SCHEDULES,
)
from topospike.train.compact import EXECUTIONS
from topospike.train.optim import OPTIMIZERS, SCHEDULES

TABLES: dict[str, Mapping[str, Any]] = {
    "model.name": MODELS,
    "train.execution": EXECUTIONS,
    "train.optimizer": OPTIMIZERS,
    "train.schedule": SCHEDULES,
    "sparsity.rule": RULES,
    "sparsity.initial_topology": INITIAL_TOPOLOGIES,
    "sparsity.weight_init": WEIGHT_INITS,
    "sparsity.linear_score": SCORE_RULES,
    "sparsity.conv_score": SCORE_RULES,
    "sparsity.removal": REMOVAL_CRITERIA,
    "sparsity.zeta_schedule": ZETA_SCHEDULES,
    "sparsity.density_decay": DENSITY_SCHEDULES,
    "prune.method": PRUNING_METHODS,
    "quantise.positive_map": POSITIVE_MAPS,
    "quantise.order": Registry("order", dict.fromkeys(get_args(Order))),
    "measure.energy_model": ENERGY_MODELS,
    "measure.metric": METRICS,
    "measure.executor": Registry("executor", dict.fromkeys((*EXECUTORS, "auto"))),
}


def check_names(recipe: Recipe) -> None:
    """Raise a `ConfigError` for a name in ``recipe`` that no stage knows, or a method's bad option.

    Examples
    --------
    >>> from topospike.recipe import ModelSettings
    >>> check_names(Recipe(model=ModelSettings("vgg61")))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: unknown model 'vgg61'. Known: ... Did you mean 'vgg16'?
    """
    for key, table in TABLES.items():
        group, name = key.split(".")
        chosen = getattr(getattr(recipe, group), name)
        for entry in chosen.values() if isinstance(chosen, Mapping) else (chosen,):
            look_up(table, entry)
    if recipe.direct.rule is None:
        for settings in recipe.convert:
            METHODS[settings.method].of(settings.options)
        check_trained_methods(recipe)
    else:
        check_direct(recipe)
    for settings in recipe.convert:
        input_of(recipe, settings)
    conventions_of(recipe.measure)


def check_direct(recipe: Recipe) -> None:
    """Raise a `ConfigError` for a recipe of training through time that contradicts itself."""
    check_rule(recipe.direct.rule)
    if recipe.data.text.context or recipe.measure.metric != "accuracy":
        raise ConfigError(
            f"direct.rule is {recipe.direct.rule!r}: networks trained through time classify images "
            f"and are measured by accuracy, and data.text.context is {recipe.data.text.context}, "
            f"measure.metric {recipe.measure.metric!r}. Convert a trained network instead."
        )
    methods = [settings.method for settings in recipe.convert]
    if methods != ["direct"]:
        raise ConfigError(
            f"direct.rule is {recipe.direct.rule!r}, which trains spiking networks, and convert "
            f"names {', '.join(methods) or 'nothing'}; 'convert: [{{method: direct}}]' is "
            "required, for `topospike run` and `train` also beside other methods. To convert "
            "alone, set direct.rule to null."
        )
    if recipe.measure.executor or any(settings.weight_bits for settings in recipe.convert):
        raise ConfigError(
            f"direct.rule is {recipe.direct.rule!r}: networks trained through time keep their "
            "weights and executor; leave weight_bits and measure.executor at null."
        )
    for name in ("conv", "linear"):
        check_neuron(getattr(recipe.direct, name))
    training_method(recipe.direct)
    if recipe.direct.rule == "dense" and recipe.sparse_twin:
        raise ConfigError("direct.rule is 'dense': set sparse_twin to false, or choose a rule.")


def check_trained_methods(recipe: Recipe) -> None:
    """Raise a `ConfigError` for a conversion whose training the recipe leaves out."""
    settings = recipe.quantise
    for method in (conversion.method for conversion in recipe.convert):
        if METHODS[method].requires is not None and not settings.epochs:
            raise ConfigError(
                f"convert names {method!r}, which needs trained quantised activations, but "
                "quantise.epochs is 0. Give --quantise.epochs (the paper: 300), or use 'qcfs'."
            )
        if method == "cs-qcfs" and settings.epochs and not settings.channel_epochs:
            raise ConfigError(
                f"convert names 'cs-qcfs' and quantise.epochs is {settings.epochs}, but "
                "quantise.channel_epochs is 0. Give --quantise.channel_epochs (the paper: 100)."
            )


def look_up(table: Mapping[str, Any], name: str | None) -> None:
    """Let a table raise its own error for a name it does not have; ``None`` is a default."""
    if name is not None:
        _ = table[name]
