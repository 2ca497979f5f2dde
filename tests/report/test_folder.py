"""Reading run folders: complete, partial, damaged."""

import json
import shutil

import pytest

from topospike.contracts import ActivationComparison, to_json
from topospike.errors import CheckpointError, MissingDataError
from topospike.report.folder import read_run


def test_a_complete_run_has_both_networks_and_all_methods(complete_run, evaluation_of):
    run = read_run(complete_run)
    assert [network.name for network in run.networks] == ["dense", "chts"]
    assert run.methods == ("dcgs", "qcfs")
    for network in run.networks:
        for method in run.methods:
            expected = evaluation_of(sparse=network.name != "dense", method=method)
            assert network.evaluations[method] == expected
    assert [note[:24] for note in run.notes] == ["There is no stages.json "]


def test_records_come_back_as_they_were_written(complete_run):
    run = read_run(complete_run)
    sparse = run.sparse
    written = json.loads((complete_run / "conversions" / "qcfs" / "conversion.json").read_text())
    assert to_json(sparse.conversions["qcfs"]) == written
    lines = [json.loads(line) for line in (complete_run / "metrics.jsonl").read_text().splitlines()]
    updates = [{**line, "seconds": None} for line in lines if line.pop("kind") == "topology_update"]
    assert [to_json(update) for update in sparse.updates] == updates
    assert run.topology.degrees.degree[0] == 1


def test_methods_follow_the_recipe_then_the_alphabet(run_writer):
    folder = run_writer(methods=("srp", "dcgs", "qcfs"))
    record = json.loads((folder / "record.json").read_text())
    record["recipe"]["convert"] = [{"method": "qcfs"}, {"method": "absent"}]
    (folder / "record.json").write_text(json.dumps(record))
    assert read_run(folder).methods == ("qcfs", "dcgs", "srp")


def test_a_folder_with_one_evaluation_at_the_top_is_read(run_writer, evaluation_of):
    folder = run_writer(dense=False, methods=("dcgs",))
    shutil.rmtree(folder / "conversions")
    (network,) = read_run(folder).networks
    assert network.evaluations == {"dcgs": evaluation_of(sparse=True, method="dcgs")}


def test_a_last_line_cut_by_a_kill_is_left_out_and_noted(run_writer):
    folder = run_writer()
    path = folder / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    run = read_run(folder)
    assert len(run.sparse.epochs) == 23
    assert "last line of metrics.jsonl" in run.notes[0]


def test_a_damaged_line_inside_the_log_is_an_error_with_its_number(run_writer):
    folder = run_writer()
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[2] = "{broken"
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(CheckpointError, match=r"metrics.jsonl.*line 3"):
        read_run(folder)


@pytest.mark.parametrize(
    "name", ["record.json", "summary.json", "conversions/dcgs/evaluation.json"]
)
def test_a_damaged_file_is_named(run_writer, name):
    folder = run_writer()
    (folder / name).write_text("{")
    with pytest.raises(CheckpointError, match=name):
        read_run(folder)


def test_a_file_with_a_field_of_another_type_is_named(run_writer):
    folder = run_writer()
    path = folder / "conversions" / "qcfs" / "conversion.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "levels": "red"}))
    with pytest.raises(CheckpointError, match=r"qcfs/conversion.json.*`int`, got `str`.*levels"):
        read_run(folder)


def test_the_comparison_of_activations_is_read_and_may_be_missing(run_writer):
    folder = run_writer()
    path = folder / "conversions" / "qcfs" / "activations.json"
    assert read_run(folder).networks[-1].comparisons["qcfs"] == ActivationComparison.load(path)
    path.unlink()
    assert "qcfs" not in read_run(folder).networks[-1].comparisons
    path.write_text('{"timesteps": [1]}')
    with pytest.raises(CheckpointError, match=r"qcfs/activations\.json"):
        read_run(folder)


def test_a_json_file_that_is_no_object_is_named(run_writer):
    folder = run_writer()
    (folder / "record.json").write_text("[1]")
    with pytest.raises(CheckpointError, match=r"record.json.*Expected `object`, got `array`"):
        read_run(folder)


def test_no_folder_and_no_run_in_it_are_told_apart(tmp_path):
    with pytest.raises(MissingDataError, match=r"no run folder at .*absent"):
        read_run(tmp_path / "absent")
    with pytest.raises(MissingDataError, match="is not a run folder"):
        read_run(tmp_path)


def test_a_comparison_that_misses_a_site_at_a_step_is_refused(run_writer):
    path = run_writer() / "conversions" / "qcfs" / "activations.json"
    plain = json.loads(path.read_text())
    plain["sites"][-1]["site"] = "another"
    path.write_text(json.dumps(plain))
    with pytest.raises(CheckpointError, match="not the same at every time step"):
        ActivationComparison.load(path)
