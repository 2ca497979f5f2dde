"""``sparsity.keep_every``: topologies saved over the updates, from the recipe to the page."""

import json
import signal
import subprocess
import sys
import time

import pytest

from topospike.analysis import read_history
from topospike.cli.main import main
from topospike.pipeline.analysing import AnalysisSettings, measured_series
from topospike.pipeline.networks import digest
from topospike.topology import Topology, saved_series


def command(name, recipe, folder, *options):
    return [name, str(recipe), "--folder", str(folder), *options]


def contents(folder):
    return {update: path.read_bytes() for update, path in saved_series(folder).items()}


def test_no_result_of_a_network_depends_on_what_is_kept():
    settings = {"seed": 0, "sparsity": {"rule": "chts", "keep_every": 0}}
    changed = {"seed": 0, "sparsity": {"rule": "chts", "keep_every": 5}}
    without = {"seed": 0, "sparsity": {"rule": "chts"}}
    assert digest(settings) == digest(changed) == digest(without)
    assert digest(settings) != digest({"seed": 0, "sparsity": {"rule": "set", "keep_every": 0}})


def test_training_keeps_the_first_topology_and_that_of_every_update(original_run):
    lines = [json.loads(line) for line in (original_run / "metrics.jsonl").read_text().splitlines()]
    updates = [line["update_index"] for line in lines if line["kind"] == "topology_update"]
    saved = {update: Topology.load(path) for update, path in saved_series(original_run).items()}
    assert updates
    assert list(saved) == [0, *updates]
    assert saved[updates[-1]] == Topology.load(original_run / "topology.npz")
    assert not saved_series(original_run / "dense")


def test_the_analysis_measures_each_and_the_page_shows_them(original_run):
    points = read_history(original_run / "topology_history.json")
    assert [point.update for point in points] == list(saved_series(original_run))
    report = json.loads((original_run / "topology_report.json").read_text())
    last = points[-1]
    assert (last.links, last.gamma, last.sigma) == (
        report["graph"]["links"],
        report["gamma"],
        report["sigma"],
    )
    assert "Evolution of the topology" in (original_run / "report.html").read_text()
    assert (original_run / "figures" / "evolution.svg").is_file()


def test_the_last_topology_is_measured_whatever_the_interval(finished_run):
    (finished_run / "topologies" / "update-0003.npz").unlink()
    settings = AnalysisSettings(nulls=1)
    points = measured_series(finished_run, settings, seed=0)
    assert [point.update for point in points] == [0, 1, 2, 3]
    for path in saved_series(finished_run).values():
        path.unlink()
    assert measured_series(finished_run, settings, seed=0) == ()


def test_keeping_others_is_refused(finished_run, tiny_recipe, capsys):
    again = command("train", tiny_recipe, finished_run, "--sparsity.keep_every")
    assert main([*again, "2"]) == 2
    assert "sparsity.keep_every (1, now 2)" in capsys.readouterr().err
    assert main([*again, "-1"]) == 2
    assert "sparsity.keep_every is -1; 0 or more is required" in capsys.readouterr().err


@pytest.mark.slow
def test_overwriting_removes_what_was_kept(finished_run, tiny_recipe):
    weights = (finished_run / "model.safetensors").read_bytes()
    again = command("train", tiny_recipe, finished_run, "--sparsity.keep_every", "0")
    assert main([*again, "--overwrite"]) == 0
    assert saved_series(finished_run) == {}
    assert (finished_run / "model.safetensors").read_bytes() == weights
    assert not (finished_run / "topology_history.json").exists()


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_files(tmp_path, tiny_recipe):
    options = ("--dense_twin", "false", "--train.epochs", "8", "--train.checkpoint_every", "3")
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert main(command("train", tiny_recipe, whole, *options)) == 0
    start = [sys.executable, "-m", "topospike", *command("train", tiny_recipe, cut, *options)]
    with subprocess.Popen(start, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(saved_series(cut)) < 5:
            assert process.poll() is None, "the run ended before it could be stopped"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (cut / "topology.npz").exists()
    assert main(command("train", tiny_recipe, cut, *options)) == 0
    assert contents(cut) == contents(whole)
    assert (cut / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_networks_trained_through_time_keep_theirs(tmp_path):
    recipe = tmp_path / "spiking.yaml"
    recipe.write_text(
        "threads: 1\n"
        "data: {limit_train: 160, limit_test: 40, batch_size: 32}\n"
        "model: {name: mlp, hidden: [24, 16]}\n"
        "train: {epochs: 4, optimizer: adamw, learning_rate: 0.01}\n"
        "direct: {rule: dpap, timesteps: 3, schedule: step, scale_epochs: true}\n"
        "sparsity: {keep_every: 1}\n"
        "dense_twin: false\n"
        "convert: [{method: direct, timesteps: 3}]\n"
    )
    folder = tmp_path / "run"
    assert main(command("train", recipe, folder)) == 0
    saved = saved_series(folder)
    assert list(saved) == [0, 1, 2, 3, 4]
    assert Topology.load(saved[0]).sparsity() == 0.0
    assert Topology.load(saved[4]) == Topology.load(folder / "topology.npz")
