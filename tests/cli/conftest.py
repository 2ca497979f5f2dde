"""A recipe small enough to run in seconds, and one finished run of it."""

import shutil

import pytest

from topospike.cli.main import main

TINY = """\
name: tiny
threads: 1
data: {limit_train: 240, limit_test: 60, batch_size: 32}
model: {name: mlp, hidden: [48, 32]}
train: {epochs: 4, learning_rate: 0.1}
sparsity: {rule: chts, linear: 0.8, keep_every: 1}
convert: [{method: dcgs, timesteps: 2}, {method: qcfs, timesteps: 4}]
measure: {timesteps: 4}
"""


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture(scope="session")
def original_run(tmp_path_factory, tiny_recipe):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert main(["run", str(tiny_recipe), "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def finished_run(tmp_path, original_run):
    """A copy of the finished run that a test may change."""
    return shutil.copytree(original_run, tmp_path / "run")
