"""Pruning a run's dense network, and recipes whose sparse network is a pruned one."""

import json

import pytest

from topospike.cli.main import main
from topospike.pipeline.pruning import first_phase, second_phase
from topospike.pruning import PruneReport
from topospike.recipe.files import resolve
from topospike.topology import Topology, share_count


@pytest.fixture(scope="module")
def pruned_run(tmp_path_factory, original_run):
    folder = tmp_path_factory.mktemp("pruned") / "tiny-ria"
    options = ["--method", "ria", "--sparsity", "0.6", "--calibration_images", "40"]
    assert main(["prune", str(original_run), "--to", str(folder), *options]) == 0
    return folder


def test_a_pruned_run_holds_the_pruned_network_beside_the_dense_one(pruned_run, original_run):
    topology = Topology.load(pruned_run / "topology.npz")
    for name, links in topology.counts().items():
        possible = topology.masks[name].numel()
        assert possible - links == share_count(possible, 0.6)
    report = PruneReport.load(pruned_run / "prune.json")
    assert (report.method, report.images, report.comparison) == ("ria", 40, "layer")
    for name in ("model.safetensors", "evaluation.json"):
        ours, theirs = (run / "dense" / name for run in (pruned_run, original_run))
        assert ours.read_bytes() == theirs.read_bytes()
    recipe = json.loads((pruned_run / "record.json").read_text())["recipe"]
    assert recipe["prune"]["method"] == "ria"
    assert recipe["sparsity"]["linear"] == 0.6


def test_it_converts_and_measures_like_any_run(pruned_run, capsys):
    assert main(["convert", str(pruned_run), "--method", "dcgs"]) == 0
    assert main(["simulate", str(pruned_run), "--method", "dcgs", "--timesteps", "2"]) == 0
    rows = json.loads((pruned_run / "summary.json").read_text())["rows"]
    assert {row["network"] for row in rows} == {"dense", "ria"}
    ratios = {row["network"]: row["energy_ratio"] for row in rows if row["method"] == "dcgs"}
    assert ratios["ria"] < 0.8 * ratios["dense"]
    assert "ria" in capsys.readouterr().out


def test_pruning_again_with_the_same_settings_does_nothing(pruned_run, original_run):
    model = pruned_run / "model.safetensors"
    before = model.stat().st_mtime_ns
    command = ["prune", str(original_run), "--to", str(pruned_run), "--method", "ria"]
    assert main([*command, "--sparsity", "0.6", "--calibration_images", "40"]) == 0
    assert model.stat().st_mtime_ns == before


def test_the_table_names_every_layer(original_run, tmp_path, capsys):
    command = ["prune", str(original_run), "--to", str(tmp_path / "m"), "--method", "magnitude"]
    assert main([*command, "--sparsity", "0.5"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1][:4] == ["layers.0", "48", "x", "64"]
    assert "1" in lines[1]
    assert ["pruned", "layers"] in [line[:2] for line in lines]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "no method to prune by; add --method, one of magnitude"),
        (["--method", "wander"], "unknown pruning method 'wander'"),
        (["--method", "wanda", "--sparsity", "1.5"], "sparsity.linear is 1.5"),
    ],
)
def test_what_is_refused(original_run, tmp_path, capsys, options, message):
    assert main(["prune", str(original_run), "--to", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_a_dense_network(pruned_run, tmp_path, tiny_recipe, capsys):
    options = ["--dense_twin", "false", "--train.epochs", "1"]
    folder = tmp_path / "sparse"
    assert main(["train", str(tiny_recipe), "--folder", str(folder), *options]) == 0
    capsys.readouterr()
    assert main(["prune", str(folder), "--method", "ri"]) == 2
    assert "holds no trained dense network to prune" in capsys.readouterr().err


@pytest.mark.slow
def test_a_recipe_trains_prunes_and_trains_on(tmp_path, tiny_recipe):
    folder = tmp_path / "run"
    options = ["--prune.method", "depgraph", "--prune.fine_tune", "0.5", "--prune.tolerance", "0.2"]
    command = ["run", str(tiny_recipe), "--folder", str(folder), "--dense_twin", "false"]
    assert main([*command, *options]) == 0
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == 2
    assert len((folder / "pretrained" / "metrics.jsonl").read_text().splitlines()) == 2
    report = PruneReport.load(folder / "prune.json")
    links = {f"{layer.name}.weight": layer.links for layer in report.layers}
    assert Topology.load(folder / "topology.npz").counts() == links
    assert list(json.loads((folder / "stages.json").read_text()))[:3] == [
        "record.json",
        "train pretrained",
        "prune depgraph",
    ]
    before = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").unlink()
    assert main([*command, *options]) == 0
    assert (folder / "model.safetensors").read_bytes() == before


def test_the_phases_of_the_published_baselines():
    vgg, resnet = resolve("cifar10-vgg16-depgraph"), resolve("cifar10-resnet18-depgraph")
    assert [phase(vgg).epochs for phase in (first_phase, second_phase)] == [200, 100]
    assert first_phase(vgg).learning_rate == 0.1
    assert second_phase(vgg).learning_rate == pytest.approx(0.01)
    assert (first_phase(vgg).warmup_epochs, second_phase(vgg).warmup_epochs) == (5, 0)
    assert first_phase(resnet).milestones == (40.0, 80.0, 106.0)
    assert second_phase(resnet).milestones == (20.0, 40.0, 54.0)
