"""Kill training at random moments, repeat the command, and compare every file with a whole run's.

Each kind of run (masked, compact, quantised, pruned, three that train through time, two processes)
is made once in one go. Then it is started again in another folder and killed (SIGKILL to all its
processes) after a random time, again and again until it comes to its end. What it left must be the
same, bit for bit, but for times: weights, topologies, metrics, checkpoints, evaluations.

    python tests/damage/kills.py                        # 56 kills, eight kinds
    python tests/damage/kills.py --kills 6 --kinds dpap pruned
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from topospike.recipe.files import resolve, to_yaml
from topospike.topology import Topology
from topospike.train.checkpoint import load_checkpoint

COMMON: dict[str, Any] = {
    "threads": 1,
    "data": {"limit_train": 160, "limit_test": 32, "batch_size": 32},
    "dense_twin": False,
    "train": {"epochs": 4},
    "convert": [{"method": "dcgs", "timesteps": 2, "calibration_images": 32}],
    "measure": {"timesteps": 2},
    "analyse": False,
}
SMALL_CONV = {"name": "conv6fc2", "widths": [8, 8, 8, 8, 8, 8], "hidden": [16]}
THROUGH_TIME: dict[str, Any] = {
    "model": SMALL_CONV,
    "convert": [{"method": "direct", "timesteps": 2}],
    "measure": {"timesteps": 2, "first_layer": "mac_per_step"},
}


def through_time(rule: str) -> dict[str, Any]:
    return {**THROUGH_TIME, "direct": {"rule": rule, "timesteps": 2, "scale_epochs": True}}


KINDS: dict[str, dict[str, Any]] = {
    "masked": {"sparsity": {"linear": 0.9}},
    "compact": {"train": {"epochs": 4, "execution": "compact"}, "sparsity": {"linear": 0.95}},
    "quantised": {
        "quantise": {"epochs": 2, "channel_epochs": 2},
        "convert": [{"method": "cs-qcfs", "timesteps": 2}],
    },
    "pruned": {"dense_twin": True, "prune": {"method": "magnitude", "fine_tune": 0.5}},
    "dpap": through_time("dpap"),
    "sd-snn": through_time("sd-snn"),
    "evolve": {**through_time("evolve"), "direct": {"rule": "evolve", "timesteps": 2}},
    "two-processes": {"sparsity": {"linear": 0.9}},
}
TIMES = ("seconds", "started", "command")
SKIPPED = ("record.json", "stages.json", ".lock")


def command(kind: str, recipe: Path, folder: Path) -> list[str]:
    """Return the command of a kind of run."""
    start = [sys.executable, "-m"]
    if kind == "two-processes":
        start += ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    action = "train" if kind == "two-processes" else "run"
    return [*start, "topospike", action, str(recipe), "--folder", str(folder), "--device", "cpu"]


def family(pid: int) -> list[int]:
    """Return a process and all that it has started, also in sessions of their own."""
    tasks = Path(f"/proc/{pid}/task")
    started = [int(word) for each in tasks.glob("*/children") for word in each.read_text().split()]
    return [pid, *(member for child in started for member in family(child))]


def carry_out(arguments: list[str], seconds: float | None) -> tuple[bool, float]:
    """Run a command, killed with its children after some seconds; tell whether it ended itself."""
    started = time.monotonic()
    with subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:  # fmt: skip
        try:
            _, said = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            for member in family(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(member, signal.SIGKILL)
            process.communicate()
            return False, time.monotonic() - started
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)} ended with {process.returncode}:\n{said}")
    return True, time.monotonic() - started


def without_times(value: Any) -> Any:
    """Return plain values without how long anything took."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if k not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every value of nested ones with its place; tensors as bytes."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in items:
            yield from flat(item, f"{place}.{key}")
    elif isinstance(value, torch.Tensor):
        yield place, value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    else:
        yield place, value


def content(path: Path) -> dict[str, Any]:
    """Return what is in a file, without times, by place."""
    if path.suffix == ".safetensors" and path.parent.name == "checkpoint":
        stored = without_times(load_checkpoint(path))
        stored.pop("metrics_offset")  # lines with times of other lengths
        return dict(flat(stored))
    if path.suffix == ".jsonl":
        return dict(flat([without_times(json.loads(line)) for line in path.open()]))
    if path.suffix == ".json":
        return dict(flat(without_times(json.loads(path.read_text()))))
    if path.suffix == ".npz":
        return {"digest": Topology.load(path).digest}
    return {"bytes": path.read_bytes()}


def differences(whole: Path, killed: Path) -> list[str]:
    """Name every place in which two folders differ."""
    kinds = (".json", ".jsonl", ".npz", ".safetensors")
    names = {
        path.relative_to(root)
        for root in (whole, killed)
        for path in root.rglob("*")
        if path.is_file() and path.suffix in kinds and path.name not in SKIPPED
    }
    found = []
    for name in sorted(names):
        if not ((whole / name).is_file() and (killed / name).is_file()):
            found.append(f"{name} is in one folder only")
            continue
        one, other = content(whole / name), content(killed / name)
        places = [k for k in {**one, **other} if one.get(k, 0) != other.get(k, 0)]
        found += [f"{name}: {place}" for place in places[:5]]
    return found


def one_kind(kind: str, root: Path, kills: int, rng: random.Random) -> list[str]:
    """Make one kind of run whole, then kill it so many times on the way to its end."""
    recipe = root / f"{kind}.yaml"
    recipe.write_text(to_yaml(resolve("demo", {**COMMON, **KINDS[kind]})))
    _, seconds = carry_out(command(kind, recipe, root / kind), None)
    found, done, runs = [], 0, 0
    while done < kills:
        runs += 1
        folder = root / f"{kind}-{runs}"
        ended, before = False, done
        while not ended:
            limit = rng.uniform(0.2, 1.0) * seconds if done < kills else None
            ended, took = carry_out(command(kind, recipe, folder), limit)
            done += not ended
        if done == before:  # the machine has become faster; later kills would all come too late
            seconds = min(seconds, took)
        found += [f"{kind}, run {runs}: {text}" for text in differences(root / kind, folder)]
    print(f"{kind}: {done} kills in {runs} runs of {seconds:.0f} s, {len(found)} differences")
    sys.stdout.flush()
    return found


def main() -> None:
    """Parse the options, run every kind, and fail if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=7, help="of each kind (default: 7)")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    found = []
    with tempfile.TemporaryDirectory() as root:
        for kind in arguments.kinds:
            found += one_kind(kind, Path(root), arguments.kills, rng)
    print("\n".join(found) or "every file is the same, bit for bit, but for times")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
