"""Stage analyse: which masks of a network form one graph.

A chain is a run of layers each of which reads what the one before it writes. Names and shapes are
all a saved topology tells; what they cannot tell (parallel branches, unmasked layers in between)
the caller says with layer names or a wiring.

In a wiring every tensor of channels is a node set; a layer links the set it reads to the set it
writes. The post-addition tensor of a residual block is one set, written by the block's last
convolution and by its projection shortcut; an identity shortcut is no link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Int

from topospike.analysis.graphs.channels import can_group, tap_counts
from topospike.analysis.graphs.graph import LayeredGraph, graph_from_blocks, mask_array
from topospike.errors import ConfigError, ShapeError
from topospike.registry import suggestion

if TYPE_CHECKING:
    from topospike.analysis.graphs.graph import MaskLike


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
    see `topospike.analysis.graphs.chains.residual_chain`.
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


INNER = re.compile(r"^(?P<block>.+)\.conv(?P<position>\d+)$")
PROJECTION = re.compile(r"^(?P<block>.+?)\.(shortcut|downsample|skip|projection)(\.\d+|\.conv)?$")


def wired_chain(masks: Mapping[str, MaskLike], wiring: Mapping[str, tuple[str, str]]) -> Chain:
    """Join masks into one graph by naming the node sets that each reads and writes.

    Parameters
    ----------
    masks
        Parameter name -> mask, conv or linear.
    wiring
        Parameter name -> (node set read, node set written), in the order of the network. Sets with
        the same name are the same nodes; conv masks are folded to channels.

    Returns
    -------
    Chain
        Of kind ``wired``; its node sets are numbered in order of first appearance.

    Raises
    ------
    ConfigError
        If a name is no mask, nothing is wired, or a layer reads the set it writes.
    ShapeError
        If a mask does not fit the channels of the set it reads.

    Examples
    --------
    >>> import numpy as np
    >>> masks = {name: np.ones((2, 2), dtype=bool) for name in ("a", "b", "skip")}
    >>> chain = wired_chain(masks, {"a": ("x", "h"), "b": ("h", "y"), "skip": ("x", "y")})
    >>> chain.graph().sizes, chain.graph().n_links
    ((2, 2, 2), 12)
    """
    if not wiring:
        raise ConfigError("the wiring names no layer; give at least one.")
    channels: dict[str, int] = {}
    for name, (source, target) in wiring.items():
        if name not in masks:
            raise ConfigError(f"layer {name!r} is not in the topology. Known: {', '.join(masks)}.")
        if source == target:
            raise ConfigError(f"layer {name!r} is wired from {source!r} to itself.")
        written = int(masks[name].shape[0])
        if channels.setdefault(target, written) != written:
            raise ConfigError(
                f"layer {name!r} writes {written} channels to {target!r}, which has "
                f"{channels[target]}."
            )
    numbers: dict[str, int] = {}
    taps = []
    for name, (source, target) in wiring.items():
        channels.setdefault(source, int(masks[name].shape[1]))
        numbers.setdefault(source, len(numbers))
        numbers.setdefault(target, len(numbers))
        taps.append(tap_counts(masks[name], channels=channels[source]))
    return Chain(
        names=tuple(wiring),
        kind="wired",
        masks=tuple(t > 0 for t in taps),
        taps=tuple(taps),
        wiring=tuple((numbers[s], numbers[t]) for s, t in wiring.values()),
    )


def is_residual(masks: Mapping[str, MaskLike]) -> bool:
    """Tell by the names whether the masks belong to a residual network with projections."""
    paths = [module_path(name) for name in masks]
    blocks = {match["block"] for path in paths if (match := INNER.match(path))}
    return any((match := PROJECTION.match(path)) and match["block"] in blocks for path in paths)


def residual_wiring(masks: Mapping[str, MaskLike]) -> dict[str, tuple[str, str]]:
    """Read the wiring of a residual network from the names of its conv layers.

    Parameters
    ----------
    masks
        Parameter name -> mask. Blocks are recognised as ``BLOCK.conv1``, ``BLOCK.conv2``, ... with
        an optional ``BLOCK.shortcut`` or ``BLOCK.downsample``, the naming of torchvision and of
        `topospike.models`; other conv layers are taken to follow one another.

    Returns
    -------
    dict
        Parameter name -> (node set read, node set written); linear layers are left out.

    Examples
    --------
    >>> import numpy as np
    >>> names = ("stem", "layer1.0.conv1", "layer1.0.conv2", "layer1.0.downsample.0")
    >>> masks = {f"{name}.weight": np.ones((4, 4, 1, 1), dtype=bool) for name in names}
    >>> residual_wiring(masks)["layer1.0.downsample.0.weight"]
    ('stem', 'layer1.0')
    """
    convs = {module_path(name): name for name in masks if len(masks[name].shape) > 2}
    last = {}
    for path in convs:
        if match := INNER.match(path):
            last[match["block"]] = max(int(match["position"]), last.get(match["block"], 0))
    stream, before, current = "input", "input", ""
    wiring: dict[str, tuple[str, str]] = {}
    for path, name in convs.items():
        match = INNER.match(path) or PROJECTION.match(path)
        block = match["block"] if match and match["block"] in last else None
        if block is None:
            wiring[name] = (stream, path)
            stream = path
            continue
        if block != current:
            current, before, stream = block, stream, block
        position = match.groupdict().get("position") if match else None
        if position is None:
            wiring[name] = (before, block)
        else:
            k = int(position)
            source = before if k == 1 else f"{block}.conv{k - 1}"
            wiring[name] = (source, block if k == last[block] else path)
    return wiring


def residual_chain(masks: Mapping[str, MaskLike]) -> Chain:
    """Return the channel graph of a residual network, wired by the names of its layers."""
    return wired_chain(masks, residual_wiring(masks))
