"""Stage analyse: the report on one topology and its file, topology_report.json."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from topospike.analysis.alternatives import Alternative
from topospike.analysis.connectivity import Connectivity
from topospike.analysis.degree import DegreeStatistics
from topospike.analysis.metadepth import MetaDepth
from topospike.analysis.null import NullComparison
from topospike.analysis.paths import CreditPaths
from topospike.analysis.records import DegreeDistribution, Disk, MaskMeasures
from topospike.analysis.separability import AngularSeparation
from topospike.analysis.smallworld import SmallWorld
from topospike.contracts import to_json, write_atomically
from topospike.errors import ConfigError
from topospike.files.ranges import Amount, Count, Share
from topospike.files.reading import read_record

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
