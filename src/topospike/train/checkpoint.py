"""Stage train: files on disk that hold everything a run needs to go on.

One safetensors file a checkpoint, ``epoch-00012.safetensors`` after twelve finished epochs. A
tensor of the payload lies there under the name of its place, such as ``model.fc1.weight``;
everything else is JSON in the header, where ``{"__tensor__": name}`` stands for a tensor. A SHA-256
of all of it is in the header too. A file is written aside under a hidden name, flushed to disk and
renamed, so a name that exists is complete; what a killed process left aside is removed by the next
one. Nothing is pickled. This module does not know what a payload means (see ``resume``).
"""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from topospike.contracts import write_atomically
from topospike.errors import CheckpointError, TopospikeError
from topospike.files.archives import DAMAGE, check_tensors
from topospike.files.reading import reason

FORMAT = "topospike checkpoint 3"
NAME = re.compile(r"epoch-(\d{5,})\.safetensors")
TENSOR = "__tensor__"


class CheckpointWarning(UserWarning):
    """A run goes on from something other than its newest checkpoint, or not bit for bit."""


class DamagedCheckpointError(CheckpointError):
    """A checkpoint is not what was written."""


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
        Tensors, numbers, strings, booleans and ``None``, in lists and in mappings with string keys.
        A tuple comes back as a list.
    keep
        How many checkpoints stay.

    Returns
    -------
    Path
        The new file.

    Raises
    ------
    CheckpointError
        The payload holds something else; names the place.
    """
    tensors: dict[str, Tensor] = {}
    state = json.dumps(packed(payload, "", tensors))
    metadata = {"format": FORMAT, "state": state, "sha256": digest_of(FORMAT, state, tensors)}
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    path = folder / f"epoch-{number:05d}.safetensors"
    write_atomically(path, save(tensors, metadata))
    for _, old in list_checkpoints(folder)[:-keep]:
        old.unlink()
    return path


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
        The file is missing, truncated or altered.
    CheckpointError
        The file was written by another version of the format.
    """
    try:
        check_tensors(path, lambda name, shape, dtype: None)
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata())
            # A copy has the alignment of any other tensor. In the file it is that of the header's
            # length, and matrix products round differently on memory that is aligned otherwise.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        written_by, state, expected = (metadata[key] for key in ("format", "state", "sha256"))
    except (*DAMAGE, TopospikeError) as error:
        raise damaged(path, f"it cannot be read ({reason(error)})") from error
    found = digest_of(written_by, state, tensors)
    if found != expected:
        raise damaged(path, f"it has sha256 {found}, but {expected} was written")
    if written_by != FORMAT:
        raise CheckpointError(
            f"checkpoint {path} has format {written_by!r}; this version reads {FORMAT!r}. Use the "
            "version of topospike that wrote it, or start over with resume=False."
        )
    return json.loads(state, object_hook=lambda d: tensors[d[TENSOR]] if TENSOR in d else d)


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
    bad: dict[Path, str] = {}
    for number, path in reversed(list_checkpoints(folder)):
        try:
            payload = load_checkpoint(path)
        except DamagedCheckpointError as error:
            bad[path] = str(error)
            continue
        for other, complaint in bad.items():
            other.replace(other.with_name(f"damaged-{other.name}"))
            warnings.warn(
                f"{complaint} Going on from the older {path}.", CheckpointWarning, stacklevel=3
            )
        return LoadedCheckpoint(path, number, payload, tuple(bad.values()))
    if bad:
        raise CheckpointError(
            f"no intact checkpoint is left. {' '.join(bad.values())} Start over with resume=False, "
            "or restore the files."
        )
    return None


def clear_checkpoints(folder: Path) -> None:
    """Delete every checkpoint, complete or not."""
    remove_leftovers(folder)
    for _, path in list_checkpoints(folder):
        path.unlink()


def remove_leftovers(folder: Path) -> None:
    """Delete what a process that was killed while writing left behind."""
    for path in folder.glob(".epoch-*"):
        path.unlink()


def damaged(path: Path, reason: str) -> DamagedCheckpointError:
    """Build the error about a damaged file."""
    return DamagedCheckpointError(
        f"checkpoint {path} is damaged: {reason}. Delete the file to go on without it."
    )


def packed(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Turn the value at ``place`` into JSON values, moving its tensors to ``tensors``.

    Examples
    --------
    >>> tensors = {}
    >>> packed({"weight": torch.ones(2), "epoch": 3}, "", tensors), list(tensors)
    ({'weight': {'__tensor__': 'weight'}, 'epoch': 3}, ['weight'])
    """
    if isinstance(value, Tensor):
        while place in tensors:
            place += "'"
        # A copy, for a file cannot hold two tensors that share their memory.
        tensors[place] = value.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        return {TENSOR: place}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    below = f"{place}." if place else ""
    if isinstance(value, (list, tuple)):
        return [packed(item, f"{below}{i}", tensors) for i, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(key, str) and key != TENSOR for key in value):
        return {key: packed(item, f"{below}{key}", tensors) for key, item in value.items()}
    raise CheckpointError(
        f"cannot checkpoint {place!r}: it is a {type(value).__name__}. State must be made of "
        "tensors, numbers, strings, booleans, None, lists, and mappings with string keys."
    )


def digest_of(written_by: str, state: str, tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of everything in a checkpoint."""
    digest = hashlib.sha256(f"{written_by}\n{state}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
