"""Recipes: packaged ones, YAML files, overrides, and what is said about a wrong key."""

import dataclasses
from pathlib import Path

import pytest
import yaml

from topospike.errors import ConfigError
from topospike.recipe import ConversionSettings, Recipe, TrainSettings
from topospike.recipe.files import (
    check_keys,
    packaged_recipes,
    recipe_from,
    resolve,
    to_yaml,
)


@pytest.mark.parametrize("name", packaged_recipes())
def test_every_packaged_recipe_is_valid_and_carries_its_own_name(name):
    assert resolve(name).name == name


def test_the_recipes_of_the_papers_networks_are_packaged():
    expected = {
        "demo",
        "fashion-mnist-mlp",
        "cifar10-vgg16",
        "cifar10-resnet18",
        "cifar10-conv6fc2",
        "cifar10-vgg-small",
    }
    assert expected <= set(packaged_recipes())


@pytest.mark.parametrize("name", packaged_recipes())
def test_a_printed_recipe_reads_back_as_itself(name):
    recipe = resolve(name)
    assert recipe_from(yaml.safe_load(to_yaml(recipe)), source="test") == recipe


def test_a_file_needs_only_what_differs_from_the_defaults(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train: {epochs: 3, learning_rate: 1e-3}\nconvert: [{method: qcfs}]\n")
    expected = Recipe(
        name="mine",
        train=TrainSettings(epochs=3, learning_rate=0.001),
        convert=(ConversionSettings("qcfs"),),
    )
    assert resolve(str(path)) == expected


def test_an_override_replaces_one_key_and_leaves_the_others():
    plain, changed = resolve("demo"), resolve("demo", {"train": {"epochs": 3}})
    assert changed.train == dataclasses.replace(plain.train, epochs=3)
    assert dataclasses.replace(changed, train=plain.train) == plain


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"trian": {}}, "unknown key 'trian'. Did you mean 'train'?"),
        ({"train": {"epoch": 3}}, "unknown key 'train.epoch'. Did you mean 'train.epochs'?"),
        ({"epochs": 3}, "unknown key 'epochs'. Did you mean 'train.epochs'?"),
        ({"sparsity": {"linaer": 0.9}}, "Did you mean 'sparsity.linear'?"),
        ({"convert": [{"metod": "dcgs"}]}, "Did you mean 'convert[0].method'?"),
        ({"train": {"epochs": "many"}}, "train.epochs: int required, got many"),
        ({"convert": [{"timesteps": "x"}]}, "convert: timesteps: int required, got x"),
        ({"convert": [{"levels": 4}]}, "Options of the method go under 'convert[0].options'."),
        ({"train": 3}, "'train' is 3; a mapping of epochs"),
        ({"convert": "dcgs"}, "'convert' is 'dcgs'; a list of mappings is required"),
        ({"convert": ["dcgs"]}, "convert[0] is 'dcgs'; a mapping is required"),
        ({"convert": [{"method": "dcgs"}] * 2}, "convert names 'dcgs' 2 times"),
        ({"convert": [{"method": "dcgs", "name": "../x"}]}, "convert has the name '../x'"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_remedy(overrides, message):
    with pytest.raises(ConfigError) as caught:
        resolve("demo", overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_key_in_a_file_names_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("train:\n  epoch: 3\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml'.*'train\.epoch'.*'train\.epochs'"):
        resolve(str(path))


def test_an_unknown_recipe_lists_the_known_ones_and_the_nearest():
    with pytest.raises(ConfigError) as caught:
        resolve("dmeo")
    assert "cifar10-vgg16" in str(caught.value)
    assert "Did you mean 'demo'?" in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2]", "train: {epochs: 3"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"broken\.yaml"):
        resolve(str(path))


def test_every_key_of_a_resolved_recipe_is_known():
    check_keys(yaml.safe_load(to_yaml(Recipe())), Recipe, "test")
