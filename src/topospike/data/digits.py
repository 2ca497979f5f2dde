"""Data stage: the embedded set, scikit-learn's digits (Alpaydin and Kaynak 1998).

1797 real scans that are part of an installed package, so nothing is downloaded.
"""

from __future__ import annotations

import numpy as np
import torch

from topospike.data.hub import Source
from topospike.data.ondemand import TensorImages
from topospike.data.splits import stratified_choice
from topospike.errors import ConfigError, require
from topospike.recipe import DataSettings

TEST_IMAGES, TEST_SEED, GREY_LEVELS = 360, 20260101, 16.0


def digits() -> tuple[TensorImages, TensorImages]:
    """Return the training (1437) and test (360) images, uint8 of shape (image, 1, 8, 8).

    Grey levels are 0..16. The set has no official test split in this form; ours is fixed once and
    for all, independent of the run's seed, and stratified.

    Examples
    --------
    >>> train, test = digits()
    >>> len(train), len(test), tuple(train.pixels.shape[1:])
    (1437, 360, (1, 8, 8))
    """
    require("sklearn", purpose="the dataset 'digits'")
    from sklearn.datasets import load_digits

    rows, classes = load_digits(return_X_y=True)
    pixels = torch.from_numpy(np.asarray(rows, dtype=np.uint8)).view(-1, 1, 8, 8)
    everything = TensorImages(pixels, np.asarray(classes, dtype=np.int64), GREY_LEVELS)
    test, train = stratified_choice(everything.labels, TEST_IMAGES, seed=TEST_SEED)
    return everything.take(train), everything.take(test)


def open_digits(settings: DataSettings) -> Source:
    """Open the embedded set; the options that only concern other sources must be at rest."""
    for option in ("image_column", "label_column", "image_size", "channels"):
        if getattr(settings, option) is not None:
            raise ConfigError(
                f"data.{option} = {getattr(settings, option)!r} has no meaning for the embedded "
                "'digits'; leave it out, or name another data.source"
            )
    return Source(*digits(), 10, 1, (8, 8), tuple(str(digit) for digit in range(10)))
