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

from topospike.analysis.alternatives import alternatives, bootstrap_p_value
from topospike.analysis.connectivity import (
    Connectivity,
    active_share,
    communities,
    connectivity,
    credit_paths,
    modularity,
)
from topospike.analysis.degree import PowerLawFit, power_law
from topospike.analysis.embedding.hyperbolic import Embedding, coalescent_embedding
from topospike.analysis.embedding.reduction import EXACT_NODES
from topospike.analysis.graphs.chains import (
    Chain,
    is_residual,
    linear_chains,
    main_chain,
    residual_chain,
    wired_chain,
)
from topospike.analysis.graphs.graph import LayeredGraph, mask_array
from topospike.analysis.graphs.null import NullComparison, compare_with_null, random_null
from topospike.analysis.measures import compared_consistency
from topospike.analysis.metadepth import MetaDepth, meta_depth
from topospike.analysis.report import TopologyReport
from topospike.analysis.smallworld import SmallWorld, is_bipartite, small_world
from topospike.analysis.summaries import (
    block_statistics,
    component_has_hierarchy,
    degree_distribution,
    disk,
    layer_separation,
    layer_statistics,
    measure_mask,
)
from topospike.errors import ConfigError

if TYPE_CHECKING:
    from topospike.analysis.graphs.graph import MaskLike
    from topospike.topology import Topology

    TopologyLike: TypeAlias = Topology | Mapping[str, MaskLike] | Sequence[MaskLike] | str | Path

LARGE_LINKS = 200_000
LARGE_NULLS = 3


def analyse(
    topology: TopologyLike,
    *,
    chain: Sequence[str] | None = None,
    wiring: Mapping[str, tuple[str, str]] | None = None,
    nulls: int = 20,
    seed: int = 0,
    weighting: str = "RA2",
    reduction: str = "ISO",
    angles: str = "equidistant",
    embedding: bool = True,
    bootstrap: int = 0,
    consistency: int = 0,
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
        linear layers; where there is none, the channel graph of a residual network (known by its
        layer names) or of the longest run of conv layers.
    wiring
        Instead of ``chain``: layer name -> (node set read, node set written), for branches.
    nulls
        Random graphs per null model. Above 200 000 links the small-world null takes at most 3.
    seed
        Seed of the nulls, the communities and the sample of drawn links.
    weighting, reduction, angles
        Options of `coalescent_embedding`.
    embedding
        False leaves out the disk and the angular separation, the costly part of large graphs.
    bootstrap
        Synthetic samples for the p-value of the power law; 0 leaves it out.
    consistency
        Draws of removed links for the structural consistency, and as many degree-preserving nulls;
        0 leaves it out. Each is an eigendecomposition of N x N: for up to 4000 active neurons.
    progress
        Called with the name of each measure before it starts.

    Returns
    -------
    TopologyReport
        Degenerate graphs give a report in which what is undefined is None and ``notes`` says why.

    Raises
    ------
    ConfigError
        If there is no mask, an option or layer name is unknown, or a number of draws is negative.
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
    for option, value in (("nulls", nulls), ("bootstrap", bootstrap), ("consistency", consistency)):
        if value < 0:
            raise ConfigError(f"{option}={value} was given; 0 or more draws are required.")
    masks, digest = read_masks(topology)
    listed = isinstance(topology, Sequence) and not isinstance(topology, str)
    if listed and masks and chain is None and wiring is None:
        chain = list(masks)
    chosen = choose_layers(masks, chain, wiring)
    graph = chosen.graph()
    size = connectivity(graph)
    say(f"degrees of {size.active_nodes} neurons, {size.links} links")
    fit = power_law(graph.degrees) if len(np.unique(graph.degrees[graph.active])) > 1 else None
    rivals = alternatives(graph.degrees, fit) if fit else ()
    p_value = None
    if fit and bootstrap:
        say("bootstrap of the power law")
        p_value = bootstrap_p_value(graph.degrees, fit, samples=bootstrap, seed=seed)
    anp, anp_hidden = active_share(chosen.sizes, chosen.blocks)
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
    predictable: NullComparison | None = None
    if consistency and size.links > 0 and size.active_nodes <= EXACT_NODES:
        say("structural consistency")
        predictable = compared_consistency(graph, draws=consistency, seed=seed)
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
        notes=(
            *notes(chosen, size, fit, placed, asked=embedding),
            *consistency_notes(size, asked=consistency > 0),
        ),
        seconds=time.perf_counter() - started,
        alternatives=rivals,
        p_value=p_value,
        consistency=predictable,
        paths=credit_paths(graph, nulls=nulls, seed=seed),
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


def choose_layers(
    masks: Mapping[str, np.ndarray],
    chain: Sequence[str] | None,
    wiring: Mapping[str, tuple[str, str]] | None,
) -> Chain:
    """Choose the layers that form the graph: as asked, or the longest run there is."""
    if wiring is not None:
        if chain is not None:
            raise ConfigError("both chain and wiring were given; give one of them.")
        return wired_chain(masks, wiring)
    if chain is None and masks and not linear_chains(masks) and is_residual(masks):
        return residual_chain(masks)
    return main_chain(masks, chain)


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
    runs = 5 if graph.n_links <= LARGE_LINKS else 1
    return modularity(active, communities(active, seed=seed, runs=runs))


def layered_small_world(graph: LayeredGraph, *, nulls: int, seed: int) -> SmallWorld | None:
    """Small-worldness, with fewer nulls where each is costly; None where it is undefined."""
    if graph.n_links == 0 or not is_bipartite(graph):
        return None
    drawn = nulls if graph.n_links <= LARGE_LINKS else min(nulls, LARGE_NULLS)
    return small_world(graph, nulls=drawn, seed=seed)


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
    if chain.kind != "linear":
        said.append(
            f"Channel graph: two channels are linked by any of their taps; density "
            f"{size.density:.3f} says little about the density of the weights."
        )
    if size.components > 1:
        said.append(
            f"{size.components} components: path length and disk cover the largest, "
            f"{size.largest_share:.1%} of the active neurons."
        )
    if chain.kind == "wired":
        said.append(
            "Small-worldness is given for bipartite graphs only; branches close odd cycles."
        )
    if fit and asked and placed is None:
        said.append("All degrees of the largest component are equal: the disk is undefined.")
    if placed and placed.landmarks:
        said.append(f"The angles are approximate, from {placed.landmarks} landmark nodes.")
    if size.links > LARGE_LINKS:
        said.append(f"Above {LARGE_LINKS} links the small-world null takes {LARGE_NULLS} draws.")
    return said


def consistency_notes(size: Connectivity, *, asked: bool) -> tuple[str, ...]:
    """Say why the structural consistency is missing where it was asked for."""
    if not asked or 0 < size.active_nodes <= EXACT_NODES:
        return ()
    return (
        f"Structural consistency is left out: {size.active_nodes} active neurons, where 1 to "
        f"{EXACT_NODES} are possible.",
    )
