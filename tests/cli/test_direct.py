"""Networks trained through time, from recipe to report, and the commands for converted ones."""

import json
import shutil

import pytest

from topospike.cli.arguments import EXPORTS
from topospike.cli.export import FOR_ANNS
from topospike.cli.main import main

SPIKING = """\
name: spiking
threads: 1
data: {limit_train: 160, limit_test: 40, batch_size: 32}
model: {name: mlp, hidden: [24, 16]}
train: {epochs: 4, optimizer: adamw, learning_rate: 0.01}
direct: {rule: dpap, timesteps: 3, schedule: step, scale_epochs: true}
dense_twin: false
analyse: false
convert: [{method: direct, timesteps: 3}]
measure: {timesteps: 3, first_layer: mac_per_step}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "spiking.yaml"
    path.write_text(SPIKING)
    return path


@pytest.fixture(scope="module")
def original(tmp_path_factory, recipe):
    folder = tmp_path_factory.mktemp("runs") / "spiking"
    assert main(["run", str(recipe), "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def run_folder(tmp_path, original):
    return shutil.copytree(original, tmp_path / "run")


def rows_of(folder):
    return json.loads((folder / "summary.json").read_text())["rows"]


def test_a_run_ends_with_a_row_and_a_second_one_does_nothing(run_folder, recipe):
    (row,) = rows_of(run_folder)
    assert (row["network"], row["method"], row["timesteps"]) == ("dpap", "direct", 3)
    assert row["energy_joule"] > 0
    model = run_folder / "model.safetensors"
    before = model.stat().st_mtime_ns
    assert main(["run", str(recipe), "--folder", str(run_folder)]) == 0
    assert model.stat().st_mtime_ns == before


def test_a_lost_result_comes_back_from_the_checkpoint_as_it_was(run_folder, recipe):
    model, metrics = run_folder / "model.safetensors", run_folder / "metrics.jsonl"
    epochs = len(metrics.read_text().splitlines())
    weights = model.read_bytes()
    model.unlink()
    newest = max((run_folder / "checkpoint").glob("epoch-*"))
    assert main(["run", str(recipe), "--folder", str(run_folder)]) == 0
    assert model.read_bytes() == weights
    assert max((run_folder / "checkpoint").glob("epoch-*")) == newest
    assert len(metrics.read_text().splitlines()) == epochs


def test_simulate_measures_it_again_with_other_settings(run_folder, capsys):
    (before,) = rows_of(run_folder)
    command = ["simulate", str(run_folder), "--timesteps", "5", "--first_layer", "mac_once"]
    assert main(command) == 0
    assert "DPAP" in capsys.readouterr().out.upper()
    (after,) = rows_of(run_folder)
    evaluation = json.loads((run_folder / "conversions/direct/evaluation.json").read_text())
    assert len(evaluation["accuracy"]) == 5
    assert after["energy_joule"] != before["energy_joule"]


@pytest.mark.parametrize(
    ("command", "action"),
    [(["convert"], "converted"), (["convert", "--method", "dcgs"], "converted"),
     (["prune", "--method", "magnitude", "--sparsity", "0.5"], "pruned")],
)  # fmt: skip
def test_commands_for_anns_say_what_to_do_instead(run_folder, command, action, capsys):
    name, *options = command
    stages = (run_folder / "stages.json").read_bytes()
    assert main([name, str(run_folder), *options]) != 0
    message = " ".join(capsys.readouterr().err.split())
    assert f"only ANNs are {action}, and it spikes already" in message
    assert "To measure it: topospike simulate" in message
    assert (run_folder / "stages.json").read_bytes() == stages


@pytest.mark.parametrize("kind", EXPORTS)
def test_a_topology_is_exported_and_what_is_for_anns_is_refused(run_folder, kind, capsys):
    written = run_folder / "export" / f"dpap.{kind}"
    code = main(["export", str(run_folder), "--to", kind])
    if kind in FOR_ANNS:
        assert code == 2
        message = " ".join(capsys.readouterr().err.split())
        assert f"(direct.rule is 'dpap'), and --to {kind} writes {FOR_ANNS[kind]}" in message
        assert "--to graphml, npz or csv" in message
        assert not written.parent.exists()
    else:
        assert code == 0
        assert written.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["dpap", "sd-snn"])
def test_convolutions_trained_through_time_are_exported_as_a_graph(tmp_path, rule):
    recipe = tmp_path / "conv.yaml"
    conv = SPIKING.replace(
        "{name: mlp, hidden: [24, 16]}",
        "{name: conv6fc2, widths: [4, 4, 6, 6, 8, 8], hidden: [16]}",
    )
    recipe.write_text(conv.replace("rule: dpap", f"rule: {rule}"))
    folder = tmp_path / "run"
    assert main(["train", str(recipe), "--folder", str(folder), "--train.epochs", "1"]) == 0
    for kind in ("graphml", "npz", "csv"):
        assert main(["export", str(folder), "--to", kind]) == 0
        assert (folder / "export" / f"{rule}.{kind}").stat().st_size > 0
