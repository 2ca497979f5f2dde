"""Data stage: one independent random stream for every purpose.

A run has one seed. Each use of randomness (the split, the order of an epoch, the augmentation of
one batch) gets its own stream from that seed and a few small integers, so that adding or skipping
one of them never changes another. Nothing here touches the global generators of torch or NumPy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from topospike.errors import ConfigError


def stream_seed(*key: int) -> int:
    """Mix non-negative integers into one 63-bit seed.

    Parameters
    ----------
    *key
        For example ``(seed, epoch, batch)``. The order matters.

    Raises
    ------
    ConfigError
        If a part is negative.

    Notes
    -----
    NumPy's ``SeedSequence`` hash, which keeps neighbouring keys far apart; ``seed + epoch`` would
    make epoch 1 of seed 0 equal to epoch 0 of seed 1.

    Examples
    --------
    >>> stream_seed(0, 1) == stream_seed(0, 1), stream_seed(0, 1) == stream_seed(1, 0)
    (True, False)
    """
    if any(part < 0 for part in key):
        raise ConfigError(f"seed parts {key} must be 0 or larger; give a non-negative seed")
    word = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return int(word >> np.uint64(1))


@contextmanager
def borrowed_global_generator(seed: int) -> Iterator[None]:
    """Let a library that only knows torch's global CPU generator draw from ``seed``.

    The state from before is put back on leaving, also after an error. Generators of accelerators
    are neither used nor changed, so draws are the same on every device.
    """
    with torch.random.fork_rng(devices=[]):
        # torch.manual_seed would reseed every accelerator as well.
        torch.default_generator.manual_seed(seed)
        yield
