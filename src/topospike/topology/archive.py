"""Stage topology: the file of a frozen topology, a plain ``.npz`` that NumPy alone can read.

Entries: ``format`` and ``version``; ``names``, the layers in module order; for each layer
``shape.NAME`` and ``bits.NAME`` (its mask in row-major order, eight links a byte, first link in the
highest bit); ``provenance`` (JSON text) and ``digest``. No pickle is written or read.
"""

from __future__ import annotations

import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from topospike.contracts import write_atomically
from topospike.errors import CheckpointError

FORMAT = "topospike-topology"
VERSION = 1

# What zipfile, zlib and NumPy raise on bytes that were cut, overwritten, or never were an archive.
DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    ValueError,
    LookupError,
    OSError,
    EOFError,
    RuntimeError,
    MemoryError,
    OverflowError,
)


@dataclass(frozen=True, slots=True)
class PackedMask:
    """One layer's links: parameter name, shape, and bits (row-major, first link highest)."""

    name: str
    shape: tuple[int, ...]
    bits: bytes


def write_archive(
    path: str | Path, *, layers: Sequence[PackedMask], provenance: str, digest: str
) -> None:
    """Write the layers to ``path``, atomically; equal content gives equal bytes.

    Raises
    ------
    CheckpointError
        If the file cannot be written.
    """
    entries: dict[str, np.ndarray] = {
        "format": np.array(FORMAT),
        "version": np.array(VERSION),
        "digest": np.array(digest),
        "provenance": np.array(provenance),
        "names": np.array([layer.name for layer in layers]),
    }
    for layer in layers:
        entries[f"shape.{layer.name}"] = np.array(layer.shape, dtype=np.int64)
        entries[f"bits.{layer.name}"] = np.frombuffer(layer.bits, dtype=np.uint8)
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **entries)
    try:
        write_atomically(path, stream.getvalue())
    except OSError as error:
        raise CheckpointError(f"{path}: the topology cannot be written here ({error}).") from error


def read_archive(path: str | Path) -> tuple[tuple[PackedMask, ...], str, str]:
    """Return (layers, provenance as JSON text, stored digest) of a topology file.

    Raises
    ------
    CheckpointError
        If the file is missing, truncated, damaged, of another format, or newer than this version.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: no topology can be read here ({error}).") from error
    try:
        entries = _entries(content)
        form, version = str(entries["format"]), int(entries["version"])
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if form != FORMAT or version != VERSION:
        raise CheckpointError(
            f"{path}: format {form!r} version {version}; {FORMAT!r} version {VERSION} is required. "
            "Read it with the version of topospike that wrote it."
        )
    try:
        layers = tuple(_layer(entries, str(name)) for name in entries["names"])
        provenance = str(entries["provenance"])
        if not isinstance(json.loads(provenance), dict):
            raise ValueError("the provenance is not a JSON object")
        return layers, provenance, str(entries["digest"])
    except DAMAGE as error:
        raise _damaged(path, error) from error


def _entries(content: bytes) -> dict[str, np.ndarray]:
    # Unlike ``np.load``, ``read`` checks an entry's CRC before NumPy is shown a byte of it.
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {
            key.removesuffix(".npy"): np.lib.format.read_array(
                io.BytesIO(archive.read(key)), allow_pickle=False
            )
            for key in archive.namelist()
        }


def _layer(entries: dict[str, np.ndarray], name: str) -> PackedMask:
    shape = tuple(int(size) for size in entries[f"shape.{name}"])
    bits = entries[f"bits.{name}"]
    links = math.prod(shape)
    if not shape or min(shape) < 1 or bits.dtype != np.uint8 or bits.shape != ((links + 7) // 8,):
        raise ValueError(f"{name}: shape {shape} does not fit {bits.size} bytes of links")
    if np.unpackbits(bits[-1:])[links % 8 or 8 :].any():
        raise ValueError(f"{name}: links beyond the end of the mask")
    return PackedMask(name=name, shape=shape, bits=bits.tobytes())


def _damaged(path: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(
        f"{path}: not a whole topology file ({type(error).__name__}: {error}). It may be cut off "
        "or changed; restore it or save the topology again."
    )
