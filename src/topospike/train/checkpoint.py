"""Stage train: folders on disk that hold everything a run needs to go on.

One folder per checkpoint, ``epoch-00012`` after twelve finished epochs::

    tensors.safetensors   every tensor of the payload
    state.json            everything else; a tensor's place holds its name in the file above
    manifest.json         size and sha256 of the two files

A folder is written aside under a hidden name, flushed to disk and renamed, so a name that exists
is complete; what a killed process left aside is removed by the next one. Nothing is pickled. This
module does not know what a payload means (see ``resume``).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from topospike.errors import CheckpointError
from topospike.train.packing import own_memory, pack, unpack

FORMAT = "topospike checkpoint"
VERSION = 2
TENSORS, STATE, MANIFEST = "tensors.safetensors", "state.json", "manifest.json"
NAME = re.compile(r"epoch-(\d{5,})")


class CheckpointWarning(UserWarning):
    """A run goes on from something other than its newest checkpoint, or not bit for bit."""


class DamagedCheckpointError(CheckpointError):
    """The files of a checkpoint are not the files that were written."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A verified checkpoint, and what was wrong with newer ones (``complaints``)."""

    path: Path
    number: int
    payload: dict[str, Any]
    complaints: tuple[str, ...] = ()


def save_checkpoint(
    folder: Path, number: int, payload: Mapping[str, Any], *, keep: int = 2
) -> Path:
    """Write one checkpoint atomically and delete all but the newest ``keep``.

    Parameters
    ----------
    folder
        The folder of checkpoints; made if missing.
    number
        Finished epochs; orders the checkpoints.
    payload
        Nested mappings, lists and tuples of tensors, numbers, strings, booleans and ``None``.
    keep
        How many checkpoints stay.

    Returns
    -------
    Path
        The new checkpoint's folder.

    Raises
    ------
    CheckpointError
        The payload holds something else; names the place.
    """
    packed, tensors = pack(payload)
    state = json.dumps(packed)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    final = folder / f"epoch-{number:05d}"
    aside = folder / f".{final.name}.partial"
    try:
        aside.mkdir()
        save_file(own_memory(tensors), aside / TENSORS)
        (aside / STATE).write_text(state)
        files = {name: describe(aside / name) for name in (TENSORS, STATE)}
        manifest = {"format": FORMAT, "version": VERSION, "files": files}
        (aside / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
        for path in (aside / TENSORS, aside / STATE, aside / MANIFEST, aside):
            sync(path)
        discard(final)
        aside.rename(final)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    sync(folder)
    for _, path in list_checkpoints(folder)[:-keep]:
        discard(path)
    return final


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """List ``(number, path)`` of the complete checkpoints, oldest first."""
    if not folder.is_dir():
        return []
    matches = [(NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in matches if match)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Verify one checkpoint and read it; tensors come back on the CPU.

    Raises
    ------
    DamagedCheckpointError
        A file is missing, truncated or altered; names the file.
    CheckpointError
        The folder was written by another version of the format.
    """
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        files = dict(manifest["files"])
        written_by = (manifest["format"], manifest["version"])
        expected = {name: files[name] for name in (TENSORS, STATE)}
    except (FileNotFoundError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(
            f"checkpoint {path} is damaged: {MANIFEST} cannot be read ({error!r}). "
            f"Delete the folder to go on without it."
        ) from error
    if written_by != (FORMAT, VERSION):
        raise CheckpointError(
            f"checkpoint {path} has format {written_by}; this version reads {(FORMAT, VERSION)}. "
            "Use the version of topospike that wrote it, or start over with resume=False."
        )
    for name, description in expected.items():
        verify(path / name, description)
    return unpack(json.loads((path / STATE).read_text()), load_file(path / TENSORS))


def load_latest(folder: Path) -> LoadedCheckpoint | None:
    """Read the newest checkpoint that is intact.

    A damaged one is renamed to ``damaged-...`` and the one before it is used, with a
    `CheckpointWarning` that names both.

    Raises
    ------
    CheckpointError
        There are checkpoints and every one is damaged.
    """
    remove_leftovers(folder)
    complaints: list[str] = []
    damaged: list[Path] = []
    for number, path in reversed(list_checkpoints(folder)):
        try:
            payload = load_checkpoint(path)
        except DamagedCheckpointError as error:
            complaints.append(str(error))
            damaged.append(path)
            continue
        for bad in damaged:
            set_aside(bad)
        for complaint in complaints:
            warnings.warn(
                f"{complaint} Going on from the older {path}.", CheckpointWarning, stacklevel=3
            )
        return LoadedCheckpoint(path, number, payload, tuple(complaints))
    if complaints:
        raise CheckpointError(
            "no intact checkpoint is left. " + " ".join(complaints) + " Start over with "
            "resume=False, or restore the files."
        )
    return None


def clear_checkpoints(folder: Path) -> None:
    """Delete every checkpoint, complete or not."""
    remove_leftovers(folder)
    for _, path in list_checkpoints(folder):
        discard(path)


def describe(path: Path) -> dict[str, int | str]:
    """Size in bytes and sha256 of a file."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def verify(path: Path, expected: Mapping[str, int | str]) -> None:
    """Compare a file with its description in the manifest."""
    found = describe(path) if path.is_file() else {"bytes": "no file"}
    for key, value in expected.items():
        if found.get(key) != value:
            raise DamagedCheckpointError(
                f"checkpoint {path.parent} is damaged: {path.name} has {key} {found.get(key)}, "
                f"but {value} was written. Delete the folder to go on without it."
            )


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(path: Path) -> None:
    """Delete a checkpoint; its name disappears at once, so it never looks complete half deleted."""
    if path.exists():
        hidden = path.with_name(f".{path.name}.discarded")
        path.rename(hidden)
        shutil.rmtree(hidden)


def set_aside(path: Path) -> None:
    """Keep a damaged checkpoint for inspection under a name that is never read."""
    target = path.with_name(f"damaged-{path.name}")
    shutil.rmtree(target, ignore_errors=True)
    path.rename(target)


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed while writing or deleting left behind."""
    for pattern in (".epoch-*.partial", ".epoch-*.discarded"):
        for path in folder.glob(pattern):
            shutil.rmtree(path)
