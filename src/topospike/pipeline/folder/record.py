"""Pipeline: ``record.json``, everything needed to say what a run was.

The resolved recipe, the commit of the checkout if there is one, package versions, hardware, seed,
seconds per stage, and every warning raised on the way. Written at the start and after each stage.
"""

from __future__ import annotations

import importlib.metadata
import logging
import os
import platform
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import topospike
from topospike.contracts import write_json
from topospike.errors import CheckpointError, MissingDataError
from topospike.files.reading import MOST_TEXT, shortened
from topospike.files.record import read_run_record
from topospike.files.seal import FILE as STAGES
from topospike.files.seal import RECORD, ChangedFileWarning, stages_of
from topospike.pipeline.folder.ledger import Ledger
from topospike.recipe import Recipe
from topospike.recipe.files import recipe_from, to_plain

LONGEST = MOST_TEXT - 100
"""Characters of a text that is kept, and of the remark that it was cut."""


class RunRecord:
    """The growing contents of ``record.json``, which the ledger of the folder seals."""

    def __init__(self, ledger: Ledger, recipe: Recipe, *, device: str, processes: int = 1) -> None:
        earlier = earlier_record(ledger.folder)
        self.ledger = ledger
        self._content: dict[str, Any] = {
            "recipe": to_plain(recipe),
            "topospike": topospike.__version__,
            "commit": commit(),
            "packages": package_versions(),
            "hardware": hardware(),
            "seed": recipe.seed,
            "device": device,
            "processes": processes,
            "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
            "command": [shortened(argument, LONGEST) for argument in sys.argv[1:]],
            "seconds": {},
            "data": earlier.get("data") if same_data(earlier, recipe) else None,
            "topology_digest": earlier.get("topology_digest"),
            "warnings": earlier.get("warnings", []),
        }

    @property
    def data(self) -> dict[str, Any] | None:
        """The description of the dataset, once it was loaded."""
        return self._content["data"]

    def write(self, **changes: Any) -> None:
        """Replace some entries, and write and seal the file."""
        self._content |= changes
        if not self.ledger.writes:
            return
        self.ledger.begin(RECORD, {})
        write_json(self.ledger.folder / RECORD, self._content)
        self.ledger.end(RECORD, outputs=[RECORD], seconds=0.0)

    def add_warning(self, message: str) -> None:
        """Keep a warning, once."""
        if message not in self._content["warnings"]:
            self._content["warnings"].append(message)


def earlier_record(folder: Path) -> dict[str, Any]:
    """Return what a folder says of its run so far; nothing, with a warning, if it was changed."""
    try:
        return read_run_record(folder, strict=True) or {}
    except CheckpointError as error:
        warnings.warn(f"{error} It is written anew.", ChangedFileWarning, stacklevel=3)
        return {}


def same_data(earlier: Mapping[str, Any], recipe: Recipe) -> bool:
    """Tell whether an earlier record is about the dataset of this recipe."""
    return earlier.get("recipe", {}).get("data") == to_plain(recipe.data)


def read_record(folder: Path, *, strict: bool = False) -> dict[str, Any]:
    """Read the record of a run folder; ``strict``: one changed after it was written is an error.

    Raises
    ------
    MissingDataError
        There is no such folder, or it is not a run folder.
    CheckpointError
        The file cannot be read.
    """
    path = folder / RECORD
    if not folder.is_dir():
        raise MissingDataError(
            f"no folder {str(folder)!r}; give the folder that `topospike run` or `train` wrote."
        )
    if not os.path.lexists(path):
        raise MissingDataError(
            f"{str(folder)!r} is not a run folder: it has no {RECORD}. Give the folder that "
            "`topospike run` or `train` wrote."
        )
    return read_run_record(folder, strict=strict) or {}


def recorded_recipe(folder: Path) -> Recipe:
    """Return the recipe a run folder was made with, which its other stages are computed by.

    A record of an earlier version, which nothing seals, is used with a warning.

    Raises
    ------
    CheckpointError
        The record was changed after it was written, or is of another run.
    MissingDataError
        The folder holds no record, or nothing that could say whether it is the run's.
    """
    content = read_record(folder, strict=True)
    if not os.path.lexists(folder / STAGES):
        raise MissingDataError(
            f"{str(folder)!r} has no {STAGES}, so that nothing says whether its files are of one "
            "run. Restore it, or repeat the command that made the run."
        )
    if RECORD not in stages_of(folder):
        message = (
            f"{folder / RECORD} is not sealed: whether it is the run's cannot be told. Look "
            f"at it, then seal it: topospike verify {folder} --accept. Or repeat the command that "
            "made the run."
        )
        warnings.warn(message, ChangedFileWarning, stacklevel=2)
    return recipe_from(content.get("recipe", {}), source=f"the recipe in {folder / RECORD}")


def commit() -> str | None:
    """Return the commit of the checkout this package is imported from, ``+`` if files changed."""
    checkout = Path(topospike.__file__).parents[2]
    if not (checkout / ".git").exists():
        return None
    try:
        head = git(checkout, "rev-parse", "HEAD")
        return head + ("+" if git(checkout, "status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def git(checkout: Path, *arguments: str) -> str:
    """Return what a git command prints."""
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=10
    ).stdout.strip()


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of what topospike requires or can use, where it is here."""
    required = importlib.metadata.requires("topospike") or []
    used = [entry for entry in required if not re.search(r"extra == .(dev|docs)", entry)]
    versions = {"python": platform.python_version()}
    for name in sorted({re.split(r"[^\w.-]", entry)[0] for entry in used} - {"topospike"}):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def hardware() -> dict[str, Any]:
    """Return processor, cores, memory and accelerators of this machine."""
    import torch

    pages, page = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(pages * page / 2**30, 1),
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "platform": platform.platform(),
    }


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    information = Path("/proc/cpuinfo")
    if information.is_file():
        found = re.search(r"model name\s*:\s*(.+)", information.read_text())
        if found:
            return found[1]
    return platform.processor() or platform.machine()


@contextmanager
def collecting_warnings(record: RunRecord, show: Callable[[str], None]) -> Iterator[None]:
    """Put every warning and warning log message into the record, and show each once."""
    seen: set[str] = set()

    def take(message: str) -> None:
        message = shortened(message, LONGEST)
        record.add_warning(message)
        if message not in seen:
            seen.add(message)
            show(message)

    def take_warning(
        message: Warning | str, category: type[Warning], *_: Any, **__: Mapping[str, Any]
    ) -> None:
        take(f"{category.__name__}: {message}")

    class Taker(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            take(record.getMessage())

    handler = Taker(logging.WARNING)
    logger = logging.getLogger("topospike")
    logger.addHandler(handler)
    with warnings.catch_warnings():
        warnings.showwarning = take_warning
        try:
            yield
        finally:
            logger.removeHandler(handler)
