"""Pipeline: one command at a time writes in a run folder.

The lock is the system's own, on the file ``.lock``: it goes with the process that holds it, however
that ends: what a killed one left in the file counts for nothing. While it is held the file names
the holder, for the message. Reports and exports only read the run, and need none. Within one
process calls may be nested; of several processes of one run the main one holds it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from topospike.errors import ConfigError
from topospike.files.reading import require_regular, shortened
from topospike.train import current_processes

FILE = ".lock"
MOST_BYTES = 1000
_held: set[str] = set()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder inside the block; the folder is made if missing.

    Raises
    ------
    ConfigError
        Another command writes there (names its process and machine), or nobody can.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked(Path(folder)):
    ...     "pid" in (Path(folder) / FILE).read_text()
    True
    """
    key = str(folder.resolve())
    # A process keeps one lock: closing a second handle of the file would give up the first.
    if key in _held or not current_processes().is_main:
        yield
        return
    is_new = not folder.exists()
    handle = take(folder)
    _held.add(key)
    try:
        yield
    finally:
        _held.discard(key)
        os.ftruncate(handle, 0)
        if is_new and [path.name for path in folder.iterdir()] == [FILE]:
            shutil.rmtree(folder)  # the command was refused, and leaves nothing behind
        os.close(handle)


def take(folder: Path) -> int:
    """Open and lock the file of a folder, and write into it who holds it; return its handle."""
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o644)
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written ({error.strerror}), and so nothing in its folder can; "
            "choose another folder, or remove what is in the way."
        ) from error
    try:
        require_regular(path)
        lock(handle, folder)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        content = {"pid": os.getpid(), "host": socket.gethostname(), "since": now}
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(content).encode())
    except BaseException:
        os.close(handle)
        raise
    return handle


def lock(handle: int, folder: Path) -> None:
    """Lock an open file, or say who has it."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError) as error:
        raise ConfigError(
            f"another command writes in {folder}: {holder(os.read(handle, MOST_BYTES))}. Wait for "
            "it, stop it, or choose another folder."
        ) from error
    except OSError as error:
        message = f"{folder} cannot be locked ({error.strerror}): run one command at a time in it."
        warnings.warn(message, stacklevel=4)


def holder(content: bytes) -> str:
    """Say who holds a lock, from what its file says.

    Examples
    --------
    >>> holder(b'{"pid": 12, "host": "a", "since": "2026-01-01T00:00:00+00:00"}')
    'process 12 on a, since 2026-01-01T00:00:00+00:00'
    >>> holder(b"")
    'a process that has not said which'
    """
    try:
        found = json.loads(content)
        text = f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (ValueError, TypeError, LookupError):
        return "a process that has not said which"
    return shortened(text)
