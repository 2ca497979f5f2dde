"""A run from recipe to report: what it writes, what it keeps, what it does again."""

import json
import signal
import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from topospike.analysis import TopologyReport
from topospike.cli.main import main
from topospike.contracts import Evaluation
from topospike.measure import split_saving
from topospike.topology import Topology, active_count

FILES = (
    "record.json",
    "summary.json",
    "stages.json",
    "report.html",
    "metrics.jsonl",
    "model.safetensors",
    "topology.npz",
    "topology_report.json",
    "evaluation.json",
    "conversion.json",
    "conversions/dcgs/evaluation.json",
    "conversions/dcgs/conversion.json",
    "conversions/qcfs/evaluation.json",
    "conversions/qcfs/conversion.json",
    "dense/metrics.jsonl",
    "dense/model.safetensors",
    "dense/evaluation.json",
    "dense/conversions/qcfs/evaluation.json",
)


RESULTS = ("model.safetensors", "conversions/dcgs/evaluation.json")


def stamps(folder):
    """Modification times of every file but those written at the end of every run."""
    renewed = {"record.json", "stages.json", ".lock", "summary.json", "report.html", "figures"}
    paths = [path for path in folder.rglob("*") if path.is_file() and not renewed & set(path.parts)]
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in paths}


def run_again(folder, recipe, *options):
    return main(["run", str(recipe), "--folder", str(folder), *options])


def test_a_run_writes_every_file_of_a_run_folder(original_run):
    assert [name for name in FILES if not (original_run / name).is_file()] == []
    assert list((original_run / "figures").glob("*.svg"))


def test_the_record_says_what_the_run_was(original_run):
    record = json.loads((original_run / "record.json").read_text())
    assert record["recipe"]["train"]["epochs"] == 4
    assert record["seed"] == 0
    assert record["data"]["test"] == 60
    assert record["data"]["train"] + record["data"]["validation"] == 240
    assert record["packages"]["torch"].startswith("2.")
    assert set(record["seconds"]) >= {"train dense", "train chts", "measure chts dcgs", "analyse"}
    assert all(seconds > 0 for seconds in record["seconds"].values())


def test_the_summary_reads_each_evaluation_at_its_own_step(original_run):
    rows = json.loads((original_run / "summary.json").read_text())["rows"]
    assert [(row["method"], row["network"], row["timesteps"]) for row in rows] == [
        ("dcgs", "dense", 2),
        ("dcgs", "chts", 2),
        ("qcfs", "dense", 4),
        ("qcfs", "chts", 4),
    ]
    for row in rows:
        place = original_run if row["network"] == "chts" else original_run / "dense"
        path = place / "conversions" / row["method"] / "evaluation.json"
        evaluation = Evaluation.load(path)
        assert row["snn_accuracy"] == evaluation.accuracy[row["timesteps"] - 1]
        assert row["energy_joule"] == evaluation.energy_joule[row["timesteps"] - 1]
        dense = Evaluation.load(original_run / "dense" / "conversions" / row["method"] / path.name)
        expected = row["energy_joule"] / dense.energy_joule[row["timesteps"] - 1]
        assert row["energy_ratio"] == pytest.approx(expected)
    assert rows[0]["energy_ratio"] == 1.0
    assert rows[0]["sparsity"] == 0.0


def test_the_summarys_sparsity_counts_every_weight_the_dense_classifier_too(original_run):
    row = json.loads((original_run / "summary.json").read_text())["rows"][1]
    weights = 64 * 48 + 48 * 32 + 32 * 10
    present = sum(Topology.load(original_run / "topology.npz").counts().values()) + 32 * 10
    assert row["sparsity"] == pytest.approx(1 - present / weights)


def test_the_files_on_top_are_those_of_the_first_conversion(original_run):
    for name in ("evaluation.json", "conversion.json"):
        first = (original_run / "conversions" / "dcgs" / name).read_bytes()
        assert (original_run / name).read_bytes() == first


def test_the_saved_network_has_the_saved_topology(original_run):
    state = load_file(original_run / "model.safetensors")
    masks = Topology.load(original_run / "topology.npz").masks
    assert masks
    for name, mask in masks.items():
        assert (state[f"{name}_mask"] == mask).all()
        assert not state[name][~mask].any()


def test_the_table_is_printed_as_plain_text(original_run, tiny_recipe, capsys):
    assert run_again(original_run, tiny_recipe) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["network", "conversion", "sparsity"]
    assert [line.split()[:2] for line in lines[1:5]] == [
        ["dense", "DCGS"],
        ["CHTs", "DCGS"],
        ["dense", "QCFS"],
        ["CHTs", "QCFS"],
    ]
    assert lines[-1].startswith("report: ")


def test_the_split_of_the_saving_is_printed_and_on_the_page(original_run, tiny_recipe, capsys):
    assert run_again(original_run, tiny_recipe) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index(next(line for line in lines if line.startswith("QCFS: energy per image")))
    assert "up to t = 4; first_layer mac_once" in lines[place]
    assert lines[place + 1].split()[-4:] == ["vs", "first", "links", "events"]
    path = "conversions/qcfs/evaluation.json"
    dense, sparse = (Evaluation.load(original_run / f / path) for f in ("dense", "."))
    saving = split_saving(sparse, 4, reference=dense)
    shown = [f"{part:.3f}" for part in (saving.ratio, saving.structural, saving.temporal)]
    assert lines[place + 3].split()[0] == "CHTs"
    assert lines[place + 3].split()[-3:] == shown
    assert "Where the saving comes from" in (original_run / "report.html").read_text()


