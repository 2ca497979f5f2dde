"""A recipe run from Python gives what the command gives, goes on, and prints nothing."""

import dataclasses

import pytest

import topospike as ts
from topospike.errors import ConfigError
from topospike.recipe import Recipe
from topospike.recipe.files import recipe_from

TINY = {
    "name": "tiny",
    "threads": 1,
    "data": {"limit_train": 240, "limit_test": 60, "batch_size": 32},
    "model": {"name": "mlp", "hidden": [48, 32]},
    "train": {"epochs": 1, "learning_rate": 0.1},
    "sparsity": {"rule": "chts", "linear": 0.8},
    "convert": [{"method": "dcgs", "timesteps": 2, "options": {"levels": 3}}],
    "measure": {"timesteps": 2},
}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipe_from(TINY, source="this test")


@pytest.fixture(scope="module")
def result(recipe: Recipe, tmp_path_factory) -> ts.RunResult:
    return ts.run_recipe(recipe, tmp_path_factory.mktemp("runs") / "tiny", device="cpu")


def test_the_result_names_networks_rows_savings_and_report(result: ts.RunResult) -> None:
    assert [(row.network, row.method) for row in result.rows] == [
        ("dense", "dcgs"),
        ("chts", "dcgs"),
    ]
    assert result.networks == (result.folder / "dense", result.folder)
    assert result.report is not None
    assert result.report.is_file()
    assert len(result.savings) == 1
    snn = ts.load(result.networks[-1] / "conversions" / "dcgs" / "network")
    assert snn.report.options["levels"] == snn.report.levels == 3


def test_a_second_run_keeps_what_is_done_and_prints_nothing(
    result: ts.RunResult, recipe: Recipe, capsys
) -> None:
    weights = result.folder / "model.safetensors"
    before = weights.stat().st_mtime_ns
    again = ts.run_recipe(recipe, result.folder, device="cpu")
    assert again == result
    assert weights.stat().st_mtime_ns == before
    assert capsys.readouterr().out == ""


def test_training_alone_leaves_the_networks(recipe: Recipe, tmp_path) -> None:
    only = dataclasses.replace(recipe, dense_twin=False)
    trained = ts.run_recipe(only, tmp_path, train_only=True, device="cpu")
    assert trained == ts.RunResult(tmp_path, networks=(tmp_path,))
    assert (tmp_path / "topology.npz").is_file()


def test_a_wrong_option_is_refused_before_anything_is_made(recipe: Recipe, tmp_path) -> None:
    conversion = dataclasses.replace(recipe.convert[0], options={"presimulation": 4})
    with pytest.raises(ConfigError, match=r"'dcgs' has no option 'presimulation'"):
        ts.run_recipe(dataclasses.replace(recipe, convert=(conversion,)), tmp_path / "none")
    assert not (tmp_path / "none").exists()
