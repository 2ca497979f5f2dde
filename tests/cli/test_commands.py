"""The other subcommands, on the folder of a finished run."""

import json
import shutil

import pytest
import yaml

from topospike.cli.main import main
from topospike.contracts import Evaluation
from topospike.recipe.files import resolve


def test_print_config_prints_a_recipe_and_runs_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "demo", "--train.epochs", "3", "--print_config"]) == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert resolve(str(printed)) == resolve("demo", {"train": {"epochs": 3}})
    assert [path.name for path in tmp_path.iterdir()] == ["printed.yaml"]


def test_train_stops_after_the_training_stages(tmp_path, tiny_recipe, capsys):
    folder = tmp_path / "run"
    options = ["--train.epochs", "1", "--folder", str(folder)]
    assert main(["train", str(tiny_recipe), *options]) == 0
    assert (folder / "model.safetensors").is_file()
    assert (folder / "dense" / "model.safetensors").is_file()
    assert not (folder / "conversions").exists()
    assert str(folder) in capsys.readouterr().out


def test_convert_adds_a_method_and_simulate_measures_it(finished_run, capsys):
    assert main(["convert", str(finished_run), "--method", "cs-qcfs", "--timesteps", "3"]) == 0
    text = capsys.readouterr().out
    assert "cs-qcfs" in text
    assert "thresholds" in text
    assert "relative error of decoded outputs against the ANN" in text
    place = finished_run / "conversions" / "cs-qcfs"
    assert (place / "conversion.json").is_file()
    assert not (place / "evaluation.json").exists()
    assert main(["simulate", str(finished_run), "--method", "cs-qcfs"]) == 0
    assert "CS-QCFS" in capsys.readouterr().out
    rows = json.loads((finished_run / "summary.json").read_text())["rows"]
    added = [row for row in rows if row["method"] == "cs-qcfs"]
    assert [row["network"] for row in added] == ["dense", "chts"]
    assert {row["timesteps"] for row in added} == {3}


@pytest.mark.slow
def test_one_method_is_converted_twice_under_two_names(finished_run, capsys):
    rate = ["--method", "dcgs", "--options.coding", "rate", "--name", "dcgs-rate"]
    before = (finished_run / "conversions" / "dcgs" / "conversion.json").read_text()
    assert main(["convert", str(finished_run), *rate]) == 0
    assert (finished_run / "conversions" / "dcgs" / "conversion.json").read_text() == before
    again = json.loads((finished_run / "conversions/dcgs-rate/conversion.json").read_text())
    assert (again["method"], again["coding"]) == ("dcgs", "rate")
    assert main(["convert", str(finished_run), "--name", "dcgs-rate", "--options.levels", "2"]) == 0
    changed = json.loads((finished_run / "conversions/dcgs-rate/conversion.json").read_text())
    assert (changed["coding"], changed["levels"]) == ("rate", 2)
    assert main(["simulate", str(finished_run), "--method", "dcgs-rate"]) == 0
    rows = json.loads((finished_run / "summary.json").read_text())["rows"]
    assert [row["method"] for row in rows[::2]] == ["dcgs", "qcfs", "dcgs-rate"]
    assert main(["report", str(finished_run)]) == 0
    assert "dcgs-rate" in (finished_run / "report.html").read_text()


def test_converting_again_with_other_settings_drops_the_old_evaluation(finished_run):
    place = finished_run / "conversions" / "dcgs"
    before = json.loads((place / "conversion.json").read_text())
    assert main(["convert", str(finished_run), "--method", "dcgs", "--options.levels", "2"]) == 0
    after = json.loads((place / "conversion.json").read_text())
    assert (before["levels"], after["levels"]) == (4, 2)
    assert not (place / "evaluation.json").exists()


def test_simulate_runs_for_as_many_steps_as_asked(finished_run):
    assert main(["simulate", str(finished_run), "--timesteps", "7"]) == 0
    for place in (finished_run, finished_run / "dense"):
        for method in ("dcgs", "qcfs"):
            evaluation = Evaluation.load(place / "conversions" / method / "evaluation.json")
            assert evaluation.timesteps == (1, 2, 3, 4, 5, 6, 7)
    record = json.loads((finished_run / "record.json").read_text())
    assert record["recipe"]["measure"]["timesteps"] == 7


def test_simulate_takes_the_network_that_convert_saved(finished_run):
    saved = finished_run / "conversions" / "qcfs" / "network"
    assert (saved / "network.json").is_file()
    # with the trained weights gone, converting anew would fail
    (finished_run / "model.safetensors").unlink()
    (finished_run / "dense" / "model.safetensors").unlink()
    assert main(["simulate", str(finished_run), "--method", "qcfs", "--timesteps", "3"]) == 0
    found = Evaluation.load(finished_run / "conversions" / "qcfs" / "evaluation.json")
    assert found.timesteps == (1, 2, 3)


def test_a_longer_simulation_repeats_the_shorter_one(finished_run, original_run):
    assert main(["simulate", str(finished_run), "--timesteps", "7"]) == 0
    for name in ("evaluation.json", "dense/conversions/qcfs/evaluation.json"):
        short, long = Evaluation.load(original_run / name), Evaluation.load(finished_run / name)
        assert long.accuracy[:4] == short.accuracy
        assert long.energy_joule[:4] == pytest.approx(short.energy_joule)


