"""Readers of event files: our own ``.npz``, ``.npy``, ``.h5``, and three raw formats.

``.bin``        N-MNIST: 5 bytes an event, x, y, then 1 bit of polarity and 23 of time
                (Orchard et al. 2015); y = 240 marks an overflow of the time by 2^13
``.aedat``      AEDAT 2 of a DVS128 (CIFAR10-DVS, Li et al. 2017): big-endian address and time;
                bit 0 of the address is 1 for darker, bits 1 to 7 are 127 - x, bits 8 to 14 are y
                AEDAT 3.1 (DVS128 Gesture, Amir et al. 2017): little-endian packets, a header of 28
                bytes each; bit 1 is the polarity, bits 2 to 16 are y, bits 17 to 31 are x

The AEDAT addresses are those of jAER and of the AEDAT 3.1 specification of iniVation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from topospike.data.events.array import FIELDS, event_array
from topospike.errors import CheckpointError, MissingDataError, require
from topospike.files.archives import DAMAGE, array_of, read_arrays
from topospike.files.reading import read_bytes, reason, require_regular
from topospike.registry import Registry

Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
MOST_BYTES = 2**28
"""Of one column: some 30 million events; longer recordings are cut into several."""

OVERFLOW_ROW, OVERFLOW = 240, 2**13
PACKET = struct.Struct("<HHIIIIII")
POLARITY_EVENTS = 1
SENSORS = {".bin": (34, 34), ".aedat": (128, 128)}
"""(height, width) of the sensors whose files say nothing of it."""


def named_columns(container: Any, names: object, path: Path) -> Columns:
    """Return t, x, y and p of something that has them by name."""
    found = [str(name) for name in names or ()]  # pyright: ignore[reportGeneralTypeIssues]
    missing = [name for name in FIELDS if name not in found]
    if missing:
        raise MissingDataError(
            f"{path} holds {', '.join(found) or 'no named columns'}; {', '.join(FIELDS)} are "
            f"required ({', '.join(missing)} missing): time in microseconds, column, row, polarity."
        )
    t, x, y, p = (np.asarray(container[name]) for name in FIELDS)
    return t, x, y, p


def read_npz(path: Path) -> Columns:
    """Read an archive with the arrays t, x, y and p."""
    arrays = read_arrays(path)
    found = {name: arrays.read(name, most=MOST_BYTES) for name in FIELDS if name in arrays}
    return named_columns(found, tuple(found) or tuple(arrays), path)


def read_npy(path: Path) -> Columns:
    """Read a structured array with the fields t, x, y and p."""
    array = array_of(read_bytes(path, most=len(FIELDS) * MOST_BYTES), path.name)
    return named_columns(array, array.dtype.names, path)


def read_h5(path: Path) -> Columns:
    """Read the datasets t, x, y and p, of the file itself or of its group ``events``."""
    require("h5py", purpose=f"reading {path.name}")
    import h5py

    with h5py.File(path, "r") as file:
        group: Any = file.get("events", file)
        stated = max((group[name].nbytes for name in FIELDS if name in group), default=0)
        if stated > MOST_BYTES:
            raise ValueError(f"a column has {stated} bytes; at most {MOST_BYTES} are read")
        return named_columns(group, group, path)


def read_nmnist(path: Path) -> Columns:
    """Read a file of N-MNIST."""
    raw = np.frombuffer(read_bytes(path, most=len(FIELDS) * MOST_BYTES), dtype=np.uint8)
    if len(raw) % 5:
        raise ValueError(f"{len(raw)} bytes are no whole number of events of 5 bytes")
    x, y, high, middle, low = raw.reshape(-1, 5).T.astype(np.int64)
    overflow = y == OVERFLOW_ROW
    t = ((high & 127) << 16 | middle << 8 | low) + OVERFLOW * np.cumsum(overflow)
    t, x, y, p = (column[~overflow] for column in (t, x, y, high >> 7))
    return t, x, y, p


def read_aedat(path: Path) -> Columns:
    """Read a file of AEDAT 2 or 3.1, as its first line says."""
    content = read_bytes(path, most=len(FIELDS) * MOST_BYTES)
    version = content[:16].partition(b"\n")[0].strip()
    if version.startswith(b"#!AER-DAT2"):
        return aedat2(content)
    if version.startswith(b"#!AER-DAT3"):
        return aedat3(content)
    raise ValueError(f"it begins with {version!r}; '#!AER-DAT2.0' or '#!AER-DAT3.1' is required")


def aedat2(content: bytes) -> Columns:
    """Decode AEDAT 2 as a DVS128 writes it: comment lines, then 8 bytes an event."""
    start = 0
    while content[start : start + 1] == b"#":
        start = content.index(b"\n", start) + 1
    body = np.frombuffer(content[start:], dtype=[("address", ">u4"), ("t", ">i4")])
    address = body["address"].astype(np.int64)
    t, x, y = body["t"].astype(np.int64), 127 - (address >> 1 & 127), address >> 8 & 127
    return t, x, y, 1 - (address & 1)


def aedat3(content: bytes) -> Columns:
    """Decode the polarity events of AEDAT 3.1 that are marked as valid."""
    mark = b"#!END-HEADER"
    place = content.index(b"\n", content.index(mark)) + 1
    addresses, times = [], []
    while place < len(content):
        kind, _, size, offset, overflow, _, number, _ = PACKET.unpack_from(content, place)
        place += PACKET.size
        end = place + size * number
        if end > len(content):
            raise ValueError(f"its last packet breaks off {end - len(content)} bytes early")
        if kind == POLARITY_EVENTS:
            rows = np.frombuffer(content[place:end], dtype=np.uint8).reshape(number, size)
            addresses.append(rows[:, :4].copy().view("<u4")[:, 0].astype(np.int64))
            stamp = rows[:, offset : offset + 4].copy().view("<u4")[:, 0].astype(np.int64)
            times.append(stamp | overflow << 31)
        place = end
    if not addresses:
        raise ValueError("it has no packet of polarity events")
    address, t = np.concatenate(addresses), np.concatenate(times)
    valid = (address & 1).astype(bool)
    address, t = address[valid], t[valid]
    return t, address >> 17, address >> 2 & 0x7FFF, address >> 1 & 1


READERS: Registry[Callable[[Path], Columns]] = Registry(
    "event file",
    {
        ".npz": read_npz,
        ".npy": read_npy,
        ".h5": read_h5,
        ".hdf5": read_h5,
        ".bin": read_nmnist,
        ".aedat": read_aedat,
    },
)


def read_columns(path: Path) -> Columns:
    """Read the four columns of an event file by its ending, or say why that is not possible."""
    try:
        require_regular(path)
        return READERS[path.suffix](path)
    except MissingDataError:
        raise
    except (CheckpointError, *DAMAGE) as error:
        raise MissingDataError(
            f"{path} cannot be read as events ({type(error).__name__}: {reason(error)}); restore "
            "the file or leave it out."
        ) from error


def read_events(path: str | Path, *, sensor: tuple[int, int] | None = None) -> np.ndarray:
    """Read the events of one recording.

    Parameters
    ----------
    path
        ``.npz``, ``.npy`` or ``.h5`` with t (microseconds), x, y and p; ``.bin`` of N-MNIST;
        ``.aedat`` of versions 2 and 3.1.
    sensor
        (height, width); of the raw formats that of their own sensor is the default.

    Returns
    -------
    ndarray of `topospike.data.events.EVENT`
        Sorted by time.

    Raises
    ------
    MissingDataError
        If the file is not there, is damaged or lacks a column, or the sensor's size is not known.
    ConfigError, ShapeError
        As `topospike.data.events.event_array`.
    """
    path = Path(path)
    size = sensor_of(path, sensor)
    return event_array(*read_columns(path), sensor=size, place=str(path))


def sensor_of(path: Path, given: tuple[int, int] | None) -> tuple[int, int]:
    """Return the size of the sensor: the given one, or that of the format."""
    size = given or SENSORS.get(path.suffix)
    if size is None:
        raise MissingDataError(
            f"{path} does not say how large its sensor is; set data.events.sensor to [height, "
            "width]."
        )
    return size
