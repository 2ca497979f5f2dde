"""Command line: let the C library keep the memory that tensors give back.

glibc returns every large block to the system when it is freed, so each step of a training run or a
simulation asks for fresh pages again, which the system must clear. Keeping them takes no more
memory than the largest step needed, and a training step of a small VGG on one core costs a third
less time. What is computed does not change.
"""

from __future__ import annotations

import ctypes
import os
import sys

# <malloc.h>: freed memory above this is given back; blocks above this get pages of their own.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_INT = 2**31 - 1
PER_BLOCK = 2**30
GLIBC_VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")


def keep_freed_memory() -> bool:
    """Ask glibc not to give freed memory back to the system; tell whether it agreed.

    Does nothing on other systems and C libraries, or where the user has set glibc's own variables.

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
