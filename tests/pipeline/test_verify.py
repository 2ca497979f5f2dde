"""What a run folder says of its files: intact, changed, missing, accepted, or never sealed."""

import json
import os
import shutil
import subprocess
import sys
import warnings

import pytest

from topospike.cli.main import main
from topospike.contracts import Evaluation, to_json
from topospike.errors import CheckpointError, ConfigError, MissingDataError
from topospike.export import load
from topospike.files.seal import ChangedFileWarning, changed_since, forget, with_own_digest
from topospike.pipeline import run_recipe, verify_run
from topospike.pipeline.folder.ledger import Ledger, read_stages
from topospike.pipeline.folder.lock import FILE as LOCK
from topospike.pipeline.folder.lock import locked
from topospike.recipe.files import resolve
from topospike.report import write_report

SMALL = {
    "threads": 1,
    "data": {"limit_train": 96, "limit_test": 32, "batch_size": 32},
    "model": {"name": "mlp", "hidden": [24, 16]},
    "train": {"epochs": 2},
    "sparsity": {"linear": 0.5},
    "convert": [{"method": "qcfs", "timesteps": 2, "calibration_images": 32}],
    "measure": {"timesteps": 2},
    "analyse": False,
}
EVALUATION = "conversions/qcfs/evaluation.json"


# Shown in a command as they are by default, not raised.
pytestmark = pytest.mark.filterwarnings("always::topospike.files.seal.ChangedFileWarning")


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "small"
    run_recipe(resolve("demo", SMALL), folder, device="cpu")
    return folder


@pytest.fixture(scope="module")
def another(tmp_path_factory):
    """A run of the same recipe with another seed."""
    folder = tmp_path_factory.mktemp("runs") / "another"
    run_recipe(resolve("demo", {**SMALL, "seed": 1}), folder, device="cpu")
    return folder


@pytest.fixture
def folder(tmp_path, original):
    forget()
    return shutil.copytree(original, tmp_path / "run")


def states(folder):
    forget()
    return {file.name: file.state for file in verify_run(folder).files}


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_every_file_that_a_command_reads_is_sealed(folder):
    found = states(folder)
    assert set(found.values()) == {"intact"}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    shown = {name for name in there - set(found) if not name.startswith("figures/")}
    assert shown == {LOCK, "report.html"}


def with_a_flipped_bit(path, place):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    return bytes(content)


