"""The automatic executor: the fastest of those that keep to a tolerance, and it says so."""

import pytest
import torch
from tests.snn.networks import converted

import topospike as ts
from topospike.errors import ConfigError
from topospike.snn.executors import choice
from topospike.snn.executors.choice import choose_executor


def test_what_cannot_run_or_is_too_far_is_out() -> None:
    snn, x = converted("average pool")
    found = choose_executor(snn, x, 4, tolerance=1e-9)
    assert set(found.refused) == {"integer"}  # not quantised
    assert set(found.seconds) == {"decoded", "bf16", "event"}
    assert found.distance["event"] < 1e-9 < found.distance["bf16"]
    assert found.executor in ("decoded", "event")
    assert found.executor in found.text()
    with pytest.raises(ConfigError, match="tolerance is -1"):
        choose_executor(snn, x, 4, tolerance=-1)


def test_the_fastest_is_taken_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    snn, x = converted("average pool")
    snn, _ = ts.quantise_weights(snn)
    # runs take 9, 3, 7, 1 s in the order of the names
    spent = {"decoded": 9.0, "bf16": 3.0, "event": 7.0, "integer": 1.0}
    readings = iter([t for name in choice.EXECUTORS for t in (0.0, spent[name])])
    monkeypatch.setattr(choice.time, "perf_counter", lambda: next(readings))
    automatic = snn(x, 5, executor="auto")
    assert snn.choice is not None
    assert snn.choice.executor == "integer"
    assert torch.equal(automatic, snn(x, 5, executor="integer"))
    assert torch.equal(snn(x, 3, executor="auto"), snn(x, 3, executor="integer"))  # no new try


def test_what_is_measured_does_not_depend_on_the_executor() -> None:
    snn, x = converted("average pool", method="qcfs")
    snn, _ = ts.quantise_weights(snn)
    batches = [(x, torch.arange(len(x)) % 5)]
    expected = ts.evaluate(snn, batches, 4)
    for executor in ("event", "integer"):
        assert ts.evaluate(snn, batches, 4, executor=executor) == expected
