"""Stage analyse: one call from a topology to its report.

Chooses the layers that form a graph, then measures: degrees and gamma, active neurons, meta-depth,
small-worldness, communities and the hyperbolic disk, each beside its null where it has one. Needs
no training code: a saved topology file is enough.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from topospike.analyse.chains import Chain, main_chain, unfold
from topospike.analyse.community import communities, modularity
from topospike.analyse.connectivity import Connectivity, active_neurons, connectivity
from topospike.analyse.degree import (
    DegreeStatistics,
    PowerLawFit,
    ccdf,
    degree_statistics,
    fitted_ccdf,
    gini,
    power_law,
)
from topospike.analyse.graph import LayeredGraph, mask_array
from topospike.analyse.hyperbolic import Embedding, coalescent_embedding
from topospike.analyse.metadepth import MetaDepth, meta_depth
from topospike.analyse.null import NullComparison, compare_with_null, random_null
from topospike.analyse.records import DegreeDistribution, Disk, MaskMeasures
from topospike.analyse.report import TopologyReport
from topospike.analyse.separability import AngularSeparation, angular_separation
from topospike.analyse.smallworld import SmallWorld, block_graph, small_world
from topospike.errors import ConfigError

if TYPE_CHECKING:
    from topospike.analyse.graph import MaskLike
    from topospike.topology import Topology

    TopologyLike: TypeAlias = Topology | Mapping[str, MaskLike] | Sequence[MaskLike] | str | Path

DRAWN_LINKS = 20_000
FIT_POINTS = 60
LARGE_LINKS = 200_000
LARGE_NULLS = 3
PERMUTATIONS = 1000


def analyse(
    topology: TopologyLike,
    *,
    chain: Sequence[str] | None = None,
    nulls: int = 20,
    seed: int = 0,
    weighting: str = "RA2",
    reduction: str = "ISO",
    angles: str = "equidistant",
    embedding: bool = True,
    progress: Callable[[str], None] | None = None,
) -> TopologyReport:
    """Measure a sparse topology as a network scientist would.

    Parameters
    ----------
    topology
        A `Topology`, the path of a saved one, a mapping of parameter names to masks, or a list of
        consecutive masks (n_out, n_in), input side first.
    chain
        Names of the layers to join into one graph; None takes the longest run of consecutive
        linear layers, or of conv layers as a channel graph where there is no linear one.
    nulls
        Random graphs per null model. Above 200 000 links the small-world null takes at most 3.
    seed
        Seed of the nulls, the communities and the sample of drawn links.
    weighting, reduction, angles
        Options of `coalescent_embedding`.
    embedding
        False leaves out the disk and the angular separation, the costly part of large graphs.
    progress
        Called with the name of each measure before it starts.

    Returns
    -------
    TopologyReport
        Degenerate graphs give a report in which what is undefined is None and ``notes`` says why.

    Raises
    ------
    ConfigError
        If there is no mask, an option or layer name is unknown, or ``nulls`` is negative.
    ShapeError
        If the masks do not fit one another.

    Notes
    -----
    The paper (section 4.2) gives gamma and a picture of "the last two fully connected layers" and
    names neither pre-weighting nor reduction; RA2, ISO and equidistant angles are our choice.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> report = analyse([rng.random((50, 60)) < 0.1, rng.random((40, 50)) < 0.1], nulls=2)
    >>> report.graph.sizes, report.meta_depth.meta_deep
    ((60, 50, 40), False)
    """
    started = time.perf_counter()
    say = progress or (lambda _: None)
    if nulls < 0:
        raise ConfigError(f"nulls={nulls} was given; 0 or more random graphs are required.")
    masks, digest = read_masks(topology)
    chosen = main_chain(masks, chain)
    graph = chosen.graph()
    size = connectivity(graph)
    say(f"degrees of {size.active_nodes} neurons, {size.links} links")
    fit = power_law(graph.degrees) if len(np.unique(graph.degrees[graph.active])) > 1 else None
    anp, anp_hidden = active_neurons(chosen.masks)
    say("meta-depth")
    depth = layered_meta_depth(graph, fit, nulls=nulls, seed=seed)
    gamma_null = random_gamma(graph, fit, nulls=nulls, seed=seed)
    say("small world")
    world = layered_small_world(graph, nulls=nulls, seed=seed)
    say("communities")
    best_q = best_modularity(graph, seed=seed)
    placed: Embedding | None = None
    if embedding and fit and component_has_hierarchy(graph):
        say("hyperbolic embedding")
        placed = coalescent_embedding(graph, weighting, reduction, angles)
    return TopologyReport(
        chain=chosen.names,
        chain_kind=chosen.kind,
        graph=size,
        gamma=fit.gamma if fit else None,
        xmin=fit.xmin if fit else None,
        n_tail=fit.n_tail if fit else None,
        ks=fit.ks if fit else None,
        sigma=fit.sigma if fit else None,
        at_bound=fit.at_bound if fit else None,
        gamma_null=gamma_null,
        layers=layer_statistics(graph),
        blocks=block_statistics(graph),
        masks=tuple(measure_mask(name, mask) for name, mask in masks.items()),
        degrees=degree_distribution(graph, fit),
        anp=anp,
        anp_hidden=anp_hidden,
        meta_depth=depth,
        small_world=world,
        separation=layer_separation(placed, seed=seed),
        modularity=best_q,
        disk=disk(placed, seed=seed) if placed else None,
        nulls=nulls,
        seed=seed,
        digest=digest,
        notes=tuple(notes(chosen, size, fit, placed, asked=embedding)),
        seconds=time.perf_counter() - started,
    )


def read_masks(topology: TopologyLike) -> tuple[dict[str, np.ndarray], str | None]:
    """Return the masks by name, in the order of the network, and the topology's digest if any."""
    if isinstance(topology, str | Path):
        from topospike.topology import Topology

        topology = Topology.load(Path(topology))
    named = getattr(topology, "masks", topology)
    if isinstance(named, Mapping):
        pairs = list(named.items())
    elif isinstance(named, Sequence):
        pairs = [(f"layer{k + 1}", mask) for k, mask in enumerate(named)]
    else:
        raise ConfigError(
            f"a {type(topology).__name__} was given; a Topology, its file, a mapping of names to "
            "masks or a list of masks is required."
        )
    masks = {str(name): mask_array(mask, name=str(name)) for name, mask in pairs}
    return masks, getattr(topology, "digest", None)