@pytest.mark.parametrize("name", ["stages.json", "record.json", "model.safetensors", EVALUATION])
def test_a_flipped_bit_is_found_wherever_it_lies(folder, name):
    """In a value the file is a changed one; in a name or a bracket it may be one error as well."""
    path, size = folder / name, (folder / name).stat().st_size
    intact = path.read_bytes()
    for place in {*range(0, size, max(size // 40, 1)), *range(size - 90, size, 3)}:
        path.write_bytes(with_a_flipped_bit(path, place))
        try:
            found = [file for file, state in states(folder).items() if state != "intact"]
        except CheckpointError as error:
            found = [file for file in ("stages.json", "record.json") if file in str(error)]
        assert name in found, place
        # A digest that is changed in the stages no longer fits its file.
        assert name == "stages.json" or len(found) == 1, place
        path.write_bytes(intact)


def test_a_missing_file_is_missing_and_a_pipe_is_changed(folder):
    (folder / EVALUATION).unlink()
    (folder / "topology.npz").unlink()
    os.mkfifo(folder / "topology.npz")
    found = states(folder)
    assert (found[EVALUATION], found["topology.npz"]) == ("missing", "changed")


def test_changed_weights_stop_every_command_that_computes_from_them(folder, capsys):
    path = folder / "dense" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\x80\x3f")
    command = ["convert", str(folder), "--method", "dcgs", "--calibration_images", "32"]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert "dense/model.safetensors was changed since the stage 'train dense' wrote it" in told
    assert f"topospike verify {folder} --accept" in told


def test_a_changed_report_is_marked_in_the_terminal_and_on_the_page(folder, capsys):
    path = folder / EVALUATION
    edit(path, ann_energy_joule=1.0)
    assert main(["report", str(folder)]) == 0
    told = capsys.readouterr().err
    assert told.count("evaluation.json was changed since the stage 'measure") == 1
    assert "was changed since the stage" in (folder / "report.html").read_text()
    forget()
    with pytest.warns(ChangedFileWarning, match=r"evaluation\.json was changed"):
        assert Evaluation.load(path).ann_energy_joule == 1.0


def test_a_changed_recipe_stops_what_would_be_computed_by_it(folder, capsys):
    record = json.loads((folder / "record.json").read_text())
    record["recipe"]["measure"]["timesteps"] = 10**6
    (folder / "record.json").write_text(json.dumps(record))
    assert main(["simulate", str(folder)]) == 2
    assert (
        "record.json was changed since the stage 'record.json' wrote it" in capsys.readouterr().err
    )


COMPUTING = (
    ["convert", "--method", "dcgs", "--calibration_images", "32"],
    ["analyse"],
    ["simulate"],
    ["prune", "--method", "magnitude"],
    ["export", "--to", "npz"],
)


@pytest.mark.slow
@pytest.mark.parametrize("foreign", [["record.json"], ["stages.json"]])
def test_a_record_or_stages_of_another_run_stop_what_would_be_computed(
    folder, another, foreign, capsys
):
    for name in foreign:
        shutil.copy(another / name, folder / name)
    for command, *options in COMPUTING:
        assert main([command, str(folder), *options]) == 2, command
        assert "record.json was changed since the stage 'record.json' wrote it, or it or" in (
            capsys.readouterr().err
        )
    assert main(["report", str(folder)]) == 0
    assert "or it or stages.json is of another run" in (folder / "report.html").read_text()
    assert "record.json" in [name for name, state in states(folder).items() if state != "intact"]


def test_record_and_stages_of_another_run_do_not_fit_the_files(folder, another, capsys):
    for name in ("record.json", "stages.json"):
        shutil.copy(another / name, folder / name)
    for command, *options in (COMPUTING[0], COMPUTING[-1]):
        assert main([command, str(folder), *options]) == 2
        assert "wrote it, or it or stages.json is of another run" in capsys.readouterr().err
    changed = {name for name, state in states(folder).items() if state == "changed"}
    assert {EVALUATION, "topology.npz", "model.safetensors", "metrics.jsonl"} <= changed


@pytest.mark.slow
def test_what_no_stage_wrote_is_named_wherever_stages_write(folder, another, capsys):
    shutil.copytree(another / "conversions" / "qcfs", folder / "conversions" / "dcgs")
    shutil.copytree(another / "conversions" / "qcfs", folder / "mine")
    added = "conversions/dcgs/evaluation.json"
    assert main(["report", str(folder)]) == 0
    assert f"{added} was not written by a stage that has ended: it may be of another run" in (
        capsys.readouterr().err
    )
    assert states(folder)[added] == "of no stage"
    assert not [name for name in states(folder) if name.startswith("mine")]
    with pytest.raises(CheckpointError, match="not written by"), pytest.warns(ChangedFileWarning):
        load(folder / "conversions" / "dcgs" / "network")
    assert load(folder / "mine" / "network").report.method == "qcfs"
    assert main(["verify", str(folder), "--accept"]) == 0
    assert states(folder)[added] == "accepted"
    run_recipe(resolve("demo", {**SMALL, "convert": [{"method": "dcgs"}]}), folder, device="cpu")
    forget()
    assert not verify_run(folder, accept=True).failed  # tensors that were replaced are forgotten
    assert states(folder)[added] == "intact"


def test_a_whole_run_inside_another_one_is_none_of_its_conversions(folder, another, capsys):
    shutil.copytree(another, folder / "conversions" / "whole")
    assert main(["report", str(folder)]) == 0
    told = capsys.readouterr().err
    assert "conversions/whole/evaluation.json was not written by a stage" in told
    assert "of no stage" in set(states(folder).values())


def test_the_run_beside_is_known_by_what_its_training_wrote(tmp_path):
    log = tmp_path / "direct" / "metrics.jsonl"
    log.parent.mkdir()
    outer, inner = Ledger(tmp_path), Ledger(log.parent)
    for text, ledgers in (("a", (inner, outer)), ("b", (inner,))):  # then another one, all sealed
        log.write_text(text)
        for ledger in ledgers:
            ledger.begin("train", {})
            ledger.end("train", outputs=[str(log.relative_to(ledger.folder))], seconds=1.0)
        complaint = changed_since(log)
        assert (complaint is None) == (text == "a")
    assert f"topospike verify {tmp_path} --accept" in complaint


def test_weights_of_a_training_that_has_not_ended_are_refused(folder, capsys):
    Ledger(folder).begin("train dense", {})
    assert main(["convert", str(folder), *COMPUTING[0][1:]]) == 2
    assert "a stage that has not ended (train dense, convert dense dcgs)" in capsys.readouterr().err
    assert main(["report", str(folder)]) == 0
    assert "Begun and not ended: train dense" in (folder / "report.html").read_text()


def test_a_command_killed_while_it_writes_the_record_leaves_a_usable_folder(folder, capsys):
    Ledger(folder).begin("record.json", {})
    edit(folder / "record.json", seconds={})
    assert main(["simulate", str(folder)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert set(states(folder).values()) == {"intact"}


def test_without_stages_nothing_is_computed_and_the_page_says_so(folder, capsys):
    (folder / "stages.json").unlink()
    assert main(["simulate", str(folder)]) == 2
    assert "has no stages.json, so that nothing says" in capsys.readouterr().err
    assert main(["report", str(folder)]) == 0
    assert "There is no stages.json" in (folder / "report.html").read_text()


def test_an_accepted_edit_is_no_longer_refused_and_stays_named(folder, capsys):
    edit(folder / EVALUATION, ann_energy_joule=1.0)
    assert main(["verify", str(folder)]) == 2
    assert "1 of" in capsys.readouterr().err
    assert main(["verify", str(folder), "--accept"]) == 0
    assert states(folder)[EVALUATION] == "accepted"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_report(folder)
    page = (folder / "report.html").read_text()
    assert f"Edited after the run or of no stage of it, and accepted: {EVALUATION}" in page


def test_accepting_does_not_bring_back_what_is_missing(folder):
    (folder / EVALUATION).unlink()
    forget()
    assert [file.name for file in verify_run(folder, accept=True).failed] == [EVALUATION]


def test_a_folder_of_an_earlier_version_is_read_and_called_not_sealed(folder, capsys):
    path = folder / "stages.json"
    new = ("sha256", "record.json")
    stages = {k: v for k, v in json.loads(path.read_text()).items() if k not in new}
    for stage in stages.values():
        del stage["sha256"], stage["accepted"]
    path.write_text(json.dumps(stages))
    edit(folder / "record.json", sha256="of an earlier version, which nothing compares")
    assert main(["report", str(folder)]) == 0
    assert "are not sealed" in (folder / "report.html").read_text()
    assert main(["verify", str(folder)]) == 0
    assert "not sealed" in capsys.readouterr().out
    assert set(states(folder).values()) == {"not sealed", "intact"}  # checkpoints hold their own
    forget()
    assert not verify_run(folder, accept=True).failed
    assert set(states(folder).values()) == {"intact"}


def test_repeating_the_command_repeats_the_stage_of_a_deleted_file(folder):
    before = (folder / EVALUATION).read_bytes()
    (folder / EVALUATION).unlink()
    run_recipe(resolve("demo", SMALL), folder, device="cpu")
    assert (folder / EVALUATION).read_bytes() == before
    assert set(states(folder).values()) == {"intact"}


def test_a_resealed_record_that_contradicts_itself_is_one_error(folder, capsys):
    record = json.loads((folder / EVALUATION).read_text())
    edit(folder / EVALUATION, sops=record["sops"][:-1])
    forget()
    verify_run(folder, accept=True)
    assert main(["report", str(folder)]) == 2
    assert "sops has 1 values for 2 time steps" in capsys.readouterr().err


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(MissingDataError, match=r"no run folder: it has no stages\.json"):
        verify_run(tmp_path)
    (tmp_path / "stages.json").write_text("[[[[")
    with pytest.raises(CheckpointError, match=r"stages\.json is damaged"):
        verify_run(tmp_path)
    outside = {"train": {"settings": {}, "outputs": {"../x": 1}, "seconds": 1.0}}
    (tmp_path / "stages.json").write_text(json.dumps(with_own_digest(outside)))
    with pytest.raises(CheckpointError, match="not inside the run folder"):
        verify_run(tmp_path)


HOLDER = """
import sys, time
from pathlib import Path
from topospike.pipeline.folder.lock import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_second_command_is_refused_and_a_killed_one_leaves_no_lock(folder, capsys):
    command = [sys.executable, "-c", HOLDER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            assert main(["simulate", str(folder)]) == 2
            told = capsys.readouterr().err
            assert f"another command writes in {folder}: process {holder.pid} on " in told
            assert main(["report", str(folder)]) == 0  # only reads the run
        finally:
            holder.kill()
    assert (folder / LOCK).read_text() != ""
    with locked(folder), locked(folder):
        assert json.loads((folder / LOCK).read_text())["pid"] == os.getpid()


def test_what_is_in_the_way_of_a_lock_is_named(tmp_path):
    (tmp_path / LOCK).mkdir()
    with pytest.raises(ConfigError, match=r"\.lock cannot be written"), locked(tmp_path):
        pass


def test_a_record_comes_back_as_it_was_written(original):
    evaluation = Evaluation.load(original / EVALUATION)
    assert to_json(evaluation) == json.loads((original / EVALUATION).read_text())


def test_a_file_belongs_to_the_stage_that_wrote_it_last(tmp_path):
    ledger, report = Ledger(tmp_path), tmp_path / "report.json"
    for stage, text in (("analyse", "a"), ("analyse topology.npz", "bb"), ("analyse", "ccc")):
        ledger.begin(stage, {})
        report.write_text(text)
        (tmp_path / "history.json").write_text("h")
        outputs = ["report.json"] if " " in stage else ["report.json", "history.json"]
        ledger.end(stage, outputs=outputs, seconds=0.0)
        owners = [name for name, known in ledger.stages.items() if "report.json" in known.outputs]
        assert owners == [stage]
    assert set(read_stages(tmp_path)["analyse"].sha256) == {"report.json", "history.json"}
