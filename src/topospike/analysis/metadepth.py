"""Stage analyse: meta-depth, the hub-centred hierarchy INSIDE layers, made computable.

The paper shows a picture. Here: how unequal are the degrees within each layer (Gini), by how much
more than in random graphs with the same layers and link counts, and in which layer the hubs sit.
Differences BETWEEN layers are reported but not counted, because a purely random three-layer chain
has them too (its middle layer has links on two sides).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from topospike.analysis.degree import gini, heterogeneity, hub_share
from topospike.analysis.embedding.hyperbolic import radial_positions
from topospike.analysis.graphs.graph import LayeredGraph
from topospike.analysis.graphs.null import NullComparison, compare_with_null, random_null
from topospike.errors import ConfigError

HUB_FRACTION = 0.05


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The hierarchy measures of one graph, over its non-isolated nodes; tuples are per layer.

    ``enrichment`` is the share of the graph's hubs (largest 5 % of degrees) that sit in a layer,
    divided by the layer's share of nodes. ``stratification`` is eta^2 of the degree ranks on the
    layers.
    """

    active: tuple[int, ...]
    gini: tuple[float, ...]
    hub_share: tuple[float, ...]
    enrichment: tuple[float, ...]
    stratification: float
    kappa: float

    @property
    def pooled_gini(self) -> float:
        """Mean of the layers' Gini coefficients weighted by their active nodes."""
        return weighted_mean(self.gini, self.active)


@dataclass(frozen=True, slots=True)
class MetaDepth:
    """Meta-depth of one graph beside its random null.

    Attributes
    ----------
    index
        Mean over nodes of Gini minus null Gini of their layer; None without nulls.
    pooled_gini
        The node-weighted Gini with null mean, standard deviation and z.
    layers
        Gini per layer with its null.
    mean_depth
        Mean over each layer's active nodes of 1 - r / (2 ln N), r from the mid-rank of degree;
        None without a gamma.
    deepest_layer
        Layer whose hub enrichment exceeds the null's the most; None without nulls.
    excess_condition, significance_condition, gamma_condition
        index > its threshold; z > its threshold; gamma <= its threshold. None: undecidable.
    meta_deep
        All three conditions; None when one is undecidable and none fails.
    """

    index: float | None
    pooled_gini: NullComparison
    layers: tuple[NullComparison, ...]
    hub_share: tuple[float, ...]
    enrichment: tuple[NullComparison, ...]
    stratification: NullComparison
    kappa: NullComparison
    mean_depth: tuple[float | None, ...]
    deepest_layer: int | None
    excess_condition: bool | None
    significance_condition: bool | None
    gamma_condition: bool | None
    meta_deep: bool | None


def weighted_mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """Weighted mean; 0 when all weights are 0."""
    total = sum(weights)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total if total else 0.0


def mid_ranks(degrees: Int[np.ndarray, " node"]) -> Float[np.ndarray, " node"]:
    """Rank 1..N of falling degree, equal degrees sharing the mean of their ranks.

    Examples
    --------
    >>> import numpy as np
    >>> mid_ranks(np.array([5, 1, 5])).tolist()
    [1.5, 3.0, 1.5]
    """
    _, inverse, counts = np.unique(-degrees, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse.ravel()]


def depths(degrees: Int[np.ndarray, " node"], gamma: float) -> Float[np.ndarray, " node"]:
    """Depth 1 - r / (2 ln N) in [0, 1], 1 at the centre of the disk; ties share one depth."""
    n = len(degrees)
    if n < 2:
        return np.zeros(n)
    return 1 - radial_positions(mid_ranks(degrees), gamma) / (2 * math.log(n))


def stratification(degrees: Int[np.ndarray, " node"], layers: Int[np.ndarray, " node"]) -> float:
    """Eta^2: share of the variance of degree mid-ranks that lies between layers; 0 if none."""
    ranks = mid_ranks(degrees) if len(degrees) else np.zeros(0)
    total = ((ranks - ranks.mean()) ** 2).sum() if len(ranks) else 0.0
    if total == 0:
        return 0.0
    between = sum(
        (layers == layer).sum() * (ranks[layers == layer].mean() - ranks.mean()) ** 2
        for layer in np.unique(layers)
    )
    return float(between / total)


