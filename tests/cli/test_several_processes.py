"""What a process other than the main one leaves alone; whole runs are in train/test_torchrun.py."""

import json

import pytest

from topospike.cli.main import main, speaker
from topospike.pipeline.folder.ledger import Ledger
from topospike.pipeline.folder.record import RunRecord
from topospike.recipe import Recipe


def test_only_the_main_process_writes_the_ledger(tmp_path):
    for writes in (False, True):
        ledger = Ledger(tmp_path, writes=writes)
        ledger.begin("train dense", {"seed": 0})
        ledger.end("train dense", outputs=[], seconds=1.0)
        assert ledger.is_complete("train dense", {"seed": 0})
        assert (tmp_path / "stages.json").exists() is writes


def test_only_the_main_process_writes_the_record(tmp_path):
    for rank in (1, 0):
        record = RunRecord(Ledger(tmp_path, writes=rank == 0), Recipe(), device="cpu", processes=2)
        record.write(data={"classes": 10})
        assert record.data == {"classes": 10}
        assert (tmp_path / "record.json").exists() is (rank == 0)
    assert json.loads((tmp_path / "record.json").read_text())["processes"] == 2


@pytest.mark.parametrize(
    ("variables", "prefix"),
    [
        ({}, "error: "),
        ({"WORLD_SIZE": "1", "RANK": "0"}, "error: "),
        ({"WORLD_SIZE": "4", "RANK": "3"}, "error (process 3): "),
    ],
)
def test_errors_say_which_process_speaks(monkeypatch, capsys, variables, prefix):
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "no-such-recipe"]) == 2
    assert capsys.readouterr().err.startswith(prefix)
    assert f"error{speaker()}: " == prefix
