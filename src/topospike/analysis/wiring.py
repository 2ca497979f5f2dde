"""Stage analyse: networks with branches as one graph of shared node sets.

Every tensor of channels is a node set; a layer links the set it reads to the set it writes. The
post-addition tensor of a residual block is one set, written by the block's last convolution and by
its projection shortcut; an identity shortcut is no link.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from topospike.analysis.chains import Chain, module_path
from topospike.analysis.channels import tap_counts
from topospike.errors import ConfigError

if TYPE_CHECKING:
    from topospike.analysis.graph import MaskLike

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
