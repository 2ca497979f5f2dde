"""Stage analyse: which masks of a network form one graph.

A chain is a run of layers each of which reads what the one before it writes. Names and shapes are
all a saved topology tells; what they cannot tell (parallel branches, unmasked layers in between)
the caller says with layer names or a wiring (`topospike.analysis.wiring`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from topospike.analysis.channels import can_group, tap_counts
from topospike.analysis.graph import LayeredGraph, graph_from_blocks, mask_array
from topospike.errors import ConfigError, ShapeError
from topospike.registry import suggestion

if TYPE_CHECKING:
    from topospike.analysis.graph import MaskLike

# The projections of attention read one tensor side by side, and its output joins a residual
# stream: equal shapes do not make any of them consecutive.
ATTENTION = re.compile(
    r"(^|[._])(attn|attention|query|key|value|qkv|[qkv]|[qkv]_proj|in_proj)([._]|$)"
)
SHORTCUT = re.compile(r"(^|\.)(shortcut|downsample|skip|projection)(\.|$)")


@dataclass(frozen=True, eq=False)
class Chain:
    """Layers that form one layered graph.

    Attributes
    ----------
    names
        Parameter names of the masks, in the order of the network.
    kind
        ``linear``: the masks as they are; ``channel``: with conv masks folded to channels;
        ``wired``: the same, with branches.
    masks
        Two-dimensional masks (n_out, n_in).
    taps
        For channel and wired chains, the kernel taps behind each entry of `masks`; else None.
    wiring
        Node sets (source, target) that each mask joins; for a plain chain (0, 1), (1, 2), ...
    """

    names: tuple[str, ...]
    kind: str
    masks: tuple[Bool[np.ndarray, "_ _"], ...]
    taps: tuple[Int[np.ndarray, "_ _"], ...] | None = None
    wiring: tuple[tuple[int, int], ...] = ()

    @cached_property
    def blocks(self) -> tuple[tuple[int, int, np.ndarray], ...]:
        """``(source, target, mask)`` of every mask."""
        pairs = self.wiring or tuple((k, k + 1) for k in range(len(self.masks)))
        return tuple((*pair, mask) for pair, mask in zip(pairs, self.masks, strict=True))

    @property
    def sizes(self) -> tuple[int, ...]:
        """Nodes of each node set."""
        found: dict[int, int] = {}
        for source, target, mask in self.blocks:
            found[source], found[target] = mask.shape[1], mask.shape[0]
        return tuple(found[k] for k in range(len(found)))

    @property
    def n_links(self) -> int:
        """Links of the whole chain."""
        return sum(int(mask.sum()) for mask in self.masks)

    def graph(self) -> LayeredGraph:
        """Return the layered graph, with tap counts for a channel or wired chain."""
        graph = graph_from_blocks(self.sizes, self.blocks)
        if self.taps is None:
            return graph
        offsets = np.concatenate([[0], np.cumsum(graph.sizes)])
        counted = np.zeros(graph.n_links, dtype=np.int64)
        for (source, target, _), taps in zip(self.blocks, self.taps, strict=True):
            links = graph.blocks.get((min(source, target), max(source, target)), [])
            low, high = graph.edges[links].T
            read, written = (low, high) if source < target else (high, low)
            counted[links] += taps[written - offsets[target], read - offsets[source]]
        return LayeredGraph(graph.sizes, graph.edges, graph.layers, taps=counted)


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
        In the network's order; a single linear layer is a chain of one. The projections of
        attention (known by name) never chain with what stands beside them in the list. An unmasked
        layer between two masked ones cannot be seen here.

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
    """Make a chain of the named linear masks.

    Raises
    ------
    ShapeError
        If a mask does not read as many neurons as the one before it writes.
    """
    arrays = tuple(mask_array(masks[name], name=name) for name in names)
    for before, after, one, two in zip(names, names[1:], arrays, arrays[1:], strict=False):
        if two.shape[1] != one.shape[0]:
            raise ShapeError(
                f"{after} has shape {two.shape} and cannot read the {one.shape[0]} outputs of "
                f"{before}: n_in must equal the n_out before it. Name consecutive layers, input "
                "side first."
            )
    return Chain(tuple(names), "linear", arrays)


def channel_chains(masks: Mapping[str, MaskLike]) -> list[Chain]:
    """Find the maximal runs of consecutive conv and linear layers whose channels fit.

    Grouped convolutions and the flattening before a linear layer are recognised by shape; a
    projection shortcut (known by name) starts a run of its own. For a residual network as a whole
    see `topospike.analysis.wiring.residual_chain`.
    """
    runs: list[list[str]] = []
    channels: int | None = None
    for name, mask in masks.items():
        if channels is not None and follows(name, mask.shape, channels):
            runs[-1].append(name)
        else:
            runs.append([name])
        channels = mask.shape[0]
    return [channel_chain(masks, run) for run in runs]


def follows(name: str, shape: Sequence[int], channels: int) -> bool:
    """Tell whether this layer can read a tensor of ``channels`` channels.

    A 1x1 kernel with fewer columns is taken for a projection, not for a grouped convolution.
    """
    if SHORTCUT.search(name):
        return False
    if len(shape) == 2:
        return shape[1] % channels == 0
    depthwise_or_wide = shape[1] == 1 or max(shape[2:], default=1) > 1
    return shape[1] == channels or (
        shape[1] < channels and depthwise_or_wide and can_group(shape, channels)
    )


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
