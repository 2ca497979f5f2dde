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

# Third part of the keys of an epoch, ``(seed, epoch, purpose, number of the batch)``.
ORDER, AUGMENT, MIX = 0, 1, 2
# Second part of the keys that belong to no epoch; see `order_seed`.
SPLIT, SAMPLE = 100, 101
# Second of the two parts of the key of the sides that alternating flips start from.
SIDES = 0


def stream_seed(*key: int) -> int:
    """Mix non-negative integers into one 63-bit seed; different keys make different streams.

    Parameters
    ----------
    *key
        For example ``(seed, epoch, purpose, batch)``. The order matters, and so does the length.

    Raises
    ------
    ConfigError
        If a part is negative or has more than 64 bits.

    Notes
    -----
    NumPy's ``SeedSequence`` hash, which keeps neighbouring keys far apart; ``seed + epoch`` would
    make epoch 1 of seed 0 equal to epoch 0 of seed 1. It reads 32-bit words and fills up to four
    with zeros, so for it ``(3,)`` is ``(3, 0)`` and ``(2**32,)`` is ``(0, 1)``: only four small
    parts are given as they are, all other keys with their length and two words a part.

    Examples
    --------
    >>> stream_seed(0, 1) == stream_seed(0, 1), stream_seed(0, 1) == stream_seed(1, 0)
    (True, False)
    >>> stream_seed(3) == stream_seed(3, 0), stream_seed(2**32) == stream_seed(0, 1)
    (False, False)
    """
    if not all(0 <= part < 2**64 for part in key):
        raise ConfigError(
            f"seed parts {key} must be 0 or larger and below 2**64; give a non-negative seed"
        )
    if len(key) == 4 and max(key) < 2**32:
        sequence = np.random.SeedSequence(key)
    else:
        words = [word for part in key for word in divmod(part, 2**32)]
        sequence = np.random.SeedSequence(len(key), spawn_key=words)
    return int(sequence.generate_state(1, np.uint64)[0] >> np.uint64(1))


def split_seed(seed: int) -> int:
    """Return the seed of subset and validation cut."""
    return stream_seed(seed, SPLIT, 0, 0)


def sample_seed(seed: int) -> int:
    """Return the seed of the sample of images that is measured."""
    return stream_seed(seed, SAMPLE, 0, 0)


def sides_seed(seed: int) -> int:
    """Return the seed of the images that are mirrored in epoch 0 by alternating flips."""
    return stream_seed(seed, SIDES)


def order_seed(seed: int, epoch: int) -> int:
    """Return the seed of the order of an epoch.

    The numbers of the split and of the sample are those of epochs too, whose orders keep clear.

    Examples
    --------
    >>> order_seed(0, 100) == split_seed(0)
    False
    """
    return stream_seed(seed, epoch, ORDER, int(epoch in (SPLIT, SAMPLE)))


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
