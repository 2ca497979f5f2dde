"""The record of a run: packages, hardware, commit, and the warnings raised on the way."""

import json
import logging
import subprocess
import warnings
from pathlib import Path

import pytest

import topospike
from topospike.errors import CheckpointError, MissingDataError
from topospike.pipeline.folder.ledger import Ledger
from topospike.pipeline.folder.record import (
    RunRecord,
    collecting_warnings,
    commit,
    hardware,
    package_versions,
    read_record,
    recorded_recipe,
)
from topospike.recipe.files import resolve


@pytest.fixture
def record(tmp_path):
    return RunRecord(Ledger(tmp_path), resolve("demo"), device="cpu")


def test_a_record_gives_its_recipe_back(record, tmp_path):
    record.write()
    assert recorded_recipe(tmp_path) == resolve("demo")
    content = read_record(tmp_path)
    assert content["topospike"] == topospike.__version__
    assert content["device"] == "cpu"
    assert content["started"].endswith("+00:00")


def test_the_start_and_the_data_of_an_earlier_call_are_kept(record, tmp_path):
    record.write(started="2026-01-01T00:00:00+00:00", data={"classes": 10})
    again = RunRecord(
        Ledger(tmp_path), resolve("demo", {"measure": {"timesteps": 4}}), device="cpu"
    )
    assert again.data == {"classes": 10}
    again.write()
    assert read_record(tmp_path)["started"] == "2026-01-01T00:00:00+00:00"


def test_data_of_another_dataset_are_not_taken_over(record, tmp_path):
    record.write(data={"classes": 10})
    other = resolve("demo", {"data": {"limit_train": 100}})
    assert RunRecord(Ledger(tmp_path), other, device="cpu").data is None


def test_packages_are_those_the_project_requires():
    versions = package_versions()
    assert {"python", "torch", "numpy", "igraph", "jsonargparse"} <= set(versions)
    assert "pytest" not in versions


def test_hardware_names_processor_and_memory():
    found = hardware()
    assert found["cpu"]
    assert found["cores"] >= 1
    assert found["memory_gib"] > 0.1


def test_the_commit_is_that_of_the_checkout_or_none():
    checkout = Path(topospike.__file__).parents[2]
    if (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
        head = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        assert commit() in (head, head + "+")
    else:
        assert commit() is None


def test_warnings_and_logged_warnings_are_recorded_once_and_shown(record, tmp_path):
    shown = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with collecting_warnings(record, shown.append):
            for _ in range(2):
                warnings.warn("thresholds\nare low", UserWarning, stacklevel=1)
            logging.getLogger("topospike.topology.classifier").warning("cannot %s", "trace")
            logging.getLogger("topospike.topology.classifier").info("quiet")
    assert shown == ["UserWarning: thresholds are low", "cannot trace"]
    record.write()
    assert json.loads((tmp_path / "record.json").read_text())["warnings"] == shown


def test_a_missing_or_damaged_record_is_named(tmp_path):
    with pytest.raises(MissingDataError, match="no folder"):
        read_record(tmp_path / "nowhere")
    with pytest.raises(MissingDataError, match=r"has no record\.json"):
        read_record(tmp_path)
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"record\.json is damaged"):
        read_record(tmp_path)
