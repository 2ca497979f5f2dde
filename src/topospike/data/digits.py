"""Data stage: the embedded default, 1797 real scans of handwritten digits, 8 x 8 pixels.

From scikit-learn (Alpaydin and Kaynak 1998), part of the package, so nothing is downloaded. Grey
levels are 0..16. The set has no official test split in this form; ours is fixed once and for all,
independent of the run's seed: 360 images, stratified.
"""

from __future__ import annotations

import numpy as np
import torch

from topospike.data.images import TensorImages
from topospike.data.splits import stratified_choice
from topospike.errors import require

TEST_IMAGES = 360
TEST_SEED = 20260101
GREY_LEVELS = 16.0


def digits() -> tuple[TensorImages, TensorImages]:
    """Return the training (1437) and test (360) images, uint8 of shape (image, 1, 8, 8).

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
