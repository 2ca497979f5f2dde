"""Stage topology: the links a layer starts with, always in exactly the number asked for.

``er``: uniform at random. ``bsw``: both sides of the layer on a ring, a lattice with rewired links
(small world). ``brf``: every output node has a receptive field on the ring, links thinning out with
distance. ``csti``: where input features correlate, in `topospike.topology.correlation`; ``sscti``:
the same for features read as spikes, 1 above 0. Rows are output nodes, columns input nodes. All
draws are vectorised and come from the generator given, on whose device the mask lies.

How many links each node gets follows one of three laws with the same mean: ``fixed`` (two
neighbouring integers), ``uniform`` (integers spread evenly around the mean) and ``binomial`` (links
thrown at nodes at random).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.topology.bipartite import (
    bipartite_graphs,
    mask_of,
    require_links,
)
from topospike.topology.correlation import csti_mask


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


def bsw_mask(
    shape: tuple[int, int], *, links: int, beta: float = 0.25, generator: Generator
) -> Bool[Tensor, "n_out n_in"]:
    """Draw a bipartite small-world layer: a ring lattice with a share ``beta`` of links rewired.

    Parameters
    ----------
    shape
        (n_out, n_in).
    links
        Exact number of links.
    beta
        Probability that a link is moved, in [0, 1]: 0 gives the lattice, 1 nearly `er_mask`.
    generator
        Source of randomness.

    Raises
    ------
    ConfigError
        If ``links`` is outside 1..n_out * n_in or ``beta`` outside [0, 1].

    Notes
    -----
    With n and m nodes on the smaller and larger side, node j of the larger side has k_j links
    (floor or ceiling of links / m, in random order) to the consecutive nodes of the smaller side
    from ``floor(j n / m - k_j / 2)`` on, modulo n. Then links are deleted with probability beta and
    as many set uniformly at random in the cells that are empty after the deletion. Zhang et al.
    (2025), appendix; the public code truncates the start towards zero instead of down, which moves
    the windows of the first few nodes by one.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> bsw_mask((4, 4), links=8, beta=0.0, generator=generator).int().tolist()
    [[1, 0, 0, 1], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    require_links(shape, links)
    if not 0.0 <= beta <= 1.0:
        raise ConfigError(f"beta is {beta!r}; the share of rewired links must lie in [0, 1].")
    small, large = min(shape), max(shape)
    degrees = node_degrees(large, links=links, capacity=small, generator=generator)
    node = torch.arange(large, device=generator.device)
    start = (2 * node * small - degrees * large).div(2 * large, rounding_mode="floor")
    lattice = mask_of(_ring_windows(start, degrees, small), (large, small))
    mask = lattice if shape == (large, small) else lattice.T.contiguous()
    return _rewire(mask, beta=beta, generator=generator)


def brf_mask(
    shape: tuple[int, int],
    *,
    links: int,
    r: float = 0.25,
    degree: str = "fixed",
    generator: Generator,
) -> Bool[Tensor, "n_out n_in"]:
    """Draw a bipartite receptive field: output nodes link to inputs near their place on the ring.

    Parameters
    ----------
    shape
        (n_out, n_in).
    links
        Exact number of links.
    r
        Randomness in [0, 1]: 0 takes the nearest inputs, 1 any inputs.
    degree
        Law of the output nodes' degrees: ``fixed``, ``uniform`` or ``binomial``
        (see `topospike.topology.initial.node_degrees`).
    generator
        Source of randomness.

    Raises
    ------
    ConfigError
        If ``links`` is outside 1..n_out * n_in, ``r`` outside [0, 1], or the law is unknown.

    Notes
    -----
    Output node i is centred at ``c_i = (i + 1/2) n_in / n_out - 1/2``. Its k_i inputs are drawn
    without replacement with probability ``(1 + d)^(-(1 - r) / r)``, d the ring distance to c_i
    (Zhang et al., 2025). Of two inputs equally near, r = 0 takes the one with the lower index.
    Differs from the public code, which controls the degrees of the smaller side and places centres
    at integer strides, so that with 512 x 1376 nodes a quarter of the inputs is left without a
    centre.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> brf_mask((2, 6), links=6, r=0.0, generator=generator).int().tolist()
    [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1]]
    """
    require_links(shape, links)
    if not 0.0 <= r <= 1.0:
        raise ConfigError(f"r is {r!r}; the randomness of a receptive field must lie in [0, 1].")
    rows, columns = shape
    degrees = node_degrees(rows, links=links, capacity=columns, law=degree, generator=generator)
    if r == 0.0:
        return mask_of(_ring_windows(_nearest_start(degrees, shape), degrees, columns), shape)
    exponent = (1.0 - r) / r
    noise = torch.empty(shape, device=generator.device).exponential_(generator=generator)
    # Gumbel keys: the k largest are a draw of k without replacement with these probabilities.
    keys = -exponent * torch.log1p(_ring_distance(shape, device=generator.device)) - noise.log()
    return _top_of_each_row(keys, degrees)


def _ring_windows(start: Tensor, degrees: Tensor, columns: int) -> Int[Tensor, " link"]:
    """Return the flat indices of degrees[i] consecutive columns of row i from start[i] on."""
    row = torch.repeat_interleave(torch.arange(len(degrees), device=degrees.device), degrees)
    first_of_row = degrees.cumsum(0) - degrees
    step = torch.arange(len(row), device=row.device) - first_of_row[row]
    return row * columns + (start[row] + step) % columns


def _nearest_start(degrees: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the first of the k_i columns nearest to c_i: ``ceil(c_i - k_i / 2)``, in integers."""
    rows, columns = shape
    node = torch.arange(rows, device=degrees.device)
    numerator = (2 * node + 1) * columns - (1 + degrees) * rows
    return -((-numerator).div(2 * rows, rounding_mode="floor"))


def _ring_distance(shape: tuple[int, int], *, device: torch.device) -> Float[Tensor, "n_out n_in"]:
    rows, columns = shape
    centre = (torch.arange(rows, device=device) + 0.5) * (columns / rows) - 0.5
    distance = (torch.arange(columns, device=device) - centre[:, None]).abs_()
    return torch.minimum(distance, columns - distance)


def _top_of_each_row(keys: Tensor, degrees: Tensor) -> Bool[Tensor, "n_out n_in"]:
    largest = int(degrees.max())
    columns = keys.topk(largest, dim=1).indices
    wanted = torch.arange(largest, device=keys.device) < degrees[:, None]
    return torch.zeros_like(keys, dtype=torch.bool).scatter_(1, columns, wanted)


def _rewire(mask: Tensor, *, beta: float, generator: Generator) -> Tensor:
    link = mask.flatten().nonzero().flatten()
    moved = torch.rand(len(link), generator=generator, device=mask.device) < beta
    kept = mask_of(link[~moved], (mask.shape[0], mask.shape[1])).flatten()
    empty = (~kept).nonzero().flatten()
    order = torch.randperm(len(empty), generator=generator, device=mask.device)
    kept[empty[order[: int(moved.sum())]]] = True
    return kept.view(mask.shape)


def er_mask(
    shape: tuple[int, int], *, links: int, generator: Generator
) -> Bool[Tensor, "n_out n_in"]:
    """Draw ``links`` positions uniformly at random (Erdős-Rényi, fixed number of links).

    Raises
    ------
    ConfigError
        If ``links`` is outside 1..n_out * n_in.

    Examples
    --------
    >>> int(er_mask((3, 5), links=7, generator=torch.Generator().manual_seed(0)).sum())
    7
    """
    require_links(shape, links)
    size = shape[0] * shape[1]
    order = torch.randperm(size, generator=generator, device=generator.device)
    return mask_of(order[:links], shape)


INITIAL_TOPOLOGIES: Registry[Callable[..., Tensor]] = Registry(
    "initial topology",
    {"er": er_mask, "bsw": bsw_mask, "brf": brf_mask, "csti": csti_mask, "sscti": csti_mask},
)


def initial_mask(
    weight_shape: Sequence[int],
    kind: str = "er",
    *,
    links: int,
    generator: Generator,
    groups: int = 1,
    beta: float = 0.25,
    r: float = 0.25,
    degree: str = "fixed",
    correlation: Float[Tensor, "feature feature"] | None = None,
) -> Bool[Tensor, " n_out *rest"]:
    """Draw the initial mask of a weight of any shape, convolutions included.

    Parameters
    ----------
    weight_shape
        Shape of the parameter, (n_out, n_in) or (c_out, c_in / groups, kh, kw).
    kind
        ``er``, ``bsw``, ``brf``, ``csti`` or ``sscti``; see the functions of those names.
    links
        Exact number of links of the whole weight; groups share it as evenly as integers allow.
    generator
        Source of randomness.
    groups
        Groups of the convolution, each an independent graph.
    beta, r, degree, correlation
        Options of ``bsw``, ``brf``, ``csti`` and ``sscti``; ignored by the other kinds.

    Returns
    -------
    bool, shape ``weight_shape``

    Raises
    ------
    ConfigError
        For an unknown kind, an impossible number of links, or ``csti`` without a correlation.
    ShapeError
        If the shape is no weight's or the groups do not divide it.

    Examples
    --------
    >>> generator = torch.Generator().manual_seed(0)
    >>> mask = initial_mask((4, 2, 3, 3), links=20, groups=2, generator=generator)
    >>> tuple(mask.shape), mask.flatten(1).sum(1).reshape(2, 2).sum(1).tolist()
    ((4, 2, 3, 3), [10, 10])
    """
    draw = INITIAL_TOPOLOGIES[kind]
    if draw is csti_mask and correlation is None:
        raise ConfigError(
            f"{kind} needs the correlation of the input features; pass "
            "correlation=feature_correlation(features), or choose er, bsw or brf."
        )
    options = {
        "er": {},
        "bsw": {"beta": beta},
        "brf": {"r": r, "degree": degree},
        "csti": {"correlation": correlation},
        "sscti": {"correlation": correlation},
    }[kind]
    empty = torch.zeros(tuple(weight_shape), dtype=torch.bool, device=generator.device)
    graphs = bipartite_graphs(empty, groups=groups)
    require_links((len(graphs), graphs[0].numel()), links)
    for group, graph in enumerate(graphs):
        share = links // groups + (group < links % groups)
        if share:
            shape = (graph.shape[0], graph.shape[1])
            graphs[group] = draw(shape, links=share, generator=generator, **options)
    return graphs.view(empty.shape)
