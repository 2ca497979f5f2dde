"""Simulate: share the rows of a batch among threads.

The compiled loops release the interpreter, so plain threads run them at the same time. As many are
used as torch uses (``torch.set_num_threads``). Rows never depend on each other: the result is the
same for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch

WORTHWHILE = 1 << 17
"""Elements below which handing work to another thread costs more than it saves."""


def in_shares(work: Callable[[int, int], int], rows: int, elements: int) -> int:
    """Call ``work(begin, end)`` on shares of ``range(rows)`` at once; return the sum of results."""
    threads = min(torch.get_num_threads(), rows)
    if threads < 2 or elements < WORTHWHILE:
        return work(0, rows)
    bounds = [rows * i // threads for i in range(threads + 1)]
    return sum(pool(threads).map(work, bounds[:-1], bounds[1:]))


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads; they are kept between calls."""
    return ThreadPoolExecutor(threads, thread_name_prefix="topospike")
