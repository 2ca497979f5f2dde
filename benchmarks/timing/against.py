"""Two versions of the package side by side, to see whether a simulation has become slower.

Each version runs in a process of its own, on its own source tree, and the processes take turns row
by row, so that a busy minute meets all of them. A second process of *this* tree is timed with the
others: how far it is from the first is what the comparison cannot see.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[2]
METHODS = {"rate IF": "qcfs", "DCGS": "dcgs"}
"""Integrate-and-fire neurons in rate coding; multi-threshold ones in differential coding."""

WARM_UP = 2
"""Untimed calls: the first loads and compiles, the second lays out memory for the T in question."""


@dataclass(frozen=True)
class Row:
    """One simulation that every version is asked for."""

    network: str
    sparse: bool
    batch: int
    method: str
    engine: str
    timesteps: int

    def words(self) -> list[str]:
        """Return the cells that tell this row from others."""
        links = "few links" if self.sparse else "dense"
        name = f"{self.network}, {links}"
        return [name, str(self.batch), self.method, self.engine, str(self.timesteps)]


@contextmanager
def earlier(commit: str) -> Iterator[Path]:
    """Lay the files of a commit into a folder of its own, for as long as it is needed."""
    with TemporaryDirectory() as folder:
        archive = subprocess.run(
            ["git", "archive", commit, "src", "benchmarks"],
            cwd=ROOT,
            check=True,
            capture_output=True,
        ).stdout
        subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
        yield Path(folder)


class Version:
    """A process that simulates with the package of one source tree."""

    def __init__(self, tree: Path, rows: Sequence[Row], threads: int) -> None:
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(tree / "src"), str(tree / "benchmarks")])
        }
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(threads)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ask(json.dumps([asdict(row) for row in rows]))

    def __enter__(self) -> Version:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def ask(self, line: str) -> str:
        """Send a line, wait for the answer."""
        pipes = self.process.stdin, self.process.stdout
        if pipes[0] is None or pipes[1] is None:
            raise RuntimeError("the process of a version was started without pipes")
        pipes[0].write(line + "\n")
        pipes[0].flush()
        answer = pipes[1].readline()
        if not answer:
            raise RuntimeError("a version ended without an answer; its error is above")
        return answer

    def seconds(self, row: int) -> float:
        """Return the processor time of one simulation of a row."""
        return float(self.ask(str(row)))


def compare_versions(
    commit: str, rows: Sequence[Row], *, repetitions: int, threads: int
) -> list[list[str]]:
    """Return a row of a table for each simulation: seconds here, now over then, and the noise.

    The ratios are medians over the turns; the noise is the same ratio for two processes of this
    tree, and the range in which the middle half of the turns lies.
    """
    with ExitStack() as stack:
        then = stack.enter_context(earlier(commit))
        versions = [
            stack.enter_context(Version(tree, rows, threads)) for tree in (ROOT, then, ROOT)
        ]
        return [[*row.words(), *turns(versions, i, repetitions)] for i, row in enumerate(rows)]


def turns(versions: Sequence[Version], row: int, repetitions: int) -> list[str]:
    """Let this tree, the earlier one and this one again take turns at a row."""
    for version in versions:
        for _ in range(WARM_UP):
            version.seconds(row)
    took = [[version.seconds(row) for version in versions] for _ in range(repetitions)]
    now_over_then = [now / then for now, then, _ in took]
    now_over_now = [now / again for now, _, again in took]
    low, _, high = statistics.quantiles(now_over_then, n=4)
    return [
        f"{1e3 * statistics.median(now for now, _, _ in took):.1f}",
        f"{statistics.median(now_over_then):.3f}",
        f"{low:.3f}-{high:.3f}",
        f"{statistics.median(now_over_now):.3f}",
    ]


COLUMNS = (
    *("network", "batch", "neuron", "executor", "T"),
    *("ms", "now / then", "middle half", "now / now"),
)


def serve(threads: int) -> None:
    """Simulate the rows that are asked for, with whatever version the path leads to."""
    import torch

    import topospike as ts
    from timing.spiking import untrained

    torch.set_num_threads(threads)
    rows = [Row(**row) for row in json.loads(sys.stdin.readline())]
    print("ready", flush=True)
    held: dict[tuple[str, bool, int, str], tuple[ts.SpikingNetwork, torch.Tensor]] = {}
    for line in sys.stdin:
        row = rows[int(line)]
        key = row.network, row.sparse, row.batch, row.method
        if key not in held:
            held.clear()
            torch.manual_seed(1)
            x = torch.randn(row.batch, 3, 32, 32)
            model = untrained(row.network, sparse=row.sparse)
            calibration = torch.randn(max(16, min(row.batch, 32)), 3, 32, 32)
            held[key] = ts.convert(model, METHODS[row.method], calibration, timesteps=8), x
        snn, x = held[key]
        with torch.inference_mode():
            begun = time.process_time()
            snn(x, timesteps=row.timesteps, executor=row.engine)
            print(time.process_time() - begun, flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