def hierarchy(graph: LayeredGraph) -> Hierarchy:
    """Measure the degree hierarchy of a graph; isolated nodes are left out.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> hierarchy(layered_graph([np.ones((3, 3), dtype=bool)])).pooled_gini
    0.0
    """
    degrees, layers = graph.degrees[graph.active], graph.layers[graph.active]
    n = len(degrees)
    members = [layers == layer for layer in range(len(graph.sizes))]
    active = tuple(int(m.sum()) for m in members)
    hubs = np.argsort(-degrees, kind="stable")[: math.ceil(round(HUB_FRACTION * n, 9))]
    enrichment = tuple(
        float(m[hubs].mean() / (count / n)) if count else 0.0
        for m, count in zip(members, active, strict=True)
    )
    return Hierarchy(
        active=active,
        gini=tuple(gini(degrees[m]) for m in members),
        hub_share=tuple(hub_share(degrees[m]) for m in members),
        enrichment=enrichment,
        stratification=stratification(degrees, layers),
        kappa=heterogeneity(degrees),
    )


def meta_depth(
    graph: LayeredGraph,
    gamma: float | None,
    *,
    nulls: int = 20,
    seed: int = 0,
    min_index: float = 0.05,
    min_z: float = 3.0,
    max_gamma: float = 3.0,
) -> MetaDepth:
    """Decide whether a layered graph is meta-deep, and where.

    Parameters
    ----------
    graph
        A layered graph, isolated nodes included (the null may link them).
    gamma
        Exponent of its degree distribution, None where there is no fit.
    nulls
        Random graphs with the same layer sizes and links per block.
    seed
        Seed of the nulls.
    min_index, min_z, max_gamma
        Thresholds of the three conditions. They were calibrated on generated graphs, not on
        trained ones: read the three conditions, not only their conjunction.

    Raises
    ------
    ConfigError
        If ``nulls`` is negative or the graph has no link.

    Notes
    -----
    index = sum_l n_l (Gini_l - mean null Gini_l) / sum_l n_l, with n_l the active nodes of layer l.
    The definition is ours; the paper (section 4.2) describes meta-depth in words and in figure 3.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import layered_graph
    >>> rng = np.random.default_rng(0)
    >>> graph = layered_graph([rng.random((60, 60)) < 0.1, rng.random((60, 60)) < 0.1])
    >>> meta_depth(graph, 8.0, seed=1).meta_deep
    False
    """
    if nulls < 0:
        raise ConfigError(f"nulls={nulls} was given; 0 or more random graphs are required.")
    if graph.n_links == 0:
        raise ConfigError("meta-depth is undefined for a graph without links.")
    own = hierarchy(graph)
    rng = np.random.default_rng(seed)
    drawn = [hierarchy(random_null(graph, rng)) for _ in range(nulls)]
    pooled = compare_with_null(own.pooled_gini, [h.pooled_gini for h in drawn])
    layers = per_layer(own.gini, [h.gini for h in drawn])
    enrichment = per_layer(own.enrichment, [h.enrichment for h in drawn])
    index: float | None = None
    deepest: int | None = None
    if drawn:
        excess = [row.value - (row.mean or 0.0) for row in layers]
        index = weighted_mean(excess, own.active)
        deepest = int(np.argmax([row.value - (row.mean or 0.0) for row in enrichment]))
    conditions = (
        None if index is None else index > min_index,
        None if pooled.z is None else pooled.z > min_z,
        None if gamma is None else gamma <= max_gamma,
    )
    return MetaDepth(
        index=index,
        pooled_gini=pooled,
        layers=layers,
        hub_share=own.hub_share,
        enrichment=enrichment,
        stratification=compare_with_null(own.stratification, [h.stratification for h in drawn]),
        kappa=compare_with_null(own.kappa, [h.kappa for h in drawn]),
        mean_depth=mean_depths(graph, gamma),
        deepest_layer=deepest,
        excess_condition=conditions[0],
        significance_condition=conditions[1],
        gamma_condition=conditions[2],
        meta_deep=False if False in conditions else None if None in conditions else True,
    )


def per_layer(own: tuple[float, ...], drawn: list[tuple[float, ...]]) -> tuple[NullComparison, ...]:
    """Compare each layer's value with the same layer of the nulls."""
    return tuple(
        compare_with_null(value, [row[layer] for row in drawn]) for layer, value in enumerate(own)
    )


def mean_depths(graph: LayeredGraph, gamma: float | None) -> tuple[float | None, ...]:
    """Mean depth of each layer's active nodes; None for a layer without any, or without gamma."""
    if gamma is None:
        return tuple(None for _ in graph.sizes)
    depth = depths(graph.degrees[graph.active], gamma)
    layers = graph.layers[graph.active]
    return tuple(
        float(depth[layers == layer].mean()) if (layers == layer).any() else None
        for layer in range(len(graph.sizes))
    )
