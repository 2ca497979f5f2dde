"""Which recordings a folder holds, of which class, and which of them are for training.

Three layouts are read. ``SPLIT/CLASS/file`` (N-MNIST: ``Train/0/00002.bin``); the names of the
splits count without case. ``CLASS/file`` (CIFAR10-DVS): of every class the first nine tenths, in
the order of their numbers, are for training, which is the customary split. And DVS128 Gesture as it
is downloaded: recordings of several gestures, cut by a table of their times, in the two lists of
trials that come with it.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topospike.data.events.array import event_array
from topospike.data.events.readers import READERS, read_columns
from topospike.errors import CheckpointError, MissingDataError
from topospike.files.reading import read_bytes, reason

TRAIN_SHARE = 0.9
TRIALS = {"train": "trials_to_train.txt", "test": "trials_to_test.txt"}
TIMES = ("class", "startTime_usec", "endTime_usec")
FILES_AT_HAND = 2
"""Files whose events are kept while pieces are cut from them."""


@dataclass(frozen=True)
class Recording:
    """A file, or the piece of one from ``start`` to before ``end`` (microseconds), and its class.

    ``label`` counts from 0.
    """

    path: Path
    label: int
    start: int | None = None
    end: int | None = None

    def read(self, sensor: tuple[int, int]) -> np.ndarray:
        """Return its events."""
        t, x, y, p = columns_at_hand(self.path) if self.end else read_columns(self.path)
        place = str(self.path)
        if self.start is not None and self.end is not None:
            inside = (t >= self.start) & (t < self.end)
            t, x, y, p = (column[inside] for column in (t, x, y, p))
            place = f"{place} from {self.start} to {self.end} us"
        return event_array(t, x, y, p, sensor=sensor, place=place)


@functools.lru_cache(maxsize=FILES_AT_HAND)
def columns_at_hand(path: Path) -> tuple[np.ndarray, ...]:
    """Read a file of which several pieces are wanted one after the other."""
    return read_columns(path)


Splits = tuple[list[Recording], list[Recording], tuple[str, ...]]


def find_recordings(folder: Path, *, train_split: str, test_split: str) -> Splits:
    """Return the recordings for training, those for the test, and the names of the classes.

    Raises
    ------
    MissingDataError
        If the folder has none of the layouts, or a part of one is missing.
    """
    if (folder / TRIALS["train"]).is_file():
        return gesture_trials(folder)
    splits = {name.lower(): folder / name for name in names_of(folder)}
    wanted = [splits.get(split.lower()) for split in (train_split, test_split)]
    train, test = wanted
    if train is not None and test is not None:
        names = classes_of(train)
        unknown = sorted(set(classes_of(test)) - set(names))
        if unknown:
            raise MissingDataError(
                f"{test / unknown[0]} is of a class that {train} does not have "
                f"({', '.join(names)}); one folder a class is required in each split."
            )
        return files_of(train, names), files_of(test, names), names
    names = classes_of(folder)
    recordings = files_of(folder, names)
    by_class = [[r for r in recordings if r.label == label] for label in range(len(names))]
    cuts = [max(1, int(len(rows) * TRAIN_SHARE)) for rows in by_class]
    first, rest = (
        [r for rows, cut in zip(by_class, cuts, strict=True) for r in part(rows, cut)]
        for part in (lambda rows, cut: rows[:cut], lambda rows, cut: rows[cut:])
    )
    if not rest:
        raise MissingDataError(
            f"{folder} holds {len(recordings)} recordings in {len(names)} classes, too few to keep "
            f"a tenth of each for the test; at least 2 a class are required, or the folders "
            f"{train_split} and {test_split}."
        )
    return first, rest, names


def names_of(folder: Path) -> list[str]:
    """Return the subfolders by name."""
    return [entry.name for entry in folder.iterdir() if entry.is_dir()]


def classes_of(folder: Path) -> tuple[str, ...]:
    """Return the classes in a folder: its subfolders that hold event files."""
    found = [name for name in names_of(folder) if event_files(folder / name)]
    if not found:
        raise MissingDataError(
            f"{folder} has no recordings of events: a folder for each class is required, with "
            f"files that end in {', '.join(READERS)}; or those of DVS128 Gesture as downloaded."
        )
    return tuple(sorted(found, key=in_numbers))


def event_files(folder: Path) -> list[Path]:
    """Return the event files of a folder, in the order of the numbers in their names."""
    if not folder.is_dir():
        return []
    files = [entry for entry in folder.iterdir() if entry.suffix in READERS]
    return sorted(files, key=lambda path: in_numbers(path.name))


def in_numbers(name: str) -> list[tuple[int, str]]:
    """Return a key that orders names by the numbers in them.

    Examples
    --------
    >>> sorted(["cat_10.bin", "cat_9.bin"], key=in_numbers)
    ['cat_9.bin', 'cat_10.bin']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def files_of(folder: Path, names: Iterable[str]) -> list[Recording]:
    """Return the recordings in the folders of the classes."""
    return [
        Recording(path, label)
        for label, name in enumerate(names)
        for path in event_files(folder / name)
    ]


def gesture_trials(folder: Path) -> Splits:
    """Return the gestures of DVS128 Gesture, by its own lists of trials."""
    parts = []
    for file in TRIALS.values():
        trials = folder / file
        if not trials.is_file():
            raise MissingDataError(f"{trials} is missing; unpack the whole of DVS128 Gesture.")
        lines = [line.strip() for line in table_of(trials).splitlines()]
        parts.append([piece for line in lines if line for piece in pieces_of(folder / line)])
    train, test = parts
    if not train or not test:
        raise MissingDataError(f"{', '.join(TRIALS.values())} of {folder} name no gestures.")
    labels = sorted({piece.label for part in parts for piece in part})
    return train, test, tuple(str(label + 1) for label in range(max(labels) + 1))


def table_of(path: Path) -> str:
    """Read one of the text files that come with the recordings."""
    try:
        return read_bytes(path).decode()
    except (CheckpointError, UnicodeDecodeError) as error:
        raise MissingDataError(
            f"{path} cannot be read as text ({reason(error)}); unpack DVS128 Gesture again."
        ) from error


def pieces_of(path: Path) -> list[Recording]:
    """Return the gestures in one file, as the table of times beside it cuts them."""
    table = path.with_name(f"{path.stem}_labels.csv")
    for needed in (path, table):
        if not needed.is_file():
            raise MissingDataError(f"{needed} is missing; unpack the whole of DVS128 Gesture.")
    try:
        rows = csv.DictReader(io.StringIO(table_of(table), newline=""))
        found = [tuple(int(row[name]) for name in TIMES) for row in rows]
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise MissingDataError(
            f"{table} cannot be read ({type(error).__name__}: {error}); columns "
            f"{', '.join(TIMES)} of whole numbers are required."
        ) from error
    return [Recording(path, label - 1, start, end) for label, start, end in found]
