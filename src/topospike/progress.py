"""Shows on standard error how a long piece of work goes on, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T", covariant=True)


@contextmanager
def progress(
    label: str, *, total: int | None = None, done: int = 0, unit: str = "", shown: bool = True
) -> Iterator[Callable[..., None]]:
    """Show how much is done; yields a function to be called with what was added (1).

    Off a terminal, unless ``shown``, or without the package rich, that function does nothing.

    Parameters
    ----------
    label
        Stands before the bar.
    total
        Amount at the end; ``None`` where it is not known: then a count and the time are shown.
    done
        Amount at the start.
    unit
        What is counted, for the display.

    Examples
    --------
    >>> with progress("pruning", total=3) as advance:
    ...     advance()
    """
    if not shown or not sys.stderr.isatty() or find_spec("rich") is None:
        yield lambda amount=1: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    of_total = "" if total is None else "/{task.total:.0f}"
    count = TextColumn("{task.completed:.0f}" + f"{of_total} {unit}")
    clock = TimeElapsedColumn() if total is None else TimeRemainingColumn()
    columns = (TextColumn("{task.description}"), BarColumn(), count, clock)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label, total=total, completed=done)
        yield lambda amount=1: bar.advance(task, amount)


@runtime_checkable
class SizedIterable(Sized, Protocol[T]):
    """Something to go through whose length is known."""

    def __iter__(self) -> Iterator[T]:
        """Start from the beginning."""
        ...


def watched(batches: SizedIterable[T], label: str) -> Iterable[T]:
    """Yield the batches, with a progress bar on a terminal."""
    with progress(label, total=len(batches), unit="batches") as advance:
        for batch in batches:
            yield batch
            advance()


def say(message: str) -> None:
    """Show one line of progress, on a terminal only."""
    if sys.stderr.isatty():
        print(message, file=sys.stderr)


def warn(message: str) -> None:
    """Show a warning, on one line."""
    print(f"warning: {message}", file=sys.stderr)