def test_a_finished_run_is_not_repeated(finished_run, tiny_recipe):
    before = stamps(finished_run)
    assert run_again(finished_run, tiny_recipe) == 0
    assert stamps(finished_run) == before


def test_a_lost_evaluation_alone_is_made_again_and_is_the_same(finished_run, tiny_recipe):
    path = finished_run / "conversions" / "qcfs" / "evaluation.json"
    content, before = path.read_bytes(), stamps(finished_run)
    path.unlink()
    assert run_again(finished_run, tiny_recipe) == 0
    assert path.read_bytes() == content
    changed = {name for name, stamp in stamps(finished_run).items() if before[name] != stamp}
    kept = {"model.safetensors", "topology.npz", "topology_report.json", "metrics.jsonl"}
    assert not {name.name for name in changed} & kept


@pytest.mark.slow
def test_other_training_settings_are_refused_unless_overwriting(finished_run, tiny_recipe, capsys):
    model = finished_run / "model.safetensors"
    before = model.read_bytes()
    options = ("--sparsity.linear", "0.7")
    assert run_again(finished_run, tiny_recipe, *options) == 2
    message = capsys.readouterr().err
    assert "sparsity.linear (0.8, now 0.7)" in message
    assert "--overwrite" in message
    assert model.read_bytes() == before
    dense = {name: (finished_run / "dense" / name).stat().st_mtime_ns for name in RESULTS}
    assert run_again(finished_run, tiny_recipe, *options, "--overwrite") == 0
    topology = Topology.load(finished_run / "topology.npz")
    assert topology.sparsity() == pytest.approx(0.7, abs=1e-3)
    for name in RESULTS:
        assert (finished_run / "dense" / name).stat().st_mtime_ns == dense[name]


@pytest.mark.slow
def test_settings_that_change_no_result_do_not_train_again(finished_run, tiny_recipe):
    before = stamps(finished_run)
    assert run_again(finished_run, tiny_recipe, "--train.checkpoint_every", "2") == 0
    assert stamps(finished_run) == before


@pytest.mark.slow
def test_a_run_without_dense_twin_has_no_ratio(tmp_path, tiny_recipe, capsys):
    options = ("--dense_twin", "false", "--analyse", "false", "--train.epochs", "1")
    assert run_again(tmp_path / "run", tiny_recipe, *options) == 0
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["rows"]
    assert {row["network"] for row in rows} == {"chts"}
    assert {row["energy_ratio"] for row in rows} == {None}
    assert not (tmp_path / "run" / "topology_report.json").exists()


def command(folder, recipe):
    return [sys.executable, "-m", "topospike", "run", str(recipe), "--folder", str(folder)]


def wait_for(path, process):
    """Wait until a file exists, while the process that writes it lives."""
    deadline = time.monotonic() + 60
    while not list(path.parent.glob(path.name)):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.slow
@pytest.mark.parametrize("stopped", ["dense/checkpoint/epoch-*", "checkpoint/epoch-*"])
def test_a_killed_run_ends_with_the_same_weights_and_links(
    tmp_path, tiny_recipe, original_run, stopped
):
    folder = tmp_path / "run"
    with subprocess.Popen(command(folder, tiny_recipe), stdout=subprocess.DEVNULL) as process:
        wait_for(folder / stopped, process)
        process.send_signal(signal.SIGKILL)
    assert not (folder / "summary.json").exists()
    assert run_again(folder, tiny_recipe) == 0
    for name in ("model.safetensors", "dense/model.safetensors"):
        assert (folder / name).read_bytes() == (original_run / name).read_bytes()
    digests = [Topology.load(place / "topology.npz").digest for place in (folder, original_run)]
    assert digests[0] == digests[1]
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in epochs if line["kind"] == "epoch"] == [0, 1, 2, 3]


def heed_interrupts():
    """Undo what a shell does to jobs it starts in the background: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.mark.slow
def test_ctrl_c_ends_with_130_and_says_how_to_go_on(tmp_path, tiny_recipe):
    folder = tmp_path / "run"
    with subprocess.Popen(
        [*command(folder, tiny_recipe), "--train.epochs", "1000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,  # it calls nothing but the kernel
    ) as process:
        wait_for(folder / "dense/checkpoint/epoch-*", process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.startswith("stopped.")
    assert "same command again" in errors
    assert "Traceback" not in errors


def test_the_topology_report_is_about_the_saved_topology(original_run):
    report = TopologyReport.load(original_run / "topology_report.json")
    assert report.digest == Topology.load(original_run / "topology.npz").digest


def test_a_topology_of_correlated_pixels_starts_from_the_training_images(tmp_path, tiny_recipe):
    folder = tmp_path / "csti"
    options = ["--sparsity.initial_topology", "csti", "--sparsity.rule", "static"]
    options += ["--dense_twin", "false", "--train.epochs", "1"]
    assert main(["train", str(tiny_recipe), "--folder", str(folder), *options]) == 0
    first = Topology.load(folder / "topology.npz").masks["layers.0.weight"]
    # digits leave their outer columns almost blank: constant pixels correlate with nothing
    assert first.sum() == active_count(first.numel(), 0.8)
    assert not first[:, 0].any()
    assert first[:, 27].any()
