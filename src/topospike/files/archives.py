"""Arrays and tensors in files: what a header promises is compared with the file before it is read.

A NumPy archive states the bytes of every entry, and so does the header of a safetensors file. None
is unpacked that says more than what belongs there has. Nothing pickled is loaded: an entry whose
type is an object is refused by its header.
"""

from __future__ import annotations

import io
import math
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError

from topospike.errors import CheckpointError, MissingDataError
from topospike.files.reading import (
    RESTORE,
    UNREADABLE,
    damaged,
    read_bytes,
    reason,
    require_regular,
)

# Of a packed file; what it unpacks to is bounded by whoever knows what belongs there.
MOST_PACKED = 2**30
HEADER = 2**16
"""The longest header of an array; NumPy's own writers need some hundred bytes."""

MOST_HEADER = 2**26
SUFFIX = ".npy"

# What the libraries and we raise on bytes that were cut, overwritten, or never an archive.
DAMAGE = (
    *UNREADABLE,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    SyntaxError,
    tokenize.TokenError,
    SafetensorError,
)


class Arrays:
    """The arrays of a NumPy archive (``.npz``), each unpacked when it is asked for.

    Parameters
    ----------
    content
        Bytes of the archive.

    Raises
    ------
    ValueError and others of `DAMAGE`
        If the bytes are no such archive.
    """

    def __init__(self, content: bytes) -> None:
        self._archive = zipfile.ZipFile(io.BytesIO(content))
        self._entries = {entry.filename: entry for entry in self._archive.infolist()}
        if len(self._entries) != len(self._archive.infolist()):
            raise ValueError("two entries have one name")

    def __iter__(self) -> Iterator[str]:
        return (name.removesuffix(SUFFIX) for name in self._entries)

    def __contains__(self, name: str) -> bool:
        return f"{name}{SUFFIX}" in self._entries

    def read(self, name: str, *, most: int) -> np.ndarray:
        """Unpack one array, which may have ``most`` bytes; the entry's checksum is compared."""
        entry = self._entries.get(f"{name}{SUFFIX}")
        if entry is None:
            raise ValueError(f"it has no entry {name!r}")
        if entry.file_size > most + HEADER:
            raise ValueError(f"{name} has {entry.file_size} bytes; at most {most} belong there")
        return array_of(self._archive.read(entry), name)


def array_of(content: bytes, name: str) -> np.ndarray:
    """Return the array in the bytes of an ``.npy`` file, whose header must tell their number."""
    stream = io.BytesIO(content)
    check_header(stream, len(content), name)
    stream.seek(0)
    return np.lib.format.read_array(stream, allow_pickle=False, max_header_size=HEADER)


def check_header(stream: Any, size: int, name: str) -> None:
    """Raise `ValueError` unless the header of an array promises the bytes that are there."""
    version = np.lib.format.read_magic(stream)
    read = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }.get(version)
    if read is None:
        raise ValueError(f"{name} is an array of the unknown version {version}")
    shape, _, dtype = read(stream, max_header_size=HEADER)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects ({dtype}), which are never loaded")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - stream.tell():
        raise ValueError(
            f"{name} promises {dtype} of shape {shape}, and has {size - stream.tell()} bytes"
        )


def read_array(path: str | Path, *, remedy: str = RESTORE) -> np.ndarray:
    """Read one array (``.npy``), of numbers.

    Raises
    ------
    CheckpointError
        The file is something else; nothing is allocated for what its header promises.
    """
    size = require_regular(path, remedy=remedy)
    with reading(path, remedy):
        with Path(path).open("rb") as stream:
            check_header(stream, size, Path(path).name)
        array = np.load(path, allow_pickle=False, max_header_size=HEADER)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"it holds {array.dtype}; numbers are required")
        return array


def read_arrays(path: str | Path, *, remedy: str = RESTORE) -> Arrays:
    """Open a NumPy archive; nothing is unpacked yet.

    Raises
    ------
    MissingDataError, CheckpointError
        There is no such file, or it is no archive.
    """
    content = read_bytes(path, most=MOST_PACKED, remedy=remedy)
    with reading(path, remedy):
        return Arrays(content)


@contextmanager
def reading(path: str | Path, remedy: str = RESTORE, found: str = "is damaged") -> Iterator[None]:
    """Turn what an archive that was cut or changed raises into our error, which names it."""
    try:
        yield
    except (CheckpointError, MissingDataError):
        raise
    except DAMAGE as error:
        raise damaged(path, f"{found} ({reason(error)})", remedy) from error


def check_tensors(
    path: str | Path,
    refuse: Callable[[str, tuple[int, ...], str], str | None],
    *,
    found: str = "is damaged",
) -> None:
    """Look at the tensors of a safetensors file before any is read.

    Parameters
    ----------
    path
        The file.
    refuse
        Given name, shape and type (such as ``F32``) of each, says why it does not belong there;
        ``None`` if it does.
    found
        What is wrong with the file then, for the message.

    Raises
    ------
    MissingDataError, CheckpointError
        There is no such file; it is no safetensors file, or holds what does not belong there.
    """
    size = require_regular(path)
    with reading(path, found=found):
        for name, entry in tensor_header(Path(path), size).items():
            complaint = refuse(name, tuple(entry["shape"]), entry["dtype"])
            if complaint is not None:
                raise ValueError(complaint)


def tensor_header(path: Path, size: int) -> Mapping[str, Any]:
    """Return the entries in the header of a safetensors file, without its metadata."""
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > min(size - 8, MOST_HEADER):
            raise ValueError(f"its header promises {length} bytes, and the file has {size}")
        header = msgspec.json.decode(stream.read(length), type=dict[str, Any])
    header.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in header.values()]
    if max(ends, default=0) != size - 8 - length:
        raise ValueError(
            f"its header promises {max(ends, default=0)} bytes of tensors, and "
            f"{size - 8 - length} are there"
        )
    return header
