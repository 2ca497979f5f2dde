"""Look at a network as it is in use, and leave every part of it in the mode it was in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation mode for the length of a block.

    Every module gets its own mode back, not that of the whole: a batch norm that was frozen while
    the rest trains stays frozen.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1).eval())
    >>> with evaluating(model):
    ...     model.training
    False
    >>> [module.training for module in model]
    [True, False]
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