def test_analyse_reads_a_folder_or_a_topology_file(finished_run, capsys):
    assert main(["analyse", str(finished_run)]) == 0
    of_folder = capsys.readouterr().out.splitlines()
    (finished_run / "topology_report.json").unlink()
    assert main(["analyse", str(finished_run / "topology.npz")]) == 0
    of_file = capsys.readouterr().out.splitlines()
    assert of_file[:-1] == of_folder[:-1]
    assert any(line.startswith("gamma") for line in of_file)
    assert (finished_run / "topology_report.json").is_file()
    # the stage's other file, the measures over the updates, is still the run's
    assert main(["verify", str(finished_run)]) == 0


@pytest.mark.slow
def test_analyse_compares_topologies_with_each_other_and_with_random_links(
    finished_run, original_run, tmp_path, capsys
):
    out = tmp_path / "comparison"
    other = shutil.copytree(original_run, tmp_path / "tiny")
    paths = [str(finished_run), str(other / "topology.npz")]
    assert main(["analyse", *paths, "--random", "--folder", str(out)]) == 0
    table = capsys.readouterr().out.splitlines()
    mine, theirs, random = json.loads((out / "comparison.json").read_text())
    assert [line.split()[0] for line in table[1:4]] == [mine["name"], theirs["name"], "random"]
    assert (mine["name"], theirs["name"]) == ("run", "tiny")
    assert mine["gamma"] == theirs["gamma"]
    assert random["links"] == mine["links"]
    assert random["modularity"] != mine["modularity"]
    assert (out / "figures" / "degrees.svg").is_file()


def test_a_topology_given_twice_is_refused(finished_run, capsys):
    assert main(["analyse", str(finished_run), str(finished_run)]) == 2
    assert "is given twice" in capsys.readouterr().err


@pytest.mark.slow
def test_report_writes_the_page_of_every_folder(finished_run, original_run, capsys):
    page = finished_run / "report.html"
    page.unlink()
    assert main(["report", str(finished_run), str(original_run)]) == 0
    assert page.is_file()
    assert capsys.readouterr().out.count("report: ") == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "dmeo"], "Did you mean 'demo'?"),
        (["run", "demo", "--train.epoch", "3"], "Did you mean '--train.epochs'?"),
        (["demo", "--measure.timesteps", "0"], "measure.timesteps is 0; 1 or more is required."),
        (["demo", "--sparsity.linear", "1.0"], "sparsity.linear is 1.0"),
        (["demo", "--sparsity.linear", "-0.1"], "sparsity.linear is -0.1"),
        (["demo", "--data.source", "no/such/folder"], "no/such/folder"),
        (["demo", "--model.name", "vgg61"], "Did you mean 'vgg16'?"),
        (["demo", "--convert", "[{method: dcsg}]"], "Did you mean 'dcgs'?"),
        (["demo", "--sparsity.rule", "cths"], "Did you mean 'chts'?"),
        (["demo", "--device", "cuda:77"], "device 'cuda:77' cannot be used here"),
        (["demo", "--device", "gpu"], "device 'gpu' cannot be used here"),
        (["convert", "nowhere"], "no folder 'nowhere'"),
        (["simulate", "nowhere"], "no folder 'nowhere'"),
        (["analyse", "nowhere"], "no folder 'nowhere'"),
        (["report", "nowhere"], "no run folder at 'nowhere'"),
        (["analyse", "nowhere.npz"], "nowhere.npz"),
    ],
)
def test_a_mistake_is_told_on_one_line_with_status_2(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_mistake_in_a_recipe_file_is_told_on_one_line(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({"sparsity": {"lineer": 0.9}}))
    assert main(["run", str(path)]) == 2
    assert "Did you mean 'sparsity.linear'?" in capsys.readouterr().err


def test_debug_shows_where_an_error_was_raised(capsys):
    assert main(["run", "dmeo", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_without_arguments_help_is_printed(capsys):
    assert main([]) == 2
    assert capsys.readouterr().out.startswith("usage: topospike")


def test_a_folder_that_is_not_a_run_is_refused(tmp_path, capsys):
    assert main(["simulate", str(tmp_path)]) == 2
    assert "is not a run folder: it has no record.json" in capsys.readouterr().err


@pytest.mark.parametrize("damage", [b"", b"not a network"])
def test_a_damaged_network_file_is_named_with_the_remedy(finished_run, capsys, damage):
    (finished_run / "model.safetensors").write_bytes(damage)
    assert main(["convert", str(finished_run), "--options.levels", "3"]) == 2
    message = capsys.readouterr().err
    assert "model.safetensors was changed since the stage 'train chts' wrote it" in message
    assert "Restore it" in message


def test_an_unknown_conversion_of_a_folder_is_refused(finished_run, capsys):
    assert main(["simulate", str(finished_run), "--method", "cs-qcfs"]) == 2
    assert "has no conversion 'cs-qcfs'; it has dcgs, qcfs" in capsys.readouterr().err


def test_zero_steps_are_refused_before_anything_is_loaded(finished_run, capsys):
    assert main(["simulate", str(finished_run), "--timesteps", "0"]) == 2
    assert "measure.timesteps is 0; 1 or more is required." in capsys.readouterr().err
