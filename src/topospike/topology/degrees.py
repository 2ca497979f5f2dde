"""Stage topology: how many links each node gets, for initial topologies with an exact total.

Three laws with the same mean: ``fixed`` (two neighbouring integers), ``uniform`` (integers spread
evenly around the mean) and ``binomial`` (links thrown at nodes at random). The sum is always
exactly the number of links asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Generator, Tensor

from topospike.errors import ConfigError
from topospike.registry import Registry


def node_degrees(
    nodes: int, *, links: int, capacity: int, law: str = "fixed", generator: Generator
) -> Int[Tensor, " node"]:
    """Draw the degrees of ``nodes`` nodes that share ``links`` links.

    Parameters
    ----------
    nodes
        Number of nodes.
    links
        Exact sum of the degrees, in 1..nodes * capacity.
    capacity
        Largest possible degree: the number of nodes on the other side.
    law
        ``fixed``: floor or ceiling of the mean, in random order. ``uniform``: integers uniform on
        [1, 2 mean - 1]; above half density on the widest interval around the mean that ends at
        ``capacity``. ``binomial``: one link each, the others thrown at nodes independently. The
        last two are then moved by single links to reach the total.
    generator
        Source of randomness; the result lies on its device.

    Returns
    -------
    int64, shape (nodes,)
        Degrees in [1, capacity]; in [0, capacity] when there are fewer links than nodes.

    Raises
    ------
    ConfigError
        For an unknown law, or a number of links that the nodes cannot hold.

    Notes
    -----
    The public code calls "uniform" what is ``binomial`` here. The interval [1, 2 mean - 1] reaches
    beyond the capacity above half density, which the paper does not treat; hence the narrower one.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> degrees = node_degrees(4, links=10, capacity=5, generator=generator)
    >>> sorted(degrees.tolist())
    [2, 2, 3, 3]
    """
    draw = DEGREE_LAWS[law]
    if nodes < 1 or not 0 <= links <= nodes * capacity:
        raise ConfigError(
            f"{links} links cannot be shared by {nodes} nodes of at most {capacity} links each."
        )
    degrees, least, most = draw(nodes, links, capacity, generator)
    return _adjust(degrees.clamp(least, most), links, least=least, most=most, generator=generator)


Law = Callable[[int, int, int, Generator], tuple[Tensor, int, int]]


def _fixed(nodes: int, links: int, capacity: int, generator: Generator) -> tuple[Tensor, int, int]:
    base, rest = divmod(links, nodes)
    degrees = torch.full((nodes,), base, dtype=torch.int64, device=generator.device)
    order = torch.randperm(nodes, generator=generator, device=generator.device)
    degrees[order[:rest]] += 1
    return degrees, base, capacity


def _uniform(
    nodes: int, links: int, capacity: int, generator: Generator
) -> tuple[Tensor, int, int]:
    mean, least = links / nodes, _least(nodes, links)
    half_width = min(mean - least, capacity - mean)
    low, high = mean - half_width, mean + half_width
    draws = torch.rand(nodes, generator=generator, device=generator.device, dtype=torch.float64)
    # Half a unit on both sides gives the end points the same chance as the inner integers.
    degrees = (low - 0.5 + draws * (high - low + 1.0)).round().to(torch.int64)
    return degrees, max(least, math.floor(low)), min(capacity, math.ceil(high))


def _binomial(
    nodes: int, links: int, capacity: int, generator: Generator
) -> tuple[Tensor, int, int]:
    least = _least(nodes, links)
    thrown = torch.randint(
        nodes, (links - least * nodes,), generator=generator, device=generator.device
    )
    return least + torch.bincount(thrown, minlength=nodes), least, capacity


DEGREE_LAWS: Registry[Law] = Registry(
    "degree law", {"fixed": _fixed, "uniform": _uniform, "binomial": _binomial}
)


def _least(nodes: int, links: int) -> int:
    return 1 if links >= nodes else 0


def _adjust(
    degrees: Tensor, links: int, *, least: int, most: int, generator: Generator
) -> Int[Tensor, " node"]:
    """Move random nodes by one link at a time, within the law's range, until the sum is exact."""
    missing = links - int(degrees.sum())
    while missing:
        step = 1 if missing > 0 else -1
        movable = (degrees < most if step > 0 else degrees > least).nonzero().flatten()
        order = torch.randperm(movable.numel(), generator=generator, device=degrees.device)
        chosen = movable[order[: abs(missing)]]
        degrees[chosen] += step
        missing -= step * chosen.numel()
    return degrees
