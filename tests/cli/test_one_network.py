"""Runs of one network only: dense without a sparse twin."""

import pytest

from topospike.cli.main import main
from topospike.errors import ConfigError
from topospike.recipe.files import recipe_from


def test_a_dense_network_alone(tmp_path, tiny_recipe, capsys):
    folder = tmp_path / "dense-only"
    options = ["--folder", str(folder), "--sparse_twin", "false", "--train.epochs", "1"]
    assert main(["run", str(tiny_recipe), *options]) == 0
    assert (folder / "dense" / "model.safetensors").is_file()
    assert not (folder / "topology.npz").exists()
    assert not (folder / "topology_report.json").exists()
    assert main(["analyse", str(folder)]) == 2
    assert "holds a dense network only" in capsys.readouterr().err


def test_no_network_at_all_is_refused():
    with pytest.raises(ConfigError, match="nothing to train"):
        recipe_from({"dense_twin": False, "sparse_twin": False}, source="a test")
