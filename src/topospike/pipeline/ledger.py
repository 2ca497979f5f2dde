"""Pipeline: which stages of a run folder are done, and with which settings.

``stages.json`` holds for every stage its settings, its output files with their sizes, its seconds,
and whether it ended. A stage is skipped when it ended with the same settings and its files are
there; a stage that was killed has begun and not ended, so it runs again. What a stage means is not
known here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from topospike.contracts import write_atomically
from topospike.errors import CheckpointError

FILE = "stages.json"
Settings = Mapping[str, Any]


class Ledger:
    """The stages of one run folder; unless it ``writes``, the file stays as it is.

    A setting that a stage was begun without, because no such setting existed then, counts as its
    value among ``defaults``: a new setting's default is what was done before there was a choice.
    """

    def __init__(
        self, folder: Path, *, writes: bool = True, defaults: Settings | None = None
    ) -> None:
        self.folder = folder
        self.writes = writes
        self.defaults = plain(defaults or {})
        self._entries = read(folder / FILE)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of every stage that ended, in the order they first began."""
        return {name: entry["seconds"] for name, entry in self._entries.items() if ended(entry)}

    def settings(self, stage: str, *, like: Settings) -> dict[str, Any] | None:
        """Return what a stage last began with, ``None`` if it never began.

        Keys of ``like`` that are missing there and have a default get it.
        """
        entry = self._entries.get(stage)
        return None if entry is None else with_defaults(entry["settings"], like, self.defaults)

    def is_complete(self, stage: str, settings: Settings) -> bool:
        """Tell whether a stage ended with these settings and all its files are still there."""
        entry = self._entries.get(stage)
        if entry is None or not ended(entry):
            return False
        if self.settings(stage, like=settings) != plain(settings):
            return False
        return all(size_of(self.folder / name) == size for name, size in entry["outputs"].items())

    def begin(self, stage: str, settings: Settings) -> None:
        """Write down that a stage is under way with these settings."""
        self._entries[stage] = {"settings": plain(settings), "outputs": {}, "seconds": None}
        self._write()

    def end(self, stage: str, *, outputs: Iterable[str], seconds: float) -> None:
        """Write down that a stage has ended; its outputs are paths inside the folder."""
        sizes = {name: size_of(self.folder / name) for name in outputs}
        self._entries[stage] |= {"outputs": sizes, "seconds": round(seconds, 3)}
        self._write()

    def adopt(self, other: Ledger, stages: Iterable[str]) -> None:
        """Take over stages that ended in another folder, whose files were copied to this one."""
        for stage in stages:
            if stage in other.seconds:
                self._entries[stage] = other._entries[stage]
        self._write()

    def forget(self, stage: str) -> None:
        """Remove a stage whose files no longer belong to the run."""
        if self._entries.pop(stage, None) is not None:
            self._write()

    def _write(self) -> None:
        if not self.writes:
            return
        write_atomically(self.folder / FILE, json.dumps(self._entries, indent=1) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Read the stages of a folder; none when the file is missing."""
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text()))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}). Delete it to let every stage run again; training goes "
            "on from its checkpoints all the same."
        ) from error


def ended(entry: Mapping[str, Any]) -> bool:
    """Tell whether a stage came to its end."""
    return entry["seconds"] is not None


def size_of(path: Path) -> int | None:
    """Bytes of a file, ``None`` when there is none."""
    return path.stat().st_size if path.is_file() else None


def plain(settings: Settings) -> dict[str, Any]:
    """Return settings as JSON gives them back, so that they can be compared."""
    return json.loads(json.dumps(settings))


def with_defaults(stored: Settings, like: Settings, defaults: Settings) -> dict[str, Any]:
    """Return stored settings, completed by the defaults of the keys of ``like`` they lack.

    Examples
    --------
    >>> with_defaults({"a": {"b": 1}}, {"a": {"b": 2, "c": 3, "d": 4}}, {"a": {"b": 5, "c": 6}})
    {'a': {'b': 1, 'c': 6}}
    """
    result = dict(stored)
    for key, wanted in like.items():
        default = defaults.get(key)
        if key not in result and key in defaults and not isinstance(default, Mapping):
            result[key] = default
        elif isinstance(wanted, Mapping) and isinstance(default, Mapping) and key in result:
            result[key] = with_defaults(result[key], wanted, default)
    return result


def differences(old: Settings, new: Settings, place: str = "") -> Iterator[str]:
    """Yield ``train.epochs (3, now 5)`` for every key whose value changed.

    Examples
    --------
    >>> list(differences({"train": {"epochs": 3}, "seed": 0}, {"train": {"epochs": 5}, "seed": 0}))
    ['train.epochs (3, now 5)']
    """
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from differences(before, after, f"{place}{key}.")
        elif before != after:
            yield f"{place}{key} ({before}, now {after})"