def random_gamma(
    graph: LayeredGraph, fit: PowerLawFit | None, *, nulls: int, seed: int
) -> NullComparison | None:
    """Put gamma beside that of layer-preserving random graphs (those that can be fitted)."""
    if fit is None:
        return None
    rng = np.random.default_rng(seed)
    drawn = [random_null(graph, rng).degrees for _ in range(nulls)]
    fitted = [power_law(d).gamma for d in drawn if len(np.unique(d[d > 0])) > 1]
    return compare_with_null(fit.gamma, fitted)


def layered_meta_depth(
    graph: LayeredGraph, fit: PowerLawFit | None, *, nulls: int, seed: int
) -> MetaDepth | None:
    """Meta-depth with its null; None without links."""
    if graph.n_links == 0:
        return None
    return meta_depth(graph, fit.gamma if fit else None, nulls=nulls, seed=seed)


def best_modularity(graph: LayeredGraph, *, seed: int) -> float | None:
    """Modularity of the best partition of the active nodes found; None without links."""
    if graph.n_links == 0:
        return None
    active = graph.subgraph(graph.active)
    return modularity(active, communities(active, seed=seed))


def layered_small_world(graph: LayeredGraph, *, nulls: int, seed: int) -> SmallWorld | None:
    """Small-worldness, with fewer nulls where each is costly; None without links."""
    if graph.n_links == 0:
        return None
    drawn = nulls if graph.n_links <= LARGE_LINKS else min(nulls, LARGE_NULLS)
    return small_world(graph, nulls=drawn, seed=seed)


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
    """Angular separation of the layers; None without an embedding or below four nodes."""
    if placed is None or len(placed.theta) < 4:
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
    )


def notes(
    chain: Chain,
    size: Connectivity,
    fit: PowerLawFit | None,
    placed: Embedding | None,
    *,
    asked: bool,
) -> list[str]:
    """Say what limits the numbers of this report."""
    said = []
    if size.links == 0:
        return ["The chain has no link: nothing but its sizes is defined."]
    if fit is None:
        said.append("All active neurons have the same degree: gamma and the disk are undefined.")
    elif fit.at_bound:
        said.append("gamma is at the upper end of the fit's range: read it as 10 or more.")
    elif fit.gamma > 8:
        said.append(f"gamma above 8 is soft: standard error {fit.sigma:.2f}, {fit.n_tail} degrees.")
    if chain.kind == "channel":
        said.append(
            f"Channel graph: two channels are linked by any of their taps; density "
            f"{size.density:.3f} says little about the density of the weights."
        )
    if size.components > 1:
        said.append(
            f"{size.components} components: path length and disk cover the largest, "
            f"{size.largest_share:.1%} of the active neurons."
        )
    if fit and asked and placed is None:
        said.append("All degrees of the largest component are equal: the disk is undefined.")
    if size.links > LARGE_LINKS:
        said.append(f"Above {LARGE_LINKS} links the small-world null takes {LARGE_NULLS} draws.")
    return said
