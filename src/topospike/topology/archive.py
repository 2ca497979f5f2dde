"""Stage topology: the file of a frozen topology, a plain ``.npz`` that NumPy alone can read.

Entries: ``format`` and ``version``; ``names``, the layers in module order; for each layer
``shape.NAME`` and ``bits.NAME`` (its mask in row-major order, eight links a byte, first link in the
highest bit); ``provenance`` (JSON text) and ``digest``. No pickle is written or read.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from topospike.contracts import write_atomically
from topospike.errors import CheckpointError
from topospike.files.archives import MOST_PACKED, Arrays, reading
from topospike.files.reading import read_bytes, shortened
from topospike.files.seal import digest as digest_of_bytes
from topospike.files.seal import require_intact

FORMAT = "topospike-topology"
VERSION = 1

# Where the layers are not known in advance: links of one topology, and bytes of its texts.
MOST_LINKS = 2**31
MOST_TEXT = 2**25
MOST_AXES = 8
LONGEST_NAME = 1000
REMEDY = "It may be cut off or changed; restore it or save the topology again."


@dataclass(frozen=True, slots=True)
class PackedMask:
    """One layer's links: parameter name, shape, and bits (row-major, first link highest)."""

    name: str
    shape: tuple[int, ...]
    bits: bytes

    @property
    def links(self) -> int:
        """Positions of the mask."""
        return math.prod(self.shape)


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
    write_atomically(path, stream.getvalue())


def read_archive(
    path: str | Path, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[tuple[PackedMask, ...], str, str]:
    """Return (layers, provenance as JSON text, stored digest) of a topology file.

    ``shapes``: of the parameters that may have links. No entry is unpacked that says more than the
    links of its layer take.

    Raises
    ------
    MissingDataError
        If there is no such file.
    CheckpointError
        If it is truncated, damaged, changed since its run wrote it, of another format, or newer
        than this version.
    """
    content = read_bytes(path, most=MOST_PACKED, remedy=REMEDY)
    require_intact(path, digest_of_bytes(content))
    with reading(path, REMEDY):
        entries = Arrays(content)
        form, version = text(entries, "format"), int(entries.read("version", most=8))
        if form != FORMAT or version != VERSION:
            raise CheckpointError(
                f"{path}: format {shortened(form)!r} version {version}; {FORMAT!r} version "
                f"{VERSION} is required. Read it with the version of topospike that wrote it."
            )
        names = [str(name) for name in entries.read("names", most=MOST_TEXT)]
        if max(map(len, names), default=0) > LONGEST_NAME:
            raise ValueError(f"a layer has a name of more than {LONGEST_NAME} characters")
        if len(set(names)) != len(names):
            raise ValueError("two layers have one name")
        left = MOST_LINKS
        layers = []
        for name in names:
            layers.append(layer := read_layer(entries, name, shapes, most=left))
            left -= layer.links
        provenance = text(entries, "provenance")
        msgspec.json.decode(provenance, type=dict[str, Any])
        return tuple(layers), provenance, text(entries, "digest")


def text(entries: Arrays, name: str) -> str:
    """Return an entry that is a text."""
    found = entries.read(name, most=MOST_TEXT)
    if found.dtype.kind != "U" or found.shape != ():
        raise ValueError(f"{name} is {found.dtype} of shape {found.shape}, and no text")
    return str(found)


def read_layer(
    entries: Arrays, name: str, shapes: Mapping[str, tuple[int, ...]] | None, *, most: int
) -> PackedMask:
    """Read the links of one layer, of which there may be ``most``."""
    stored = entries.read(f"shape.{name}", most=8 * MOST_AXES)
    shape = tuple(int(size) for size in stored.astype(np.int64, casting="safe").ravel())
    links = math.prod(shape)
    if not shape or min(shape) < 1 or links > most:
        raise ValueError(f"{name} has shape {shape}; positive sizes, {most} links at most")
    if shapes is not None and shapes.get(name) != shape:
        raise ValueError(f"{name} has shape {shape}; in the model it has {shapes.get(name)}")
    bits = entries.read(f"bits.{name}", most=(links + 7) // 8)
    if bits.dtype != np.uint8 or bits.shape != ((links + 7) // 8,):
        raise ValueError(f"{name}: shape {shape} does not fit {bits.size} bytes of links")
    if np.unpackbits(bits[-1:])[links % 8 or 8 :].any():
        raise ValueError(f"{name}: links beyond the end of the mask")
    return PackedMask(name=name, shape=shape, bits=bits.tobytes())
