"""Alter every kind of file of a finished run in every way, and run what reads it.

Each case is a fresh copy of the run, one altered file and one command, called in this process,
which may take 1 GiB more than it has and ten minutes a command. Counted as bad: a traceback, a
hang, more memory, a message of more than a line or of pages, and output that differs from that of
the untouched run though nothing was said. Prints what was bad, and how many cases ended how.

    python tests/damage/driver.py                  # every case, some thousand: an hour
    python tests/damage/driver.py --part 2/3       # a third of them
    python tests/damage/driver.py --cases 100      # so many, chosen by --seed
    python tests/damage/driver.py --only evaluation.json --seal 1   # every change is accepted first

Of every fourth case (``--seal``) the change is accepted before the command runs: then only a
traceback, a hang and the like are bad.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from alterations import EARLIER, OF_A_RUN, alterations

from topospike.cli.main import main as topospike
from topospike.errors import TopospikeError
from topospike.files.seal import forget
from topospike.pipeline import run_recipe, verify_run
from topospike.recipe.files import resolve, to_yaml

SETTINGS = {
    "threads": 1,
    "data": {"limit_train": 96, "limit_test": 32, "batch_size": 32},
    "model": {"name": "mlp", "hidden": [24, 16]},
    "train": {"epochs": 3},
    "sparsity": {"linear": 0.5, "keep_every": 1},
    "convert": [{"method": "sigma-delta", "timesteps": 2, "calibration_images": 32}],
    "measure": {"timesteps": 2},
}
MEMORY = 2**30
SECONDS = 600
LONGEST = 4000
# What a page says of files that are not the run's.
MARKS = (
    "was changed",
    "was not written by a stage",
    "There is no stages.json that names a stage",
    "Begun and not ended",
    "are not sealed",
    "There is no record.json",
    "is incomplete and was left out",
    "though a stage of the run wrote it",
)

CONVERT = ["convert", "{run}", "--method", "dcgs", "--calibration_images", "32"]
SHOW = ["convert", "{run}", "--method", "sigma-delta"]
MEASURE = ["simulate", "{run}", "--timesteps", "3"]
STREAM = ["simulate", "{run}", "--stream", "{run}/frames.npy"]
CSR = ["export", "{run}", "--to", "csr"]
PRUNE = ["prune", "{run}", "--method", "magnitude", "--to", "{run}-pruned"]
PRUNED = ["prune", "{run}", "--method", "magnitude", "--to", "{run}/pruned"]
REPORT, AGAIN = ["report", "{run}"], ["run", "{run}/recipe.yaml", "--folder", "{run}"]
SHOWN, ANALYSE = ["simulate", "{run}"], ["analyse", "{run}"]
ANEW = ["analyse", "{run}", "--nulls", "1", "--figures"]
VERIFY = ["verify", "{run}"]
CONVERSION = "conversions/sigma-delta"
FOLDER = [REPORT, SHOWN, CONVERT, SHOW, ANALYSE, ANEW, MEASURE, CSR, PRUNE, AGAIN, VERIFY]
READERS: dict[str, list[list[str]]] = {
    "record.json": [REPORT, SHOWN, CONVERT, ANALYSE, CSR, PRUNE, AGAIN, VERIFY],
    "stages.json": [REPORT, SHOWN, AGAIN, PRUNE, VERIFY],
    "summary.json": [REPORT, VERIFY],
    "metrics.jsonl": [REPORT, ANEW, VERIFY],
    "topology_report.json": [REPORT, ANALYSE, VERIFY],
    "topology_history.json": [REPORT, VERIFY],
    "topology.npz": [ANEW, CONVERT, SHOWN, ["export", "{run}", "--to", "npz"], VERIFY],
    "topologies/update-0001.npz": [ANEW, VERIFY],
    "model.safetensors": [CONVERT, VERIFY],
    "dense/model.safetensors": [CONVERT, PRUNE, VERIFY],
    "dense/metrics.jsonl": [REPORT],
    f"{CONVERSION}/evaluation.json": [REPORT, SHOWN, AGAIN, VERIFY],
    f"{CONVERSION}/conversion.json": [REPORT, SHOW, VERIFY],
    f"{CONVERSION}/activations.json": [REPORT, SHOW, VERIFY],
    f"{CONVERSION}/network/network.json": [MEASURE, CSR, STREAM, VERIFY],
    f"{CONVERSION}/network/TENSORS": [MEASURE, CSR, STREAM, VERIFY],
    "checkpoint/epoch-00003.safetensors": [AGAIN, VERIFY],
    "pruned/prune.json": [PRUNED],
    "recipe.yaml": [["run", "{run}/recipe.yaml", "--print_config"]],
    "frames.npy": [STREAM],
    # Several files at once, and whole folders, with their own seals.
    "record.json+stages.json": FOLDER,
    "record.json+stages.json+summary.json+model.safetensors+topology.npz": FOLDER,
    "stages.json+evaluation.json+conversion.json+topology_report.json": FOLDER,
    CONVERSION: FOLDER,
    "conversions": FOLDER,
    "dense": FOLDER,
    "topologies": [ANEW, VERIFY],
    "conversions/dcgs": [REPORT, VERIFY],
}


def make_runs(root: Path) -> tuple[Path, Path]:
    """Make a small run with one of everything, and another one to take files from."""
    runs = []
    for seed in (0, 1):
        recipe = resolve("demo", {**SETTINGS, "seed": seed})
        folder = root / f"run{seed}"
        run_recipe(recipe, folder, device="cpu", train_only=True)
        (folder / EARLIER).mkdir()
        for name in OF_A_RUN:
            shutil.copy(folder / name, folder / EARLIER)
        run_recipe(recipe, folder, device="cpu")
        (folder / "recipe.yaml").write_text(to_yaml(recipe))
        frames = np.random.default_rng(seed).integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
        np.save(folder / "frames.npy", frames)
        assert call(PRUNED, folder)[0] == 0
        runs.append(folder)
    # a conversion that the first run has not, with its copy in the other run alone
    shutil.copytree(runs[1] / CONVERSION, runs[1] / "conversions/dcgs")
    return runs[0], runs[1]


def placed(name: str, run: Path) -> Path:
    """Return a file of a run; the tensors of a saved network are named by their digest."""
    if name.endswith("TENSORS"):
        return next((run / name).parent.glob("tensors-*.safetensors"))
    return run / name


class Hang(BaseException):
    """A command took too long."""


def ring(*_: object) -> None:
    raise Hang


def call(command: list[str], run: Path) -> tuple[int | str, str, str]:
    """Run one command; return its exit status or what went wrong, what it showed, what it said."""
    arguments = [part.format(run=run) for part in command]
    shown, said = io.StringIO(), io.StringIO()
    if command is AGAIN and (run / "checkpoint/touched").exists():
        (run / "model.safetensors").unlink(missing_ok=True)
    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(said):
        try:
            status: int | str = topospike(arguments)
        except Hang:
            status = "hang"
        except MemoryError:
            status = "memory"
        except BaseException:
            status = traceback.format_exc()
        finally:
            signal.alarm(0)
    text = shown.getvalue()
    page = run / "report.html"
    if command is REPORT and status == 0:
        text += page.read_text()
    return status, plain(text, run), said.getvalue()


def plain(text: str, run: Path) -> str:
    """Take paths and times out of what was shown."""
    text = text.replace(str(run), "RUN")
    return re.sub(r"\d+(\.\d+)? (s|min|h)\b|[\d-]{10}[T ][\d:]{5,}", "TIME", text)


def judge(result: tuple[int | str, str, str], untouched: str, *, sealed: bool) -> str:
    """Say how a case ended; what begins with BAD must not happen."""
    status, shown, said = result
    if isinstance(status, str):
        return f"BAD: {status}"
    if len(said) > LONGEST or len(shown) > 2 * len(untouched) + LONGEST:
        return "BAD: says too much"
    if status == 2:
        errors = [line for line in said.splitlines() if line.startswith("error")]
        return "error" if len(errors) == 1 else f"BAD: unclear: {said[:300]}"
    if shown == untouched:
        return "harmless"
    if (
        any(remark in said for remark in ("was changed", "was not written by"))
        or "not what the run wrote" in said
    ):
        return "warned"
    if sealed or any(remark in shown for remark in MARKS):
        return "marked"
    return "BAD: silent"


def cases(arguments: argparse.Namespace) -> list[tuple[str, str, list[str]]]:
    """Return (file, alteration, command): all, or those that are asked for."""
    every = [
        (name, way, command)
        for name, commands in READERS.items()
        if arguments.only in name
        for way in alterations("x.safetensors" if name.endswith("TENSORS") else name)
        for command in commands
        # no stage answers for a checkpoint: a later one takes its place
        if not (name.startswith("checkpoint") and way == "nothing")
    ]
    random.Random(arguments.seed).shuffle(every)
    part, parts = map(int, arguments.part.split("/"))
    return every[: arguments.cases][part - 1 :: parts]


def limit_memory() -> None:
    """Let this process have no more than a gigabyte in addition to what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def work(root: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Run the cases; return how many ended how, and the bad ones."""
    original, other = make_runs(root)
    untouched: dict[str, str] = {}
    ends: Counter[str] = Counter()
    bad: list[str] = []
    chosen = cases(arguments)
    for _, _, command in chosen:  # first, so that every module is there before memory is limited
        key = " ".join(command)
        if key not in untouched:
            with copied(original, root) as run:
                status, untouched[key], said = call(command, run)
                assert status == 0, (command, status, said)
    limit_memory()
    for number, (name, way, command) in enumerate(chosen):
        with copied(original, root) as run:
            rng = random.Random(f"{arguments.seed} {name} {way}")
            try:
                for part in name.split("+"):
                    path = placed(part, run)
                    alterations(path.name)[way](path, rng, placed(part, other))
            except (ValueError, KeyError, StopIteration):
                continue
            if name.startswith("checkpoint"):
                (run / "checkpoint/touched").touch()
            accepted = bool(arguments.seal) and number % arguments.seal == 0 and sealed(run)
            # what a user hands over has no seal: other numbers are other frames
            accepted |= name == "frames.npy"
            end = judge(call(command, run), untouched[" ".join(command)], sealed=accepted)
        ends[end.split(":")[0]] += 1
        if end.startswith("BAD"):
            bad.append(f"{name} | {way} | {' '.join(command)} | {end}")
            print(bad[-1], flush=True)
        if number % 10 == 9:
            print(f"{number + 1} of {len(chosen)}: {dict(ends)}", file=sys.stderr, flush=True)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"ends": dict(ends), "bad": bad, "largest_gib": round(grown, 2)}


@contextlib.contextmanager
def copied(original: Path, root: Path) -> Iterator[Path]:
    """Give a copy of a run, and delete it afterwards."""
    run = root / "copy"
    shutil.copytree(original, run)
    forget()
    try:
        yield run
    finally:
        for folder in (run, root / "copy-pruned"):
            shutil.rmtree(folder, ignore_errors=True)


def sealed(run: Path) -> bool:
    """Accept what was done to a run; tell whether that was possible."""
    try:
        verify_run(run, accept=True)
    except TopospikeError:
        return False
    return True


def main(given: list[str] | None = None, show: Callable[[str], None] = print) -> None:
    """Parse the options and print the result as JSON, last."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, help="how many (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", help="such as 2/3: of three processes the second")
    parser.add_argument("--only", default="", help="files with this in their name")
    parser.add_argument("--seal", type=int, default=4, help="accept every so many changes, 0: none")
    arguments = parser.parse_args(given)
    warnings.filterwarnings("default")
    with tempfile.TemporaryDirectory() as root:
        show(json.dumps(work(Path(root), arguments)))


if __name__ == "__main__":
    main()
