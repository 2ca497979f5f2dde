"""Stage analyse: the descriptive parts of a topology report, computed from a graph or a mask."""

from __future__ import annotations

import numpy as np

from topospike.analysis.degree import (
    DegreeStatistics,
    PowerLawFit,
    ccdf,
    degree_statistics,
    fitted_ccdf,
    gini,
)
from topospike.analysis.embedding.geometry import AngularSeparation, angular_separation
from topospike.analysis.embedding.hyperbolic import Embedding
from topospike.analysis.graphs.channels import unfold
from topospike.analysis.graphs.graph import LayeredGraph
from topospike.analysis.report import DegreeDistribution, Disk, MaskMeasures
from topospike.analysis.smallworld import block_graph

DRAWN_LINKS = 20_000
FIT_POINTS = 60
PERMUTATIONS = 1000


def component_has_hierarchy(graph: LayeredGraph) -> bool:
    """Tell whether the largest component has two distinct degrees, which radii need."""
    return len(np.unique(graph.degrees[graph.largest_component()])) > 1


def layer_statistics(graph: LayeredGraph) -> tuple[DegreeStatistics, ...]:
    """Degree statistics of each neuron layer."""
    return tuple(
        degree_statistics(graph.degrees[graph.layers == layer], layer=layer)
        for layer in range(len(graph.sizes))
    )


def block_statistics(graph: LayeredGraph) -> tuple[DegreeStatistics, ...]:
    """Degree statistics of each block of consecutive layers on its own, both sides pooled."""
    rows = []
    for low, high in graph.blocks:
        inside = (graph.layers == low) | (graph.layers == high)
        degrees = block_graph(graph, (low, high)).degrees[inside]
        rows.append(degree_statistics(degrees, layer=low))
    return tuple(rows)


def measure_mask(name: str, mask: np.ndarray) -> MaskMeasures:
    """Measure one masked layer as a bipartite graph, a conv layer unfolded."""
    matrix = unfold(mask)
    outputs, inputs = matrix.sum(axis=1), matrix.sum(axis=0)
    pooled = degree_statistics(np.concatenate([outputs, inputs]))
    return MaskMeasures(
        name=name,
        kind="linear" if mask.ndim == 2 else "conv",
        shape=tuple(mask.shape),
        links=int(outputs.sum()),
        density=float(outputs.sum() / matrix.size),
        outputs=matrix.shape[0],
        inputs=matrix.shape[1],
        active_outputs=int((outputs > 0).sum()),
        active_inputs=int((inputs > 0).sum()),
        gini_outputs=gini(outputs[outputs > 0]),
        gini_inputs=gini(inputs[inputs > 0]),
        gamma=pooled.gamma,
        xmin=pooled.xmin,
        n_tail=pooled.n_tail,
        at_bound=pooled.at_bound,
    )


def degree_distribution(graph: LayeredGraph, fit: PowerLawFit | None) -> DegreeDistribution:
    """Return the points of the complementary cumulative distribution and of the fitted line."""
    values, share = ccdf(graph.degrees)
    line = np.zeros(0, dtype=np.int64)
    height = np.zeros(0)
    if fit:
        line = np.unique(np.rint(np.geomspace(fit.xmin, values[-1], FIT_POINTS)).astype(np.int64))
        height = fitted_ccdf(fit, line)
    return DegreeDistribution(
        tuple(values.tolist()), tuple(share.tolist()), tuple(line.tolist()), tuple(height.tolist())
    )


def layer_separation(placed: Embedding | None, *, seed: int) -> AngularSeparation | None:
    """Angular separation of the layers; None without an embedding or groups to separate."""
    if placed is None or len(placed.theta) < 4:
        return None
    if not 1 < len(np.unique(placed.graph.layers)) < len(placed.theta):
        return None
    return angular_separation(
        placed.theta, placed.graph.layers, permutations=PERMUTATIONS, seed=seed
    )


def disk(placed: Embedding, *, seed: int = 0, limit: int = DRAWN_LINKS) -> Disk:
    """Turn an embedding into the record a figure is drawn from, with at most ``limit`` links."""
    edges = placed.graph.edges
    if len(edges) > limit:
        rng = np.random.default_rng(seed)
        edges = edges[np.sort(rng.choice(len(edges), size=limit, replace=False))]
    return Disk(
        node=tuple(placed.nodes.tolist()),
        theta=tuple(placed.theta.tolist()),
        r=tuple(placed.r.tolist()),
        layer=tuple(placed.graph.layers.tolist()),
        degree=tuple(placed.graph.degrees.tolist()),
        edges=tuple((int(i), int(j)) for i, j in edges),
        links=placed.graph.n_links,
        gamma=placed.gamma,
        weighting=placed.weighting,
        reduction=placed.reduction,
        angles=placed.angles,
        landmarks=placed.landmarks,
    )
