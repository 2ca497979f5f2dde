"""``topospike analyse``: options, figures, and topologies side by side."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from topospike.analysis import TopologyReport
from topospike.cli.comparison import short_names, shuffled
from topospike.cli.main import main
from topospike.errors import ConfigError
from topospike.files.record import read_stages
from topospike.pipeline.analysing import write_figures
from topospike.topology import Topology


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Two topologies of one network that differ in the links and in their number."""
    folder = tmp_path_factory.mktemp("saved")
    rng = np.random.default_rng(0)
    for name, density in (("one", 0.1), ("two", 0.2)):
        masks = {
            "fc1.weight": torch.tensor(rng.random((30, 40)) < density),
            "fc2.weight": torch.tensor(rng.random((20, 30)) < density),
        }
        Topology.from_masks(masks).save(folder / f"{name}.npz")
    return folder


def test_options_reach_the_analysis(saved, capsys):
    options = ["--chain", "fc2", "--nulls", "2", "--reduction", "LE", "--consistency", "1"]
    assert main(["analyse", str(saved / "one.npz"), *options]) == 0
    report = TopologyReport.load(saved / "one_report.json")
    assert report.disk is not None
    assert report.consistency is not None
    assert (report.chain, report.nulls, report.disk.reduction) == (("fc2.weight",), 2, "LE")
    assert report.consistency.draws == 1
    assert "structural consistency" in capsys.readouterr().out


def test_random_links_stand_beside_the_topologies(saved, tmp_path, capsys):
    paths = [str(saved / f"{name}.npz") for name in ("one", "two")]
    folder = tmp_path / "compared"
    options = ["--random", "--nulls", "1", "--folder", str(folder)]
    assert main(["analyse", *paths, *options]) == 0
    rows = json.loads((folder / "comparison.json").read_text())
    assert [row["name"] for row in rows] == ["one", "two", "random", "random 2"]
    assert [row["links"] for row in rows[:2]] == [row["links"] for row in rows[2:]]
    assert {path.name for path in (folder / "figures").iterdir()} == {"disks.svg", "degrees.svg"}
    assert "random 2" in capsys.readouterr().out


def test_random_links_keep_the_number_in_every_layer(saved):
    topology = Topology.load(saved / "one.npz")
    random = shuffled(topology, seed=1)
    for name, mask in topology.masks.items():
        assert random.masks[name].sum() == mask.sum()
        assert not torch.equal(random.masks[name], mask)
    assert random.digest == shuffled(topology, seed=1).digest


@pytest.mark.slow
def test_a_run_keeps_its_analysis_until_the_options_change(finished_run, capsys):
    path = finished_run / "topology_report.json"
    before = path.read_bytes()
    assert main(["analyse", str(finished_run)]) == 0
    assert path.read_bytes() == before
    assert main(["analyse", str(finished_run), "--nulls", "3", "--figures"]) == 0
    assert TopologyReport.load(path).nulls == 3
    drawn = {p.stem for p in (finished_run / "figures").glob("*.png")}
    assert {"disk-native", "disk-poincare", "adjacency", "degree-distribution"} <= drawn
    assert {"percolation", "evolution"} <= drawn
    assert str(finished_run / "figures" / "percolation.png") in capsys.readouterr().out


def test_a_topology_without_links_draws_nothing(tmp_path):
    Topology.from_masks({"fc.weight": torch.zeros(3, 3, dtype=torch.bool)}).save(tmp_path / "e.npz")
    assert main(["analyse", str(tmp_path / "e.npz"), "--nulls", "1"]) == 0
    report = TopologyReport.load(tmp_path / "e_report.json")
    assert write_figures(report, tmp_path / "figures") == []


def test_what_cannot_be_analysed_is_told_on_one_line(saved, tmp_path, capsys):
    assert main(["analyse", str(saved / "one.npz"), "--reduction", "IS0"]) == 2
    assert "Did you mean 'ISO'?" in capsys.readouterr().err
    assert main(["analyse", str(saved / "one.npz"), "--chain", "fc3"]) == 2
    assert "'fc3' is not in the topology" in capsys.readouterr().err
    assert main(["analyse", str(tmp_path / "none.npz")]) == 2
    assert "none.npz" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="given twice"):
        short_names([Path("a"), Path("./a")])


@pytest.mark.slow
def test_graphs_of_different_layers_are_pointed_out(saved, tmp_path, capsys):
    paths = [str(saved / f"{name}.npz") for name in ("one", "two")]
    wide = Topology.load(saved / "one.npz").masks
    wide["fc3.weight"] = torch.ones(5, 20, dtype=torch.bool)
    Topology.from_masks(wide).save(tmp_path / "wide.npz")
    command = ["analyse", *paths, str(tmp_path / "wide.npz"), "--nulls", "0", "--folder"]
    assert main([*command, str(tmp_path / "compared")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "wide: fc1.weight, fc2.weight, fc3.weight). Compare the layers they share" in shown
    chain = ["--chain", "fc1.weight", "fc2.weight"]
    assert chain[0] + " fc1.weight fc2.weight." in shown
    assert main([*command, str(tmp_path / "compared"), *chain]) == 0
    assert "note:" not in capsys.readouterr().out


def test_a_run_that_did_not_end_is_told_apart(finished_run, capsys):
    (finished_run / "topology.npz").unlink()
    before = read_stages(finished_run)
    assert main(["analyse", str(finished_run)]) != 0
    assert "has no topology yet: 'chts' was not trained" in capsys.readouterr().err
    after = read_stages(finished_run)
    assert {**after, "record.json": None} == {**before, "record.json": None}


@pytest.mark.slow
def test_evolved_and_pruned_runs_stand_side_by_side(tmp_path, original_run, tiny_recipe, capsys):
    runs = {rule: tmp_path / rule for rule in ("cht", "rigl", "set", "depgraph")}
    for rule in ("cht", "rigl", "set"):
        options = ["--sparsity.rule", rule, "--dense_twin", "false", "--folder", str(runs[rule])]
        assert main(["train", str(tiny_recipe), *options]) == 0
    # Widths are whole numbers, which is coarse for layers of 48 and 32 neurons.
    pruned = ["--method", "depgraph", "--sparsity", "0.8", "--tolerance", "0.02"]
    assert main(["prune", str(original_run), *pruned, "--to", str(runs["depgraph"])]) == 0
    command = ["analyse", *map(str, runs.values()), "--random", "--nulls", "2", "--folder"]
    capsys.readouterr()
    assert main([*command, str(tmp_path / "default")]) == 0
    assert "depgraph: layers.0.weight, layers.2.weight, layers.4.weight" in capsys.readouterr().out
    chain = ["--chain", "layers.0", "layers.2"]
    assert main([*command, str(tmp_path / "shared"), *chain]) == 0
    assert "note:" not in capsys.readouterr().out
    rows = json.loads((tmp_path / "shared" / "comparison.json").read_text())
    assert [row["name"] for row in rows] == [*runs, "random", "random 2"]
    assert {tuple(row["sizes"]) for row in rows} == {(64, 48, 32)}
    by_name = {row["name"]: row for row in rows}
    # Whole channels go: the neurons that stay are fully linked, the others have no link.
    assert by_name["depgraph"]["anp"] < by_name["random 2"]["anp"]
    assert {path.name for path in (tmp_path / "shared" / "figures").iterdir()} == {
        "disks.svg",
        "degrees.svg",
    }
