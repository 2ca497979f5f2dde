"""What a run folder says of its own files: ``stages.json`` holds the SHA-256 of every output.

``record.json`` is such an output too, so that neither of the two passes for that of another run. A
file that was changed since its stage wrote it, or that no stage of the folder wrote, is an error
where numbers are computed from it (weights, masks, topologies, networks: `require_intact`) and a
`ChangedFileWarning` where it is shown (`warn_if_changed`). A seal tells accidents, edits and files
of other runs from results; it is no signature: whoever can write the folder can also write the
seal. Folders of versions before the seal are read as they are. Each file is hashed once a command.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from topospike.errors import CheckpointError
from topospike.files.ranges import Amount, Count

FILE = "stages.json"
RECORD = "record.json"
"""File that says what the run was; also the name of the stage that seals it."""
# Where stages write: folders, files at the top, and the kinds of files that are read again.
FOLDERS = ("dense", "pretrained", "quantised", "conversions", "topologies")
NAMES = (
    *(RECORD, "summary.json", "metrics.jsonl", "model.safetensors", "topology.npz", "prune.json"),
    *("conversion.json", "activations.json", "evaluation.json"),
    *("topology_report.json", "initial_topology_report.json", "topology_history.json"),
    "trial.json",
)
SUFFIXES = (".json", ".jsonl", ".npz", ".safetensors")
OWN = "sha256"
"""Key under which a JSON file holds the digest of everything else in it."""

INTACT, CHANGED, MISSING, UNSEALED = "intact", "changed", "missing", "not sealed"
# Records are small; this many bytes of JSON become at most half a gigabyte of numbers.
MOST_BYTES = 2**25


class ChangedFileWarning(UserWarning):
    """A file is not what the run wrote."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a run folder, as ``stages.json`` holds it.

    Attributes
    ----------
    settings
        What it was begun with.
    outputs
        Its files, as paths inside the folder, with their bytes.
    seconds
        How long it took; ``None`` until it has ended.
    sha256
        Of its files; empty in folders of versions before the seal.
    accepted
        Files that were edited afterwards, and accepted by ``topospike verify --accept``.
    """

    settings: Mapping[str, Any]
    outputs: Mapping[str, Count | None]
    seconds: Amount | None
    sha256: Mapping[str, str] = field(default_factory=dict)
    accepted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.outputs:
            inside = PurePosixPath(name)
            if inside.is_absolute() or ".." in inside.parts:
                raise CheckpointError(f"the output {name!r} is not inside the run folder.")

    def state(self, folder: Path, name: str, found: str | None = None) -> str:
        """Compare one output with what was written; ``found`` is its digest, if known."""
        path = folder / name
        if not path.is_file():
            return CHANGED if os.path.lexists(path) else MISSING
        if self.outputs[name] != path.stat().st_size:
            return CHANGED
        if name not in self.sha256:
            return UNSEALED
        return INTACT if (found or digest_of(path)) == self.sha256[name] else CHANGED


def digest(content: bytes) -> str:
    """Return the SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def digest_of_plain(content: Any) -> str:
    """Return the SHA-256 of plain values, whatever their layout in a file.

    Examples
    --------
    >>> digest_of_plain({"a": 1, "b": 2}) == digest_of_plain({"b": 2, "a": 1})
    True
    """
    return digest(json.dumps(content, sort_keys=True).encode())


def with_own_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values that hold their own digest."""
    plain = json.loads(json.dumps({key: v for key, v in content.items() if key != OWN}))
    return {**plain, OWN: digest_of_plain(plain)}


def own_digest_checked(path: str | Path) -> Callable[[Any], Any]:
    """Return what takes the digest out of a file's plain values, and warns if it does not fit."""

    def check(plain: Any) -> Any:
        if not isinstance(plain, Mapping):
            return plain
        if own_state(plain) == CHANGED:
            complaint = (
                f"{path} was changed since it was written. Restore it, or delete it and repeat the "
                "command that made the run, which keeps finished stages. If the change is meant: "
                f"topospike verify {Path(path).parent} --accept."
            )
            warnings.warn(complaint, ChangedFileWarning, stacklevel=5)
        return {key: value for key, value in plain.items() if key != OWN}

    return check


def own_state(content: Mapping[str, Any]) -> str:
    """Compare plain values with the digest they hold."""
    if OWN not in content:
        return UNSEALED
    rest = {key: value for key, value in content.items() if key != OWN}
    return INTACT if digest_of_plain(rest) == content[OWN] else CHANGED


_digests: dict[tuple[Any, ...], str] = {}
_stages: dict[tuple[Any, ...], Mapping[str, Stage]] = {}


