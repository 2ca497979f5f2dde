"""Pipeline: which stages of a run folder are done, with which settings, and what they wrote.

``stages.json`` holds for every stage its settings, its output files with their sizes and SHA-256,
its seconds, and whether it ended. A stage is skipped when it ended with the same settings and its
files are there; a stage that was killed has begun and not ended, so it runs again. What a stage
means is not known here; the digests are compared by whoever reads a file (`topospike.files.seal`).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from topospike.contracts import to_json, write_json
from topospike.files.record import read_stages
from topospike.files.seal import CHANGED, FILE, Stage, digest_of, with_own_digest

Settings = Mapping[str, Any]
ACCEPTED = "accepted"
"""State of a file that was edited and sealed as it is; also the stage of those that none wrote."""


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
        self.stages = read_stages(folder)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds of every stage that ended, in the order they first began.

        What is done anew by every command has no settings, and is left out.
        """
        ended = {name: stage for name, stage in self.stages.items() if stage.settings}
        return {name: s.seconds for name, s in ended.items() if s.seconds is not None}

    def settings(self, stage: str, *, like: Settings) -> dict[str, Any] | None:
        """Return what a stage last began with, ``None`` if it never began.

        Keys of ``like`` that are missing there and have a default get it.
        """
        known = self.stages.get(stage)
        return None if known is None else with_defaults(known.settings, like, self.defaults)

    def is_complete(self, stage: str, settings: Settings) -> bool:
        """Tell whether a stage ended with these settings and all its files are still there."""
        known = self.stages.get(stage)
        if known is None or known.seconds is None:
            return False
        if self.settings(stage, like=settings) != plain(settings):
            return False
        return all(size_of(self.folder / name) == size for name, size in known.outputs.items())

    def begin(self, stage: str, settings: Settings) -> None:
        """Write down that a stage is under way with these settings."""
        self.stages[stage] = Stage(plain(settings), outputs={}, seconds=None)
        self._write()

    def end(self, stage: str, *, outputs: Iterable[str], seconds: float) -> None:
        """Write down that a stage has ended, and seal its outputs, paths inside the folder.

        A file belongs to the stage that wrote it last.
        """
        sealed = self._sealed(self.stages[stage], outputs)
        for name, other in self.stages.items():
            kept = {o: size for o, size in other.outputs.items() if o not in sealed.outputs}
            digests = {o: d for o, d in other.sha256.items() if o in kept}
            self.stages[name] = dataclasses.replace(other, outputs=kept, sha256=digests)
        self.stages[stage] = dataclasses.replace(sealed, seconds=round(seconds, 3))
        self._write()

    def accept(self, foreign: Iterable[str] = ()) -> None:
        """Seal the files of every stage that ended as they are, and ``foreign`` ones, of none."""
        for name, stage in self.stages.items():
            if stage.seconds is None:
                continue
            there = [name for name in stage.outputs if (self.folder / name).is_file()]
            new = sorted(o for o in there if stage.state(self.folder, o) == CHANGED)
            sealed = self._sealed(stage, there)
            accepted = tuple(dict.fromkeys((*stage.accepted, *new)))
            outputs = {**stage.outputs, **sealed.outputs}
            self.stages[name] = dataclasses.replace(sealed, outputs=outputs, accepted=accepted)
        known = self.stages.pop(ACCEPTED, Stage({}, {}, 0.0))
        names = tuple(name for name in (*known.outputs, *foreign) if (self.folder / name).is_file())
        if names:
            self.stages[ACCEPTED] = dataclasses.replace(self._sealed(known, names), accepted=names)
        self._write()

    def adopt(self, other: Ledger, folder: str) -> list[str]:
        """Take over what stages of another run wrote into a folder of it; return the files."""
        names: list[str] = []
        for name, stage in other.stages.items():
            outputs = {o: s for o, s in stage.outputs.items() if o.startswith(f"{folder}/")}
            if outputs and stage.seconds is not None:
                digests = {o: d for o, d in stage.sha256.items() if o in outputs}
                accepted = tuple(o for o in stage.accepted if o in outputs)
                self.stages[name] = dataclasses.replace(
                    stage, outputs=outputs, sha256=digests, accepted=accepted
                )
                names += outputs
        self._write()
        return names

    def reopen(self, stage: str) -> None:
        """Let a stage run again whatever its settings; what it wrote stays sealed."""
        self.stages[stage] = dataclasses.replace(self.stages[stage], settings={})
        self._write()

    def discard(self, *stages: str) -> None:
        """Remove stages, and delete the files they wrote."""
        for known in [self.stages.pop(stage) for stage in stages if stage in self.stages]:
            for name in known.outputs:
                (self.folder / name).unlink(missing_ok=True)
        self._write()

    def _sealed(self, stage: Stage, outputs: Iterable[str]) -> Stage:
        paths = {name: self.folder / name for name in outputs}
        sizes = {name: size_of(path) for name, path in paths.items()}
        # Of several processes one writes, and the others may see its files half done.
        digests = {n: digest_of(p) for n, p in paths.items() if self.writes and p.is_file()}
        return dataclasses.replace(stage, outputs=sizes, sha256=digests)

    def _write(self) -> None:
        if self.writes:
            content = {name: to_json(stage) for name, stage in self.stages.items()}
            write_json(self.folder / FILE, with_own_digest(content))


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
