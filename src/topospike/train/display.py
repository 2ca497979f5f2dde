"""Stage train: one progress bar on standard error, when that is a terminal and only then."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(
    label: str, *, total_steps: int, done_steps: int, shown: bool = True
) -> Iterator[Callable[[], None]]:
    """Show a bar over all steps of the run; yields a function to be called after each step.

    Off a terminal, or unless ``shown``, that function does nothing; rich is not even imported.
    """
    if not shown or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(label or "training", total=total_steps, completed=done_steps)
        yield lambda: bar.advance(task)
