"""Pipeline: how ``analyse`` measures, one set of options for every topology it is given."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from topospike.analysis import TopologyReport, analyse
from topospike.analysis.figures import adjacency_spy, degree_ccdf, hyperbolic_disk
from topospike.analysis.history import (
    HISTORY_NULLS,
    HistoryPoint,
    evolution,
    percolation,
    read_history,
    read_updates,
    topology_history,
)
from topospike.progress import say
from topospike.topology import saved_series

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from topospike.topology import Topology


HISTORY_FILE = "topology_history.json"


@dataclass(frozen=True, slots=True)
class AnalysisSettings:
    """Options of `topospike.analysis.analyse` that the command line offers, with its defaults."""

    chain: tuple[str, ...] | None = None
    nulls: int = 20
    weighting: str = "RA2"
    reduction: str = "ISO"
    angles: str = "equidistant"
    bootstrap: int = 0
    consistency: int = 0

    @classmethod
    def from_options(cls, options: Namespace) -> AnalysisSettings:
        """Take what was typed, and the defaults for the rest."""
        typed = {f.name: options.get(f.name) for f in fields(cls)}
        given = {name: value for name, value in typed.items() if value is not None}
        if "chain" in given:
            given["chain"] = tuple(given["chain"])
        return cls(**given)

    @property
    def changed(self) -> dict[str, object]:
        """The settings that are not the default ones."""
        return {k: v for k, v in asdict(self).items() if v != asdict(AnalysisSettings())[k]}


def measured(topology: Topology, settings: AnalysisSettings, *, seed: int) -> TopologyReport:
    """Analyse one topology, with progress on a terminal."""
    return analyse(
        topology,
        chain=settings.chain,
        nulls=settings.nulls,
        seed=seed,
        weighting=settings.weighting,
        reduction=settings.reduction,
        angles=settings.angles,
        bootstrap=settings.bootstrap,
        consistency=settings.consistency,
        progress=say,
    )


def measured_series(
    folder: Path, settings: AnalysisSettings, *, seed: int
) -> tuple[HistoryPoint, ...]:
    """Measure the topologies saved over the updates, and the last; none without saved ones."""
    series = saved_series(folder)
    if not series:
        return ()
    updates = read_updates(folder / "metrics.jsonl")
    last = {updates[-1].update: folder / "topology.npz"} if updates else {}
    say(f"{len(series | last)} topologies over the updates")
    nulls = min(settings.nulls, HISTORY_NULLS)
    return topology_history(series | last, chain=settings.chain, nulls=nulls, seed=seed)


def write_figures(report: TopologyReport, folder: Path, *, run: Path | None = None) -> list[Path]:
    """Draw what the report holds into a folder, and how a ``run`` came to that topology.

    The disk in both models, with straight and with geodesic links; the degree distribution with
    its fit; the adjacency matrix ordered by angle; the neurons that percolation took; the measures
    over the updates, if topologies were saved on the way.
    """
    figures = {}
    if report.disk is not None:
        figures["disk-native"] = hyperbolic_disk(report)
        figures["disk-poincare"] = hyperbolic_disk(report, model="poincare", links="geodesic")
        figures["adjacency"] = adjacency_spy(report)
    if report.degrees.degree:
        figures["degree-distribution"] = degree_ccdf(report)
    if run is not None and (run / "metrics.jsonl").is_file():
        if updates := read_updates(run / "metrics.jsonl"):
            figures["percolation"] = percolation(updates)
        if points := read_history(run / HISTORY_FILE):
            figures["evolution"] = evolution(points)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        figure.savefig(path, dpi=200)
    return paths
