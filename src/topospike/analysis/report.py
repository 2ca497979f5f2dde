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
from topospike.analysis.records import DegreeDistribution, Disk, MaskMeasures, from_json
from topospike.analysis.separability import AngularSeparation
from topospike.analysis.smallworld import SmallWorld
from topospike.contracts import to_json, write_atomically
from topospike.errors import CheckpointError, MissingDataError

FORMAT = 1


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
    n_tail: int | None
    ks: float | None
    sigma: float | None
    at_bound: bool | None
    gamma_null: NullComparison | None
    layers: tuple[DegreeStatistics, ...]
    blocks: tuple[DegreeStatistics, ...]
    masks: tuple[MaskMeasures, ...]
    degrees: DegreeDistribution
    anp: float
    anp_hidden: float | None
    meta_depth: MetaDepth | None
    small_world: SmallWorld | None
    separation: AngularSeparation | None
    modularity: float | None
    disk: Disk | None
    nulls: int
    seed: int
    digest: str | None
    notes: tuple[str, ...]
    seconds: float
    format: int = FORMAT
    alternatives: tuple[Alternative, ...] = ()
    p_value: float | None = None
    consistency: NullComparison | None = None
    paths: CreditPaths | None = None

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
        path = Path(path)
        if not path.is_file():
            raise MissingDataError(f"{path} does not exist; make it with analyse(...).save(path).")
        try:
            raw = json.loads(path.read_text())
            if raw["format"] != FORMAT:
                raise CheckpointError(
                    f"{path} has format {raw['format']}; this version reads {FORMAT}. Analyse the "
                    "topology again."
                )
            return from_json(cls, raw)
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is not a topology report or is damaged ({error!r}); analyse the topology "
                "again."
            ) from error
