"""The one way to read a record: a regular file of a bounded size, decoded as its dataclass says.

Types, missing fields and ranges are checked by `msgspec` from the annotations, what no annotation
can say (lengths that agree) by the record's own ``__post_init__``. Every refusal is one line: which
file, what was found, what to do.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import GenericAlias
from typing import Any, TypeVar

import msgspec

from topospike.errors import CheckpointError, MissingDataError
from topospike.files.seal import MOST_BYTES, digest, warn_if_changed

R = TypeVar("R")

SHOWN = 300
MOST_TEXT = 2000
"""Characters of one text in a record; what it prints is then no longer than a screen."""

TEXTS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
RESTORE = "Restore the file, or delete it and repeat the command that wrote it."


def read_record(
    path: str | Path,
    kind: type[R] | GenericAlias,
    *,
    remedy: str = RESTORE,
    prepare: Callable[[Any], Any] | None = None,
) -> R:
    """Read a JSON file as a (nested) frozen dataclass, or as a mapping or tuple of them.

    Parameters
    ----------
    path
        The file. If a run sealed it and it was changed since, a `ChangedFileWarning` says so.
    kind
        What it holds.
    remedy
        What to do if it cannot be read; ends the message.
    prepare
        Changes the plain values before they become a record, for files of older versions.

    Raises
    ------
    MissingDataError
        There is no such file.
    CheckpointError
        It is no regular file, is too large, or does not hold such a record.

    Examples
    --------
    >>> import tempfile
    >>> from topospike.contracts import LayerInput
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "layer.json"
    ...     _ = path.write_text('{"name": "fc", "kind": "linear", "input": "image", "reason": ""}')
    ...     read_record(path, LayerInput).kind
    'linear'
    """
    content = read_bytes(path, remedy=remedy)
    warn_if_changed(Path(path), digest(content))
    return decoded(content, kind, path, remedy=remedy, prepare=prepare)


def read_optional(path: str | Path, kind: type[R] | GenericAlias, **options: Any) -> R | None:
    """Read a record as `read_record` does, ``None`` where nothing has that name."""
    return read_record(path, kind, **options) if os.path.lexists(path) else None


def read_bytes(path: str | Path, *, most: int = MOST_BYTES, remedy: str = RESTORE) -> bytes:
    """Return the content of a regular file; a pipe, a device or a folder is refused, not opened.

    Raises
    ------
    MissingDataError
        There is no such file.
    CheckpointError
        It is something else, cannot be read, or has more than ``most`` bytes.
    """
    require_regular(path, most=most, remedy=remedy)
    try:
        with Path(path).open("rb") as stream:
            content = stream.read(most + 1)
    except OSError as error:
        raise damaged(path, f"cannot be read ({error.strerror})", remedy) from error
    if len(content) > most:
        raise damaged(path, f"has more than {most} bytes", remedy)
    return content


def require_regular(path: str | Path, *, most: int | None = None, remedy: str = RESTORE) -> int:
    """Return the bytes of a regular file, links followed; refuse anything else that has the name.

    Raises
    ------
    MissingDataError
        There is no such file.
    CheckpointError
        It is something else, cannot be looked at, or has more than ``most`` bytes.
    """
    try:
        status = Path(path).stat()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise MissingDataError(f"{path} does not exist. {remedy}") from error
        raise damaged(path, f"cannot be read ({error.strerror})", remedy) from error
    except ValueError as error:
        raise damaged(path, f"is no name of a file ({error})", remedy) from error
    if not stat.S_ISREG(status.st_mode):
        raise damaged(path, f"is {file_kind(status.st_mode)}; a regular file is required", remedy)
    if most is not None and status.st_size > most:
        found = f"has {status.st_size} bytes; at most {most} are read"
        raise damaged(path, found, remedy)
    return status.st_size


def file_kind(mode: int) -> str:
    """Name what a path leads to.

    Examples
    --------
    >>> file_kind(Path("/dev/null").stat().st_mode), file_kind(Path("/").stat().st_mode)
    ('a device', 'a folder')
    """
    kinds = {stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket"}
    return next((name for is_kind, name in kinds.items() if is_kind(mode)), "a device")


def decoded(
    content: bytes,
    kind: type[R] | GenericAlias,
    path: str | Path,
    *,
    remedy: str = RESTORE,
    prepare: Callable[[Any], Any] | None = None,
) -> R:
    """Decode the JSON in ``content``, which came from ``path``.

    Raises
    ------
    CheckpointError
        It does not hold such a record.
    """
    try:
        if prepare is None:
            found = decoder(kind).decode(content)
        else:
            found = msgspec.convert(prepare(msgspec.json.decode(content)), kind)
        require_short_texts(content)
        return found
    except UNREADABLE as error:
        raise damaged(path, f"is damaged ({reason(error)})", remedy) from error


def require_short_texts(content: bytes) -> None:
    """Raise `ValueError` if some text in (valid) JSON is too long to be shown."""
    if len(content) <= MOST_TEXT:
        return
    long = (text[0] for text in TEXTS.finditer(content) if len(text[0]) > MOST_TEXT)
    longest = max((len(msgspec.json.decode(text)) for text in long), default=0)
    if longest > MOST_TEXT:
        raise ValueError(
            f"it holds a text of {longest} characters; at most {MOST_TEXT} belong there"
        )


def converted(
    plain: Any, kind: type[R] | GenericAlias, path: str | Path, *, remedy: str = RESTORE
) -> R:
    """Turn plain values that came from ``path`` into a record, as `decoded` does."""
    try:
        return msgspec.convert(plain, kind)
    except UNREADABLE as error:
        raise damaged(path, f"is damaged ({reason(error)})", remedy) from error


# What JSON that was cut or changed raises, the checks of the records included.
UNREADABLE = (ValueError, TypeError, LookupError, RecursionError, AttributeError, OverflowError)


@functools.cache
def decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    """Return the decoder of a type, made once."""
    return msgspec.json.Decoder(kind)


def reason(error: BaseException) -> str:
    """Say on one short line what a library found."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    return shortened(str(error)) or type(error).__name__


def shortened(text: str, most: int = SHOWN) -> str:
    """Put a text on one line and cut it, so that no message prints what a file holds.

    Examples
    --------
    >>> shortened("a" * 500, most=5), shortened("one line")
    ('aaaaa... (500 characters)', 'one line')
    """
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[:most]}... ({len(line)} characters)"


def damaged(path: str | Path, found: object, remedy: str = RESTORE) -> CheckpointError:
    """Return the error for a file that is there and cannot be used."""
    return CheckpointError(f"{path} {found}. {remedy}")
