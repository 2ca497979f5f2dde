"""Stage 2 (evolve): arithmetic guard for score computations.

Scores are sums of small rationals and ties decide which links are grown, so the matrix products
behind them must not be rounded to TF32 or bfloat16, whatever precision training itself uses.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

PRECISION_SWITCHES: tuple[Any, ...] = (
    torch.backends.cuda.matmul,
    torch.backends.cudnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.mkldnn.matmul,  # pyright: ignore[reportAttributeAccessIssue]
    torch.backends.mkldnn.conv,  # pyright: ignore[reportAttributeAccessIssue]
)


@contextmanager
def exact_float32(device: torch.device) -> Iterator[None]:
    """Run a block without gradients, autocast and reduced-precision float32 products.

    The previous settings are restored on the way out, also after an error.

    Examples
    --------
    >>> with exact_float32(torch.device("cpu")):
    ...     torch.backends.mkldnn.matmul.fp32_precision
    'ieee'
    """
    previous = [switch.fp32_precision for switch in PRECISION_SWITCHES]
    try:
        for switch in PRECISION_SWITCHES:
            switch.fp32_precision = "ieee"
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        for switch, precision in zip(PRECISION_SWITCHES, previous, strict=True):
            switch.fp32_precision = precision
