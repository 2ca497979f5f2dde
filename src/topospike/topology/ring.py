"""Stage topology: initial topologies that place both sides of a layer on a ring.

``bsw_mask``: a ring lattice with rewired links (small world). ``brf_mask``: every output node has a
receptive field, links thinning out with ring distance. Totals are exact, draws vectorised.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Generator, Tensor

from topospike.errors import ConfigError
from topospike.topology.bipartite import mask_of, require_links
from topospike.topology.degrees import node_degrees


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
        (see `topospike.topology.degrees.node_degrees`).
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
