"""Pipeline: what of a run folder is as its stages wrote it (``topospike verify``)."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topospike.errors import CheckpointError, MissingDataError
from topospike.files.reading import read_record
from topospike.files.record import read_run_record
from topospike.files.seal import (
    CHANGED,
    FILE,
    INTACT,
    MISSING,
    RECORD,
    UNSEALED,
    ChangedFileWarning,
    is_of_run,
    of_no_stage,
    own_state,
    stages_of,
)
from topospike.pipeline.folder.ledger import ACCEPTED, Ledger
from topospike.pipeline.folder.lock import locked
from topospike.report.folder import BESIDE
from topospike.train.checkpoint import list_checkpoints, load_checkpoint

CHECKPOINT = "checkpoint"
FOREIGN = "of no stage"
NOT_THE_RUNS = (CHANGED, MISSING, FOREIGN)


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """One file of a run folder.

    Attributes
    ----------
    name
        Its path inside the folder.
    stage
        What wrote it.
    state
        ``intact``; ``accepted`` (edited, and sealed as it is); ``changed``; ``missing``; ``of no
        stage`` (where stages write, and none that has ended did); or ``not sealed`` (of a version
        before the seal: at most its size is known).
    """

    name: str
    stage: str
    state: str


@dataclass(frozen=True, slots=True)
class Verification:
    """Every file that a run folder answers for."""

    folder: Path
    files: tuple[CheckedFile, ...]

    @property
    def failed(self) -> tuple[CheckedFile, ...]:
        """The files that are not what the run wrote."""
        return tuple(file for file in self.files if file.state in NOT_THE_RUNS)

    def text(self) -> str:
        """Return how many files are in which state, on one line.

        Examples
        --------
        >>> files = (CheckedFile("a", "train", "intact"), CheckedFile("b", "train", "changed"))
        >>> Verification(Path("run"), files).text()
        'run: 1 intact, 1 changed'
        """
        counts = Counter(file.state for file in self.files)
        found = ", ".join(f"{count} {state}" for state, count in counts.items())
        return f"{self.folder}: {found or 'no stage has ended'}"


def verify_run(folder: str | Path, *, accept: bool = False) -> Verification:
    """Compare every file of a run folder with what the run wrote.

    Parameters
    ----------
    folder
        A run folder.
    accept
        Seal the files as they are, for edits that are meant; the report goes on saying which were
        edited. Also seals folders of versions before the seal. A missing file stays missing.

    Raises
    ------
    MissingDataError
        There is no such run folder.
    CheckpointError
        ``stages.json`` or ``record.json`` cannot be read at all.
    ConfigError
        Another command writes in the folder.

    Examples
    --------
    >>> import tempfile, topospike as ts
    >>> from topospike.recipe.files import resolve
    >>> small = {"train": {"epochs": 2}, "dense_twin": False, "analyse": False, "convert": []}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = ts.run_recipe(resolve("demo", small), folder, train_only=True, device="cpu")
    ...     verify_run(folder).failed
    ()
    """
    folder = Path(folder)
    if not (folder / FILE).is_file():
        raise MissingDataError(
            f"{folder} is no run folder: it has no {FILE}. Give the folder that `topospike run` "
            "or `train` wrote."
        )
    if accept:
        with locked(folder):
            accept_edits(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChangedFileWarning)  # it becomes a state
        ledger = Ledger(folder, writes=False)
        read_run_record(folder)
        own = CheckedFile(FILE, "all", own_state(read_record(folder / FILE, dict[str, Any])))
    found = [own, *stage_files(ledger)]
    if not (folder / RECORD).is_file() and RECORD not in {file.name for file in found}:
        found.append(CheckedFile(RECORD, "all", MISSING))
    for name in unnamed_files(folder):
        state = FOREIGN if of_no_stage(folder, name) else UNSEALED
        found.append(CheckedFile(name, "none", state))
    beside = files_beside(folder, accept=accept)
    names = {file.name for file in beside}  # the run beside says more of its own files
    found = [file for file in found if file.name not in names or file.state in NOT_THE_RUNS]
    return Verification(folder, (*found, *beside, *checkpoints(folder)))


def files_beside(folder: Path, *, accept: bool) -> list[CheckedFile]:
    """Return what the run beside answers for, without its checkpoints."""
    if not (folder / BESIDE / FILE).is_file():
        is_there = (folder / BESIDE / RECORD).is_file()
        return [CheckedFile(f"{BESIDE}/{FILE}", BESIDE, MISSING)] if is_there else []
    found = verify_run(folder / BESIDE, accept=accept).files
    return [
        CheckedFile(f"{BESIDE}/{file.name}", f"{BESIDE}, {file.stage}", file.state)
        for file in found
        if file.stage != CHECKPOINT
    ]


def accept_edits(folder: Path) -> None:
    """Seal what lies in a run folder as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ChangedFileWarning)
        ledger = Ledger(folder)
        ledger.accept(name for name in unnamed_files(folder) if name != RECORD)
        known = ledger.stages.get(RECORD)
        if read_run_record(folder) is not None and (known is None or known.seconds is None):
            ledger.begin(RECORD, {})
            ledger.end(RECORD, outputs=[RECORD], seconds=0.0)


def unnamed_files(folder: Path) -> list[str]:
    """Return what lies where stages write, and is of none that has ended; runs inside left out."""
    ended = [stage for stage in stages_of(folder).values() if stage.seconds is not None]
    known = {name for stage in ended for name in stage.outputs}
    there = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")))
    return [name for name in there if is_of_run(name) and name not in known]


def stage_files(ledger: Ledger) -> list[CheckedFile]:
    """Return the outputs of every stage that ended, and their state."""
    files = []
    for name, stage in ledger.stages.items():
        for output in stage.outputs if stage.seconds is not None else ():
            state = stage.state(ledger.folder, output)
            if state == INTACT and output in stage.accepted:
                state = ACCEPTED
            files.append(CheckedFile(output, name, state))
    return files


def checkpoints(folder: Path) -> list[CheckedFile]:
    """Return the checkpoints of a folder, which hold their own digests, and their state."""
    files = []
    for place in sorted(folder.rglob(CHECKPOINT)):
        for _, path in list_checkpoints(place):
            try:
                load_checkpoint(path)
                state = INTACT
            except CheckpointError:
                state = CHANGED
            files.append(CheckedFile(str(path.relative_to(folder)), CHECKPOINT, state))
    return files
