"""Simulate: what lies between the sites and the layer they feed, as a function of what they emit.

A layer can be given spikes if only maps that are linear and free of constants lie on the way. Where
these are reshapes, after at most one pool of whole windows, it can be given whole codes: the sum
over a window stands for the average.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.snn.coding import Coding
from topospike.snn.executors.scatter import POINT, Geometry
from topospike.snn.executors.split import copy_into, generated_function
from topospike.wiring.fanout import constants_on_path
from topospike.wiring.layers import Layer
from topospike.wiring.linear_maps import adds_a_number, is_number

aten = torch.ops.aten

RESHAPES = frozenset(
    {
        aten.view.default,
        aten.reshape.default,
        aten.flatten.using_ints,
        aten._unsafe_view.default,
        aten.unsqueeze.default,
        aten.squeeze.dim,
        aten.clone.default,
        aten.contiguous.default,
    }
)
"""Operations that move values and change none."""


def way_of(layer: Layer, network: nn.Module) -> tuple[Coding, tuple[fx.Node, ...]] | None:
    """Return the coding of the sites behind a layer, and the sizes that its path asks for.

    ``None`` where the sites have several codings, or a constant is on the way.
    """
    called: Any = [network.get_submodule(str(call.target)) for call in layer.sites]
    codings = {site.coding for site in called}
    constants = constants_on_path(layer)
    numbers = tuple(filter(is_number, constants))
    proportional = len(numbers) == len(constants) and not any(map(adds_a_number, layer.path))
    return (codings.pop(), numbers) if len(codings) == 1 and proportional else None


def geometry_of(node: fx.Node) -> tuple[Geometry, int]:
    """Return stride, padding, dilation (down and across) and the groups of a layer."""
    if node.target is aten.linear.default:
        return POINT, 1
    stride, padding, dilation, groups = (
        node.args[place] if len(node.args) > place else default
        for place, default in ((3, 1), (4, 0), (5, 1), (6, 1))
    )
    return (*pair(stride), *pair(padding), *pair(dilation)), int(groups)  # pyright: ignore[reportArgumentType, reportReturnType]


def pair(value: Any) -> tuple[int, int]:
    """Return (down, across) of a setting given once or twice."""
    down, across = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return int(down), int(across)


def path_function(
    layer: Layer,
    numbers: tuple[fx.Node, ...],
    instead: Mapping[fx.Node, Callable[..., Tensor]] = MappingProxyType({}),
) -> Callable[..., Tensor]:
    """Generate ``path(network, *values of the sites, *numbers) -> operand``.

    Some nodes may call another function ``instead``.
    """
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in (*layer.sites, *numbers)}
    for node in layer.path:
        copies[node] = copy_into(graph, node, copies)
        copies[node].target = instead.get(node, copies[node].target)
    graph.output(copies[layer.operand])
    graph.eliminate_dead_code()
    return generated_function(graph)


def code_path(layer: Layer, numbers: tuple[fx.Node, ...]) -> Callable[..., Tensor] | None:
    """Return `path_function` on whole codes, averages becoming sums; ``None`` if it has none."""
    pooled = [node for node in layer.path[:1] if in_whole_windows(node)]
    if len(layer.sites) > 1 or any(n.target not in RESHAPES for n in layer.path[len(pooled) :]):
        return None
    return path_function(layer, numbers, dict.fromkeys(pooled, summed_windows))


def in_whole_windows(node: fx.Node) -> bool:
    """Tell whether a node averages over windows that all lie inside the map."""
    if node.target is not aten.avg_pool2d.default:
        return False
    padding, ceil = (node.args[i] if len(node.args) > i else 0 for i in (3, 4))
    return not ceil and pair(padding) == (0, 0)


def summed_windows(codes: Tensor, kernel: Any, stride: Any = None, *_: Any, **__: Any) -> Tensor:
    """Return the sums over windows (down, across) of maps of codes.

    Examples
    --------
    >>> summed_windows(torch.arange(8, dtype=torch.uint8).view(1, 1, 2, 4), [2, 2])
    tensor([[[[10, 18]]]], dtype=torch.uint8)
    """
    high, wide = pair(kernel)
    down, across = pair(stride or kernel)
    rows, columns = (
        (n - k) // s + 1
        for n, k, s in zip(codes.shape[2:], (high, wide), (down, across), strict=True)
    )
    views = [
        codes[
            :, :, i : i + down * (rows - 1) + 1 : down, j : j + across * (columns - 1) + 1 : across
        ]
        for i in range(high)
        for j in range(wide)
    ]
    total = views[0].clone(memory_format=torch.channels_last)
    for view in views[1:]:
        total += view
    return total
