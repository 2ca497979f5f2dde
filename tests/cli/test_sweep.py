"""A real sweep on Ray: two trials, found again by a second start, and one that fails."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

RECIPE = """
threads: 1
dense_twin: false
analyse: false
data: {limit_train: 200, limit_test: 60, batch_size: 32}
model: {name: mlp, hidden: [32, 32]}
train: {epochs: 2, learning_rate: 0.1}
sparsity: {rule: chts, linear: 0.8}
convert: [{method: dcgs, timesteps: 2}]
measure: {timesteps: 2}
"""


def sweep(recipe, folder, *options):
    command = [sys.executable, "-m", "topospike", "sweep", str(recipe), "--folder", str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *options],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweep")
    recipe, folder = place / "small.yaml", place / "runs"
    recipe.write_text(RECIPE)
    return recipe, folder, sweep(recipe, folder, "--space", "train.learning_rate=0.1,0.0001")


def test_a_grid_of_two_leaves_ordinary_runs_and_names_the_best(swept):
    _, folder, result = swept
    assert result.returncode == 0, result.stderr
    content = json.loads((folder / "sweep.json").read_text())
    assert [trial["settings"]["train.learning_rate"] for trial in content["trials"]] == [
        0.1,
        0.0001,
    ]
    scores = [trial["score"] for trial in content["trials"]]
    assert content["best"] == content["trials"][scores.index(max(scores))]["folder"]
    assert content["judgement"]["rule"] == "accuracy of the trained network on the validation split"
    for trial in content["trials"]:
        assert trial["score"] == trial["validation"]
        for name in ("record.json", "evaluation.json", "model.safetensors", "report.html"):
            assert (Path(trial["folder"]) / name).is_file()


def test_a_second_start_runs_what_is_new_and_judges_as_the_paper_does(swept):
    recipe, folder, _ = swept
    models = {path: path.stat().st_mtime_ns for path in folder.glob("*/model.safetensors")}
    again = sweep(
        recipe, folder, "--space", "train.learning_rate=0.1,0.0001", "--select", "paper",
        "--judge", "dcgs",
    )  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in models} == models
    content = json.loads((folder / "sweep.json").read_text())
    assert content["judgement"]["select"] == "paper"
    for trial in content["trials"]:
        assert trial["score"] == trial["test"]


def test_a_point_out_of_range_is_refused_before_any_trial(swept):
    recipe, folder, _ = swept
    before = (folder / "sweep.json").read_text()
    result = sweep(recipe, folder, "--space", "train.warmup_epochs=0,5")
    assert result.returncode == 2
    assert "train.warmup_epochs is 5.0" in result.stderr
    assert (folder / "sweep.json").read_text() == before


def test_a_trial_that_cannot_run_is_named_and_the_others_are_kept(swept):
    recipe, folder, _ = swept
    result = sweep(recipe, folder, "--space", "train.learning_rate=0.1,1e30", "--retries", "0")
    assert result.returncode == 2
    assert "1 of 2 trials failed" in result.stderr
    trials = json.loads((folder / "sweep.json").read_text())["trials"]
    assert [trial["error"] is None for trial in trials] == [True, False]
