"""A recipe of converted networks and one trained through time is two recipes."""

from dataclasses import replace

import pytest

from topospike.errors import ConfigError
from topospike.recipe import DirectSettings, PruneSettings, QuantisationSettings
from topospike.recipe.files import recipe_from, resolve, to_plain
from topospike.recipe.parts import parts

BOTH = {
    "convert": [{"method": "dcgs"}, {"method": "direct", "name": "stbp"}],
    "direct": {"rule": "evolve", "changes": {"train": {"epochs": 3}, "sparsity": {"rule": "set"}}},
    "prune": {"method": "magnitude"},
    "quantise": {"epochs": 2},
    "seed": 4,
}


def test_both_parts_share_data_model_and_seed_and_nothing_else_leaks():
    recipe = resolve("demo", BOTH)
    converted, direct = parts(recipe)
    for name in ("data", "model", "seed", "threads"):
        assert getattr(converted, name) == getattr(direct, name) == getattr(recipe, name)
    assert converted == replace(recipe, direct=DirectSettings(), convert=tuple(recipe.convert[:1]))
    assert [s.label for s in direct.convert] == ["stbp"]
    assert (direct.dense_twin, direct.sparse_twin) == (False, True)
    assert (direct.prune, direct.quantise) == (PruneSettings(), QuantisationSettings())
    assert direct.train == replace(recipe.train, epochs=3)
    assert direct.sparsity == replace(recipe.sparsity, rule="set")
    assert (direct.direct.rule, direct.direct.changes) == ("evolve", {})


@pytest.mark.parametrize("recipe", ["digits-events", "mnist-2fc-ch-snn", "demo"])
def test_parts_are_whole(recipe):
    for part in parts(resolve(recipe)):
        assert parts(part) == (part,)
        assert recipe_from(to_plain(part), source="part") == part


def test_a_dense_rule_trains_a_dense_network():
    _, direct = parts(resolve("demo", {**BOTH, "direct": {"rule": "dense"}}))
    assert (direct.dense_twin, direct.sparse_twin) == (True, False)


def test_alone_it_keeps_its_twins_and_takes_the_changes():
    (only,) = parts(resolve("demo", {**BOTH, "convert": [{"method": "direct"}]}))
    assert (only.dense_twin, only.sparse_twin, only.name) == (True, True, "demo")
    assert only.train.epochs == 3


def test_changes_that_are_none_of_a_recipes_are_refused():
    with pytest.raises(ConfigError, match=r"direct\.changes is \{'model'.*train, sparsity and"):
        resolve("demo", {"direct": {"changes": {"model": {"name": "mlp"}}}})
    wrong = {"rule": "evolve", "changes": {"train": {"epoch": 3}}}
    with pytest.raises(ConfigError, match=r"direct\.changes: .*Did you mean 'train\.epochs'"):
        parts(resolve("demo", {**BOTH, "direct": wrong}))
