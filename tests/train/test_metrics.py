import json

import pytest

from topospike.errors import CheckpointError
from topospike.train.resume import MetricsLog


def test_lines_are_appended_and_cut_back_to_an_offset(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    assert log.offset == 0
    log.write("epoch", {"epoch": 0, "train_loss": 0.5})
    offset = log.offset
    log.write("epoch", {"epoch": 1, "train_loss": 0.25})
    log.write("topology_update", {"epoch": 1})
    log.truncate(offset)
    log.write("epoch", {"epoch": 1, "train_loss": None})
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        {"kind": "epoch", "epoch": 0, "train_loss": 0.5},
        {"kind": "epoch", "epoch": 1, "train_loss": None},
    ]


def test_a_file_shorter_than_the_checkpoint_says_is_refused(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("epoch", {"epoch": 0})
    with pytest.raises(CheckpointError, match=r"has 30 bytes.*it had 1000"):
        log.truncate(1000)
    assert log.offset == 30


def test_nan_is_not_json(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    with pytest.raises(ValueError, match="not JSON compliant"):
        log.write("epoch", {"train_loss": float("nan")})
    assert log.offset == 0


def test_without_a_path_nothing_is_written(tmp_path):
    log = MetricsLog(None)
    log.write("epoch", {"epoch": 0})
    log.truncate(0)
    assert log.offset == 0