def forget() -> None:
    """Hash and read again what was hashed and read before: a new command begins."""
    _digests.clear()
    _stages.clear()


def signature(path: Path) -> tuple[Any, ...]:
    """Return what changes with a file."""
    status = path.stat()
    return str(path), status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a regular file, read once a command."""
    key = signature(path)
    if key not in _digests:
        with path.open("rb") as stream:
            _digests[key] = hashlib.file_digest(stream, "sha256").hexdigest()
    return _digests[key]


def stages_naming(path: Path) -> tuple[Path, str, Stage] | None:
    """Return (run folder, name of the stage, the stage) that wrote a file, if one did."""
    found = ((folder, *named) for folder, _, named in origins(path) if named is not None)
    return next(found, None)


def origins(path: Path) -> Iterator[tuple[Path, str, tuple[str, Stage] | None]]:
    """Yield every run folder that a file is in, the nearest first: (folder, path inside, stage)."""
    path = absolute(path)
    for folder in path.parents:
        if (folder / FILE).is_file():
            inside = path.relative_to(folder).as_posix()
            stages = known_stages(folder).items()
            ended = (named for named in stages if named[1].seconds is not None)
            yield folder, inside, next((n for n in ended if inside in n[1].outputs), None)


def absolute(path: Path) -> Path:
    """Return where a path leads from the root; links are not followed, since the name counts."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def is_of_run(name: str) -> bool:
    """Tell whether stages write at this place of a run folder; all else in it is the user's.

    Examples
    --------
    >>> is_of_run("dense/conversions/qcfs/evaluation.json"), is_of_run("mine/evaluation.json")
    (True, False)
    """
    place, suffix = PurePosixPath(name), PurePosixPath(name).suffix
    inside = place.parts[0] in FOLDERS if len(place.parts) > 1 else place.name in NAMES
    return inside and suffix in SUFFIXES and "checkpoint" not in place.parts


def of_no_stage(folder: Path, name: str) -> str | None:
    """Say that a file is at a place where stages write, and that none did; ``None`` if not so.

    While the record is being written no stage has it, and none had it in earlier versions.
    """
    stages = stages_of(folder)
    if not is_of_run(name) or not any(stage.sha256 for stage in stages.values()):
        return None
    if name == RECORD and (RECORD not in stages or stages[RECORD].seconds is None):
        return None
    begun = [name for name, stage in stages.items() if stage.seconds is None]
    other = f", or of a stage that has not ended ({', '.join(begun)})" if begun else ""
    return f"it may be of another run{other}"


def known_stages(folder: Path) -> Mapping[str, Stage]:
    """Return the stages of a folder; what cannot be read seals nothing (its reader says so)."""
    path = folder / FILE
    key = signature(path)
    if key not in _stages:
        _stages[key] = {}
        if path.stat().st_size <= MOST_BYTES:
            with suppress(ValueError, TypeError, RecursionError, OSError, CheckpointError):
                plain = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
                plain.pop(OWN, None)
                _stages[key] = msgspec.convert(plain, dict[str, Stage])
    return _stages[key]


def stages_of(folder: Path) -> Mapping[str, Stage]:
    """Return what `known_stages` does, and nothing where the folder has no such file."""
    return known_stages(folder) if (folder / FILE).is_file() else {}


def changed_since(path: Path, found: str | None = None) -> str | None:
    """Say what a run folder has against a file in it; ``None`` if nothing, or if it is in none.

    A file of a run inside another one has to do for both folders.
    """
    for folder, inside, named in origins(path):
        if named is not None and named[1].state(folder, inside, found) == CHANGED:
            complaint = (
                f"was changed since the stage {named[0]!r} wrote it, or it or {FILE} is of another "
                "run"
            )
        elif named is None and (why := of_no_stage(folder, inside)):
            complaint = f"was not written by a stage that has ended: {why}"
        else:
            continue
        return (
            f"{path} {complaint}. Restore it, or delete it and repeat the command that made the "
            "run, which repeats that stage. If it is meant to be so: "
            f"topospike verify {folder} --accept."
        )
    return None


def require_intact(path: str | Path, found: str | None = None) -> None:
    """Raise if a run wrote this file and it was changed since; ``found``: its SHA-256, if known.

    Raises
    ------
    CheckpointError
        It was changed; names the stage.
    """
    complaint = changed_since(Path(path), found)
    if complaint is not None:
        raise CheckpointError(complaint)


def warn_if_changed(path: Path, found: str | None = None) -> None:
    """Warn if a run wrote this file and it was changed since, as `require_intact` would raise."""
    complaint = changed_since(path, found)
    if complaint is not None:
        warnings.warn(complaint, ChangedFileWarning, stacklevel=3)
