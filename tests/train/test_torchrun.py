"""The command line under a real torchrun: same links on every process, killed, resumed."""

import importlib.util
import json
import os
import re
import signal
import time
from pathlib import Path

import pytest

from topospike.topology import Topology

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

RECIPE = """
threads: 1
dense_twin: false
data: {source: digits, batch_size: 64, limit_train: 400}
model: {name: small_cnn}
train: {epochs: 6, learning_rate: 0.05, warmup_epochs: 1}
sparsity: {rule: chts, linear: 0.99}
"""


def launch():
    path = Path(__file__).with_name("launch.py")
    spec = importlib.util.spec_from_file_location("launch", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def train(recipe, folder, *options):
    """Run to the end; returns (status, standard output, standard error)."""
    starter = launch()
    process = starter.torchrun("train", recipe, "--folder", folder, *options)
    with starter.killed_at_the_end([process]):
        output, errors = process.communicate(timeout=starter.DEADLINE)
    return process.returncode, output, errors


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def uninterrupted(recipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return folder, train(recipe, folder)


def record_of(folder):
    return json.loads((folder / "record.json").read_text())


def worker(process, rank):
    """Process id of a worker of torchrun, found by the rank in its environment."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in children:
        if f"\0RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes():
            return int(pid)
    raise AssertionError(f"torchrun has no worker {rank} among {children}")


def wait_for(path, process, seconds=90):
    end = time.monotonic() + seconds
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.01)


def test_two_processes_train_the_same_links_and_one_of_them_writes(uninterrupted):
    folder, (status, output, errors) = uninterrupted
    assert status == 0, errors
    assert output.count("trained networks:") == 1
    record = record_of(folder)
    assert record["processes"] == 2
    # Both processes compared their masks before process 0 wrote this.
    assert record["topology_digest"] == Topology.load(folder / "topology.npz").digest
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    epochs = [line["epoch"] for line in lines if line["kind"] == "epoch"]
    assert epochs == list(range(6))
    assert lines[-1]["validation_accuracy"] > 0.5
    updates = [line["epoch"] for line in lines if line["kind"] == "topology_update"]
    assert updates == sorted(set(updates))
    assert updates


def test_a_finished_run_is_kept(uninterrupted, recipe):
    folder, _ = uninterrupted
    before = (folder / "metrics.jsonl").read_bytes()
    status, _, errors = train(recipe, folder)
    assert status == 0, errors
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_killing_one_process_ends_the_run_with_a_message_and_it_resumes(
    uninterrupted, recipe, tmp_path
):
    starter = launch()
    process = starter.torchrun("train", recipe, "--folder", tmp_path)
    with starter.killed_at_the_end([process]):
        wait_for(tmp_path / "checkpoint" / "epoch-00002.safetensors", process)
        os.kill(worker(process, 1), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert re.search(r"error \(process 0\): .*another process of this run", errors), errors
    assert re.search(r"the checkpoint after \d epochs is intact in", errors)
    assert "Run the same command again to go on from there" in errors
    assert "Signal 9 (SIGKILL)" in errors
    assert not (tmp_path / "topology.npz").exists()
    status, _, errors = train(recipe, tmp_path)
    assert status == 0, errors
    whole = uninterrupted[0]
    assert record_of(tmp_path)["topology_digest"] == record_of(whole)["topology_digest"]
    weights = [folder / "model.safetensors" for folder in (whole, tmp_path)]
    assert weights[0].read_bytes() == weights[1].read_bytes()
