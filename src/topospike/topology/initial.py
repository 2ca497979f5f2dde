"""Stage topology: the links a layer starts with, always in exactly the number asked for.

``er``: uniform at random, here. ``bsw`` and ``brf``: near places on a ring, in `ring`. ``csti``:
where input features correlate, in `correlation`; ``sscti``: the same for features read as spikes,
1 above 0. Rows are output nodes, columns input nodes. All
draws come from the generator given, on whose device the mask lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.topology.bipartite import (
    bipartite_graphs,
    mask_of,
    require_links,
)
from topospike.topology.correlation import csti_mask
from topospike.topology.ring import brf_mask, bsw_mask


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
