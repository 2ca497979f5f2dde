"""Command line: the entry point ``topospike``.

Exit status 0: done; 1: a defect (its traceback is shown); 2: an error of ours, told on one line
(``--debug`` shows the traceback); 130: stopped by Ctrl-C. The stages are imported by the command
that needs them, so ``topospike --help`` loads no torch. The packages of the command line itself
come with the extra ``cli``; without them the first line of output names it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from topospike.errors import TopospikeError, require

if TYPE_CHECKING:
    from jsonargparse import Namespace

USAGE_STATUS = 2
INTERRUPTED_STATUS = 130
# <malloc.h>: freed memory above this is given back; blocks above this get pages of their own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LONGEST = 3000
LARGEST_INT = 2**31 - 1
PER_BLOCK = 2**30
GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        require("jsonargparse", "yaml", "rich", purpose="the command line")
        from topospike.cli.arguments import build_parser, parse

        if not arguments:
            build_parser().print_help()
            return USAGE_STATUS
        execute(*parse(arguments))
    except TopospikeError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        else:
            print(f"error{speaker()}:", one_line(str(error), *notes(error)), file=sys.stderr)
        return USAGE_STATUS
    except OSError as error:  # the file system's, wherever it stood in the way
        if "--debug" in arguments:
            traceback.print_exc()
        place = f"{error.filename}: " if error.filename else ""
        print(f"error{speaker()}: {place}{one_line(str(error.strerror or error))}", file=sys.stderr)
        return USAGE_STATUS
    except KeyboardInterrupt as stop:
        hint = notes(stop) or ["The same command goes on where it stopped."]
        print("stopped.", *hint, file=sys.stderr)
        return INTERRUPTED_STATUS
    return 0


def one_line(*parts: str) -> str:
    """Join what is said to one line that does not fill the screen.

    Examples
    --------
    >>> one_line("a", "b  c"), len(one_line("x" * 10**6)) < LONGEST + 100
    ('a b c', True)
    """
    line = " ".join(" ".join(parts).split())
    left = len(line) - LONGEST
    return line if left <= 0 else f"{line[:LONGEST]}... ({left} more characters; see --debug)"


def show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Show a warning on one line, as the stages do."""
    print(f"warning: {category.__name__}: {one_line(str(message))}", file=sys.stderr)


def speaker() -> str:
    """Return which of several processes speaks, and nothing where there is one."""
    several = os.environ.get("WORLD_SIZE", "1") != "1"
    return f" (process {os.environ.get('RANK', '?')})" if several else ""


def notes(error: BaseException) -> list[str]:
    """Return what the stages added to an error on its way here."""
    return getattr(error, "__notes__", [])


def execute(command: str, options: Namespace) -> None:
    """Run one subcommand."""
    keep_freed_memory()
    from topospike.cli.commands import TABLE
    from topospike.files.seal import forget

    forget()
    with warnings.catch_warnings():
        warnings.showwarning = show_warning
        TABLE[command](options)


def keep_freed_memory() -> bool:
    """Ask glibc not to give freed memory back to the system; tell whether it agreed.

    glibc returns every large block to the system when it is freed, so each step of a training run
    or a simulation asks for fresh pages again, which the system must clear. Keeping them takes no
    more memory than the largest step needed, and a training step of a small VGG on one core costs a
    third less time. What is computed does not change. Does nothing on other systems and C
    libraries, or where the user has set glibc's own variables.

    Examples
    --------
    >>> isinstance(keep_freed_memory(), bool)
    True
    """
    if sys.platform != "linux" or any(name in os.environ for name in GLIBC_VARIABLES):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((M_MMAP_THRESHOLD, PER_BLOCK), (M_TRIM_THRESHOLD, LARGEST_INT))
    return all(mallopt(name, value) == 1 for name, value in settings)


if __name__ == "__main__":
    sys.exit(main())
