"""Stage analyse: the report on one topology, its parts and its file, topology_report.json.

Plain numbers that know how to become JSON. A value that is undefined (no fit, no null, no
embedding) is None, never NaN.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from topospike.analysis.alternatives import Alternative
from topospike.analysis.connectivity import Connectivity, CreditPaths
from topospike.analysis.degree import DegreeStatistics
from topospike.analysis.embedding.geometry import AngularSeparation
from topospike.analysis.graphs.null import NullComparison
from topospike.analysis.metadepth import MetaDepth
from topospike.analysis.smallworld import SmallWorld
from topospike.contracts import to_json, write_atomically
from topospike.errors import ConfigError, ShapeError
from topospike.files.ranges import Amount, Count, Share
from topospike.files.reading import read_record


@dataclass(frozen=True, slots=True)
class MaskMeasures:
    """One masked layer on its own, as a bipartite graph; a conv layer unfolded.

    ``inputs`` counts the columns, which for a conv layer are (input channel, tap) pairs. ``gamma``
    pools the non-zero degrees of both sides; None where fewer than two distinct ones are.
    """

    name: str
    kind: str
    shape: tuple[Count, ...]
    links: Count
    density: Share
    outputs: Count
    inputs: Count
    active_outputs: Count
    active_inputs: Count
    gini_outputs: float
    gini_inputs: float
    gamma: float | None
    xmin: int | None
    n_tail: int | None
    at_bound: bool | None


@dataclass(frozen=True, slots=True)
class DegreeDistribution:
    """Share of the active nodes with degree >= k at every distinct degree, and the fitted line.

    ``fit_degree`` runs from xmin to the largest degree; both fit tuples are empty without a fit.
    """

    degree: tuple[Count, ...]
    share: tuple[Amount, ...]
    fit_degree: tuple[Count, ...]
    fit_share: tuple[Amount, ...]

    def __post_init__(self) -> None:
        if len(self.degree) != len(self.share) or len(self.fit_degree) != len(self.fit_share):
            raise ShapeError("degrees and shares differ in number")


@dataclass(frozen=True, slots=True)
class Disk:
    """The largest component in the native hyperbolic disk, ready to draw.

    Attributes
    ----------
    node
        Index of each embedded node in the whole graph (layer after layer).
    theta, r, layer, degree
        Angle in radians, radius (rim at 2 ln N), layer and degree of each embedded node.
    edges
        Links to draw, as pairs of positions in these columns; a random sample above a limit.
    links
        All links of the component.
    gamma
        Exponent of the component, which the radii use.
    landmarks
        Nodes the angles were computed from; None when it was all of them.
    """

    node: tuple[Count, ...]
    theta: tuple[float, ...]
    r: tuple[float, ...]
    layer: tuple[Count, ...]
    degree: tuple[Count, ...]
    edges: tuple[tuple[Count, Count], ...]
    links: Count
    gamma: float
    weighting: str
    reduction: str
    angles: str
    landmarks: Count | None = None

    def __post_init__(self) -> None:
        nodes = len(self.node)
        if any(len(c) != nodes for c in (self.theta, self.r, self.layer, self.degree)):
            raise ShapeError("the columns of the disk differ in length")
        if any(end >= nodes for edge in self.edges for end in edge):
            raise ShapeError(f"an edge of the disk ends at a node beyond its {nodes}")


FORMAT = 1
AGAIN = "Analyse the topology again: analyse(...).save(path), or `topospike analyse`."


@dataclass(frozen=True, slots=True)
class TopologyReport:
    """Everything measured on one topology (``topology_report.json``).

    The graph of the report is the chain of layers named in ``chain``; neuron layers count from 0,
    the inputs of the first mask. Measures that are undefined for it are None and ``notes`` says
    why.

    Attributes
    ----------
    chain, chain_kind
        Masks joined into the graph, input side first; ``linear`` or ``channel``.
    graph
        Sizes, active nodes, links, components.
    gamma, xmin, n_tail, ks, sigma, at_bound
        The power-law fit of the degrees of all active nodes (see `PowerLawFit`).
    gamma_null
        gamma beside random graphs of the same layers and links per block.
    layers
        Degree statistics of each neuron layer of the chain.
    blocks
        The same for each mask of the chain on its own, both sides pooled.
    masks
        Every masked layer of the topology on its own, conv layers unfolded.
    degrees
        The degree distribution to draw.
    anp, anp_hidden
        Share of active neurons, as the reference counts and in the strict form.
    separation
        Angular separation of the layers in the disk (permutation form).
    modularity
        Largest modularity found (Leiden), on the active nodes.
    disk
        The hyperbolic disk to draw.
    alternatives
        Rivals of the power law on the same tail, with likelihood ratios; empty without a fit.
    p_value
        Bootstrap p of the power law; None when it was not asked for.
    consistency
        Structural consistency with degree-preserving nulls; None when it was not asked for.
    notes
        What a reader must know before quoting a number.
    paths
        Paths from the first layer to the last; None in files of earlier versions.
    """

    chain: tuple[str, ...]
    chain_kind: str
    graph: Connectivity
    gamma: float | None
    xmin: int | None
    n_tail: Count | None
    ks: float | None
    sigma: float | None
    at_bound: bool | None
    gamma_null: NullComparison | None
    layers: tuple[DegreeStatistics, ...]
    blocks: tuple[DegreeStatistics, ...]
    masks: tuple[MaskMeasures, ...]
    degrees: DegreeDistribution
    anp: Share
    anp_hidden: Share | None
    meta_depth: MetaDepth | None
    small_world: SmallWorld | None
    separation: AngularSeparation | None
    modularity: float | None
    disk: Disk | None
    nulls: Count
    seed: int
    digest: str | None
    notes: tuple[str, ...]
    seconds: Amount
    format: int = FORMAT
    alternatives: tuple[Alternative, ...] = ()
    p_value: Share | None = None
    consistency: NullComparison | None = None
    paths: CreditPaths | None = None

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ConfigError(f"its format is {self.format}; this version reads {FORMAT}")

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, atomically."""
        write_atomically(path, json.dumps(to_json(self), allow_nan=False) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> TopologyReport:
        """Read what `save` wrote.

        Raises
        ------
        MissingDataError
            If the file is not there.
        CheckpointError
            If it is not a topology report, is damaged, or has another format.
        """
        return read_record(path, cls, remedy=AGAIN)
