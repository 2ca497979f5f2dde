"""What all benchmarks share: alternating repetitions, medians, peak memory, the header.

A figure is worth something only beside another one from the same minute of the same machine. So the
things compared take turns, the median of the turns counts, and both the CPU time of the process and
the time on the clock are given: where the machine is shared, the first is the one to read.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from topospike.pipeline.folder.record import hardware


@dataclass(frozen=True)
class Duration:
    """Median seconds of one thing: of this process's CPU time, and on the clock."""

    cpu: float
    wall: float

    def __str__(self) -> str:
        return f"{seconds(self.cpu)} cpu, {seconds(self.wall)} wall"


def alternate(
    actions: Mapping[str, Callable[[], object]], repetitions: int, *, warm_up: int = 1
) -> dict[str, Duration]:
    """Run all actions in turn, ``repetitions`` times, and return the median of each."""
    for _ in range(warm_up):
        for action in actions.values():
            action()
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in actions}
    for _ in range(repetitions):
        for name, action in actions.items():
            turns[name].append(measured(action))
    return {
        name: Duration(statistics.median(c for c, _ in t), statistics.median(w for _, w in t))
        for name, t in turns.items()
    }


def measured(action: Callable[[], object]) -> tuple[float, float]:
    """Return CPU time and clock time of one call."""
    cpu, wall = time.process_time(), time.perf_counter()
    action()
    return time.process_time() - cpu, time.perf_counter() - wall


def peak_mib(action: Callable[[], object]) -> float:
    """Return by how much a call raises this process's resident memory at its peak (Linux, glibc).

    Memory that earlier calls freed but the allocator kept is handed back first; the call would use
    it unseen.
    """
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mib("VmRSS")
    action()
    return resident_mib("VmHWM") - before


def resident_mib(field: str) -> float:
    """Return one memory figure of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1024


def options(
    description: str | None,
    *,
    values: Mapping[str, int | str] | None = None,
    **choices: Sequence[str],
) -> argparse.Namespace:
    """Read --quick, --threads, --repetitions, values and choices; print the header."""
    parser = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: fewer and smaller")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    for name, default in (values or {}).items():
        parser.add_argument(f"--{name}", type=type(default), default=default)
    for name, known in choices.items():
        parser.add_argument(f"--{name}", choices=known, nargs="+", default=list(known))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    print("; ".join(f"{key} {value}" for key, value in hardware().items()))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"torch {torch.__version__}, {given.threads} thread(s), load average {load}\n")
    return given


def seconds(value: float) -> str:
    """Write a time in s, ms or us."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} us"


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table, first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(heading, *rows, strict=True)]
    for row in (heading, ["-" * width for width in widths], *rows):
        first, *rest = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]), flush=True)
    print()
