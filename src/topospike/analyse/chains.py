"""Stage analyse: which masks of a network form one graph, and how conv masks enter it.

A conv mask (c_out, c_in, kh, kw) has two graphs. Unfolded, (c_out, c_in kh kw), it is what CHT
evolves, but its columns are no neurons of the layer before, so unfolded layers cannot be chained.
The channel graph links two channels when any kernel tap between them is in the mask; it chains,
but near 3x3 taps it is nearly complete at moderate sparsity (see `channel_mask`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from topospike.analyse.graph import LayeredGraph, layered_graph, mask_array
from topospike.errors import ConfigError, ShapeError
from topospike.registry import suggestion

if TYPE_CHECKING:
    from topospike.analyse.graph import MaskLike

# Sibling projections read the same tensor: equal shapes do not make them consecutive.
ATTENTION = re.compile(r"(^|[._])(query|key|value|qkv|[qkv]|[qkv]_proj|in_proj)(_weight)?$")


@dataclass(frozen=True, eq=False)
class Chain:
    """Consecutive layers that form one layered graph.

    Attributes
    ----------
    names
        Parameter names of the masks, input side first.
    kind
        ``linear``: the masks as they are; ``channel``: with conv masks folded to channels.
    masks
        Two-dimensional masks (n_out, n_in), each n_in equal to the n_out before it.
    taps
        For a channel chain, the kernel taps behind each entry of `masks`; else None.
    """

    names: tuple[str, ...]
    kind: str
    masks: tuple[Bool[np.ndarray, "n_out n_in"], ...]
    taps: tuple[Int[np.ndarray, "n_out n_in"], ...] | None = None

    @property
    def n_links(self) -> int:
        """Links of the whole chain."""
        return sum(int(mask.sum()) for mask in self.masks)

    def graph(self) -> LayeredGraph:
        """Return the layered graph of the chain, with tap counts for a channel chain."""
        graph = layered_graph(self.masks)
        if self.taps is None:
            return graph
        offsets = np.concatenate([[0], np.cumsum(graph.sizes)])
        taps = np.zeros(graph.n_links, dtype=np.int64)
        for (low, high), links in graph.blocks.items():
            i, j = graph.edges[links].T
            taps[links] = self.taps[low][j - offsets[high], i - offsets[low]]
        return LayeredGraph(graph.sizes, graph.edges, graph.layers, taps=taps)


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


def module_path(name: str) -> str:
    """Drop the parameter's own name: ``fc1.weight`` -> ``fc1``."""
    return name.removesuffix(".weight")


def linear_chains(masks: Mapping[str, MaskLike]) -> list[Chain]:
    """Find the maximal runs of consecutive linear layers whose sizes fit.

    Parameters
    ----------
    masks
        Parameter name -> mask, in the order of the network.

    Returns
    -------
    list of Chain
        In the network's order; a single linear layer is a chain of one. Query, key and value
        projections of attention (by name) read the same tensor and never chain with what stands
        beside them in the list. An unmasked layer between two masked ones cannot be seen here.

    Examples
    --------
    >>> import numpy as np
    >>> sizes = {"a.weight": (4, 3), "b.weight": (2, 4), "c.weight": (5, 9)}
    >>> net = {name: np.ones(size, dtype=bool) for name, size in sizes.items()}
    >>> [chain.names for chain in linear_chains(net)]
    [('a.weight', 'b.weight'), ('c.weight',)]
    """
    runs: list[list[str]] = []
    previous: str | None = None
    for name, mask in masks.items():
        if len(mask.shape) != 2:
            previous = None
            continue
        fits = previous is not None and masks[previous].shape[0] == mask.shape[1]
        siblings = any(ATTENTION.search(module_path(n)) for n in (name, previous or name))
        if fits and not siblings:
            runs[-1].append(name)
        else:
            runs.append([name])
        previous = name
    return [linear_chain(masks, run) for run in runs]


def linear_chain(masks: Mapping[str, MaskLike], names: Sequence[str]) -> Chain:
    """Make a chain of the named linear masks."""
    return Chain(tuple(names), "linear", tuple(mask_array(masks[n], name=n) for n in names))


def channel_chains(masks: Mapping[str, MaskLike]) -> list[Chain]:
    """Find the maximal runs of consecutive conv and linear layers whose channels fit.

    Grouped convolutions and the flattening before a linear layer are recognised by shape. In a
    residual network a projection shortcut ends a run; join its node sets with
    `topospike.analyse.graph.graph_from_blocks` instead.
    """
    runs: list[list[str]] = []
    channels: int | None = None
    for name, mask in masks.items():
        if channels is not None and follows(mask.shape, channels):
            runs[-1].append(name)
        else:
            runs.append([name])
        channels = mask.shape[0]
    return [channel_chain(masks, run) for run in runs]


def follows(shape: Sequence[int], channels: int) -> bool:
    """Tell whether a mask of this shape can read a tensor of ``channels`` channels."""
    if len(shape) == 2:
        return shape[1] % channels == 0
    return shape[1] == channels or (shape[1] < channels and can_group(shape, channels))


def channel_chain(masks: Mapping[str, MaskLike], names: Sequence[str]) -> Chain:
    """Make a chain of channel masks; each mask reads the channels the one before it writes."""
    taps: list[np.ndarray] = []
    for name in names:
        taps.append(tap_counts(masks[name], channels=taps[-1].shape[0] if taps else None))
    return Chain(tuple(names), "channel", tuple(t > 0 for t in taps), tuple(taps))


def main_chain(masks: Mapping[str, MaskLike], names: Sequence[str] | None = None) -> Chain:
    """Choose the layers to analyse as one graph.

    Parameters
    ----------
    masks
        Parameter name -> mask, in the order of the network.
    names
        The chain to take, input side first; None takes the longest run of linear layers (of equal
        ones the last, nearest to the classifier), or the longest channel run of a network without
        linear masks.

    Raises
    ------
    ConfigError
        If there is no mask or a name is unknown.
    ShapeError
        If the named layers do not fit one another.
    """
    if not masks:
        raise ConfigError("the topology has no mask; sparsify at least one layer first.")
    if names is not None:
        return named_chain(masks, names)
    runs = linear_chains(masks) or channel_chains(masks)
    longest = max(len(run.names) for run in runs)
    return [run for run in runs if len(run.names) == longest][-1]


def named_chain(masks: Mapping[str, MaskLike], names: Sequence[str]) -> Chain:
    """Make the chain of the given layers, linear if all of them are, else of channels."""
    known = {module_path(name): name for name in masks}
    full = []
    for name in names:
        if module_path(name) not in known:
            hint = suggestion(module_path(name), known)
            raise ConfigError(
                f"layer {name!r} is not in the topology. Known: {', '.join(known)}.{hint}"
            )
        full.append(known[module_path(name)])
    if not full:
        raise ConfigError("the chain names no layer; give at least one, or None.")
    if all(len(masks[name].shape) == 2 for name in full):
        return linear_chain(masks, full)
    return channel_chain(masks, full)
