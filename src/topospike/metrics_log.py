"""What training wrote down: the lines of ``metrics.jsonl``, read in one place.

One JSON object a line, ``kind`` first; kinds that no page shows are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from topospike.contracts import TopologyUpdate
from topospike.files.ranges import Amount, Count, Share
from topospike.files.reading import decoded, read_bytes
from topospike.files.seal import digest, warn_if_changed

# A log grows with the run, and is decoded line by line.
MOST_BYTES = 2**28
REMEDY = "Restore the file, or delete it to leave the training out of what is shown."


@dataclass(frozen=True, slots=True)
class Epoch:
    """One epoch of training; the loss of validation is ``None`` in logs that do not hold it."""

    epoch: Count
    train_loss: float
    train_accuracy: Share
    validation_accuracy: Share | None
    learning_rate: Amount
    seconds: Amount
    validation_loss: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedUpdate(TopologyUpdate):
    """One topology update and the time it took; ``None`` in logs that do not hold it."""

    seconds: Amount | None = None


@dataclass(frozen=True, slots=True)
class TrainingLog:
    """Epochs and topology updates in their order; ``notes`` say what could not be read."""

    epochs: tuple[Epoch, ...] = ()
    updates: tuple[LoggedUpdate, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Line:
    """What every line says of itself."""

    kind: str


def read_log(path: str | Path) -> TrainingLog:
    """Read a training log; a last line cut short by a kill is left out, with a note.

    Raises
    ------
    MissingDataError
        There is no such file.
    CheckpointError
        A line is damaged; names it.
    """
    content = read_bytes(path, most=MOST_BYTES, remedy=REMEDY)
    warn_if_changed(Path(path), digest(content))
    lines, whole = content.splitlines(), content.endswith(b"\n")
    epochs: list[Epoch] = []
    updates: list[LoggedUpdate] = []
    for number, line in enumerate(lines, start=1):
        place = f"{path}, line {number}"
        if number == len(lines) and not whole:
            note = f"The last line of {Path(path).name} is incomplete and was left out."
            return TrainingLog(tuple(epochs), tuple(updates), (note,))
        kind = decoded(line, Line, place, remedy=REMEDY).kind
        if kind == "epoch":
            epochs.append(decoded(line, Epoch, place, remedy=REMEDY))
        elif kind == "topology_update":
            updates.append(decoded(line, LoggedUpdate, place, remedy=REMEDY))
    return TrainingLog(tuple(epochs), tuple(updates))
