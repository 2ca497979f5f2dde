"""Stage analyse: conv masks as two-dimensional masks.

A conv mask (c_out, c_in, kh, kw) has two graphs. Unfolded, (c_out, c_in kh kw), it is what CHT
evolves, but its columns are no neurons of the layer before, so unfolded layers cannot be chained.
The channel graph links two channels when any kernel tap between them is in the mask; it chains,
but with 3x3 taps it is nearly complete at moderate sparsity (see `channel_mask`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from topospike.analysis.graphs.graph import mask_array
from topospike.errors import ShapeError

if TYPE_CHECKING:
    from topospike.analysis.graphs.graph import MaskLike


def unfold(mask: MaskLike) -> Bool[np.ndarray, "n_out n_in"]:
    """Return a mask as one bipartite layer: conv (c_out, c_in kh kw) in C order, linear unchanged.

    Examples
    --------
    >>> import numpy as np
    >>> unfold(np.ones((8, 3, 3, 3), dtype=bool)).shape
    (8, 27)
    """
    array = mask_array(mask)
    if array.ndim < 2 or 0 in array.shape:
        raise ShapeError(
            f"a mask of shape {array.shape} was given; (n_out, n_in) or (c_out, c_in, kh, kw) "
            "without empty axes is required."
        )
    return array.reshape(array.shape[0], -1)


def tap_counts(mask: MaskLike, *, channels: int | None = None) -> Int[np.ndarray, "n_out n_in"]:
    """Count the links between each pair of channels.

    Parameters
    ----------
    mask
        Conv mask (c_out, c_in / groups, kh, kw), or linear mask (n_out, n_in).
    channels
        Channels that enter. A conv mask with fewer columns is grouped (depthwise when it has one
        column); a linear mask with more columns reads a flattened map in (channel, y, x) order.
        None: as many as the mask has columns.

    Returns
    -------
    int64, shape (n_out, channels)

    Raises
    ------
    ShapeError
        If the mask cannot read that many channels.

    Examples
    --------
    >>> import numpy as np
    >>> tap_counts(np.ones((4, 1, 3, 3), dtype=bool), channels=4).diagonal().tolist()
    [9, 9, 9, 9]
    >>> tap_counts(np.ones((2, 12), dtype=bool), channels=3).tolist()
    [[4, 4, 4], [4, 4, 4]]
    """
    array = mask_array(mask)
    if array.ndim < 2 or 0 in array.shape:
        raise ShapeError(f"a mask of shape {array.shape} has no channels; see channel_mask.")
    width = int(array.shape[1]) if channels is None else channels
    if array.ndim == 2 and width and array.shape[1] % width == 0:
        return array.reshape(array.shape[0], width, -1).sum(axis=2)
    counts = array.reshape(array.shape[0], array.shape[1], -1).sum(axis=2)
    if array.ndim > 2 and can_group(array.shape, width):
        return spread_groups(counts, width)
    raise ShapeError(
        f"a mask of shape {array.shape} cannot read {width} channels; give consecutive layers, "
        "input side first."
    )


def can_group(shape: Sequence[int], channels: int) -> bool:
    """Tell whether a conv weight of this shape can read ``channels`` channels, maybe in groups."""
    return channels % shape[1] == 0 and shape[0] % (channels // shape[1]) == 0


def spread_groups(
    counts: Int[np.ndarray, "n_out n_group"], channels: int
) -> Int[np.ndarray, "n_out n_in"]:
    """Place each group's columns at its own input channels; pairs across groups have no link."""
    n_out, width = counts.shape
    groups = channels // width
    full = np.zeros((n_out, channels), dtype=np.int64)
    for group in range(groups):
        rows = slice(group * n_out // groups, (group + 1) * n_out // groups)
        full[rows, group * width : (group + 1) * width] = counts[rows]
    return full


def channel_mask(mask: MaskLike, *, channels: int | None = None) -> Bool[np.ndarray, "n_out n_in"]:
    """Return which channels are linked: any kernel tap (or map position) between them is present.

    Notes
    -----
    With kh kw taps at density p a random channel graph has density 1 - (1 - p)^(kh kw): 0.893 for
    3x3 taps at 78 % sparsity. Read such graphs with care.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((2, 3, 3, 3), dtype=bool)
    >>> mask[1, 2, 0, 0] = True
    >>> channel_mask(mask).astype(int).tolist()
    [[0, 0, 0], [0, 0, 1]]
    """
    return tap_counts(mask, channels=channels) > 0
