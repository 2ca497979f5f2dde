"""Every test, and every example of a docstring, begins with the same random state."""

import random

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def known_random_state() -> None:
    """Seed all global generators, so that what fails once fails again."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)
