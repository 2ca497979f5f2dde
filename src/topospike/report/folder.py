"""What a run folder holds, read once: the only place of this stage that opens files.

Everything is optional; what is missing becomes an empty tuple, an empty mapping or ``None``, and
the page says so. What is there but cannot be read is an error that names the file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from topospike.analysis import HistoryPoint, read_history
from topospike.analysis.report import TopologyReport
from topospike.contracts import (
    ActivationComparison,
    ConversionReport,
    Evaluation,
    Raster,
    TopologyUpdate,
)
from topospike.errors import MissingDataError
from topospike.files.ranges import Amount, Order, Share
from topospike.files.reading import read_optional
from topospike.files.record import read_run_record, read_stages
from topospike.files.seal import FILE, RECORD, ChangedFileWarning, Stage
from topospike.metrics_log import Epoch, TrainingLog, read_log

DENSE = "dense"
BESIDE = "direct"
"""Folder of the run beside: of a network trained through time, where the others are converted."""
SHOWN = (".json", ".jsonl")
MOST_SAID = 3
"""Changed files that are named in the terminal; the page names all."""
REMEDY = (
    "A report needs the file as the run wrote it; repeat that stage of the run, or delete the file "
    "to leave its section out."
)


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One network converted by one method, as ``summary.json`` states it.

    ``ann_value`` and ``snn_value`` are those of another metric than accuracy, where one was asked
    for; of a text, accuracy is the share of next tokens that are right.
    """

    network: str
    method: str
    ann_accuracy: Share
    snn_accuracy: Share
    timesteps: Order
    energy_joule: Amount
    energy_ratio: Amount | None
    ann_energy_joule: Amount
    saturation_time: Order | None
    sparsity: Share
    metric: str = "accuracy"
    ann_value: float | None = None
    snn_value: float | None = None

    @property
    def values(self) -> tuple[float | None, float | None]:
        """What the metric says of the ANN and of the spiking network."""
        if self.metric == "accuracy":
            return self.ann_accuracy, self.snn_accuracy
        return self.ann_value, self.snn_value


@dataclass(frozen=True, slots=True)
class Network:
    """One trained network of the run; ``evaluations`` and ``conversions`` are keyed by method."""

    name: str
    epochs: tuple[Epoch, ...] = ()
    updates: tuple[TopologyUpdate, ...] = ()
    evaluations: Mapping[str, Evaluation] = field(default_factory=dict)
    conversions: Mapping[str, ConversionReport] = field(default_factory=dict)
    comparisons: Mapping[str, ActivationComparison] = field(default_factory=dict)
    rasters: Mapping[str, Raster] = field(default_factory=dict)

    @property
    def is_dense(self) -> bool:
        """Whether this is the dense twin."""
        return self.name == DENSE

    @property
    def is_empty(self) -> bool:
        """Whether the folder says nothing about it."""
        return not (self.epochs or self.updates or self.evaluations or self.conversions)


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder: the record, the summary, the networks (dense first), the topology analysis.

    The networks of a run beside come last, and the record's seconds hold its stages as well.
    ``history`` holds the measures of the topologies saved over the updates.
    ``notes`` are sentences about files that were only partly readable.
    """

    folder: Path
    record: Mapping[str, Any]
    rows: tuple[SummaryRow, ...]
    networks: tuple[Network, ...]
    topology: TopologyReport | None
    history: tuple[HistoryPoint, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def methods(self) -> tuple[str, ...]:
        """Conversion methods in the order of the recipe, then those it does not name."""
        entries = self.recipe.get("convert", [])
        asked = [entry.get("name") or entry.get("method", "") for entry in entries]
        found = {method for network in self.networks for method in network.evaluations}
        found |= {method for network in self.networks for method in network.conversions}
        found |= {row.method for row in self.rows}
        ordered = [method for method in dict.fromkeys(asked) if method in found]
        return (*ordered, *sorted(found - set(ordered)))

    @property
    def recipe(self) -> Mapping[str, Any]:
        """The resolved recipe, empty when there is no record."""
        return self.record.get("recipe", {})

    @property
    def example(self) -> str:
        """What one example of the data is called: an image, or a context of a text."""
        return "context" if (self.record.get("data") or {}).get("context") else "image"

    @property
    def sparse(self) -> Network | None:
        """The first network that is not the dense twin."""
        return next((network for network in self.networks if not network.is_dense), None)

    @property
    def sparse_first(self) -> tuple[Network, ...]:
        """The networks with the dense twin last."""
        return tuple(sorted(self.networks, key=lambda network: network.is_dense))


def read_run(folder: str | Path) -> Run:
    """Read every file of a run folder that the page shows.

    Raises
    ------
    MissingDataError
        If the folder does not exist or holds none of the files of a run.
    CheckpointError
        If a file is there and cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise MissingDataError(
            f"no run folder at {str(folder)!r}. A report needs the folder written by "
            "`topospike run`; check the path."
        )
    with noting_changes(folder) as notes:
        record, stages = read_run_record(folder) or {}, read_stages(folder)
        recipe = record.get("recipe", {})
        rule = recipe.get("sparsity", {}).get("rule", "sparse")
        name = recipe.get("prune", {}).get("method") or rule
        networks = (read_network(folder / DENSE, DENSE, notes), read_network(folder, name, notes))
        run = Run(
            folder=folder,
            record=record,
            rows=read_summary(folder / "summary.json"),
            networks=tuple(network for network in networks if not network.is_empty),
            topology=read_optional(folder / "topology_report.json", TopologyReport, remedy=REMEDY),
            history=read_history(folder / "topology_history.json"),
        )
    if not (run.record or run.rows or run.networks or run.topology):
        raise MissingDataError(
            f"{str(folder)!r} holds none of record.json, summary.json, metrics.jsonl, "
            "evaluation.json, conversion.json, topology_report.json: it is not a run folder. "
            "Give the folder written by `topospike run`."
        )
    run = replace(run, notes=(*notes, *seal_notes(folder, stages)))
    return with_beside(run) if (folder / BESIDE / RECORD).is_file() else run


def with_beside(run: Run) -> Run:
    """Return a run with the networks, the seconds and the notes of the run beside it."""
    other = read_run(run.folder / BESIDE)
    taken = [network.name for network in run.networks]
    networks = (replace(n, name=name_beside(n.name, taken)) for n in other.networks)
    stages = {f"{BESIDE}, {name}": s for name, s in other.record.get("seconds", {}).items()}
    record = {**run.record, "seconds": {**run.record.get("seconds", {}), **stages}}
    notes = (f"{BESIDE}: {note}" for note in other.notes)
    return replace(
        run, record=record, networks=(*run.networks, *networks), notes=(*run.notes, *notes)
    )


def rows_beside(folder: Path, taken: Collection[str]) -> tuple[SummaryRow, ...]:
    """Return the summary of the run beside, its networks named as `read_run` names them."""
    rows = read_summary(folder / BESIDE / "summary.json")
    return tuple(replace(row, network=name_beside(row.network, taken)) for row in rows)


def name_beside(name: str, taken: Collection[str]) -> str:
    """Return the name of a network of a run beside, where the other networks have names too.

    Examples
    --------
    >>> name_beside("ch-snn", ["dense", "chts"]), name_beside("chts", ["dense", "chts"])
    ('ch-snn', 'chts-direct')
    """
    return f"{name}-{BESIDE}" if name in taken else name


@contextmanager
def noting_changes(folder: Path) -> Iterator[list[str]]:
    """Collect what is said about changed files, to be put on the page; say the first of it."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ChangedFileWarning)
        yield notes
    for warning in caught:
        if issubclass(warning.category, ChangedFileWarning):
            notes.append(f"Changed file: {warning.message}")
            if len(notes) > MOST_SAID:
                continue
        warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if len(notes) > MOST_SAID:
        more = f"{len(notes) - MOST_SAID} more files of {folder} are not as the run wrote them"
        message = f"{more}; topospike verify {folder} lists them."
        warnings.warn(message, ChangedFileWarning, stacklevel=4)


def seal_notes(folder: Path, stages: Mapping[str, Stage]) -> Iterator[str]:
    """Say what is missing, which edits were accepted, and whether changes can be noticed."""
    accepted = [name for stage in stages.values() for name in stage.accepted]
    missing = [
        name
        for stage in stages.values()
        for name in stage.outputs
        if Path(name).suffix in SHOWN and not os.path.lexists(folder / name)
    ]
    begun = [name for name, stage in stages.items() if stage.seconds is None]
    if missing:
        yield f"Missing, though a stage of the run wrote it: {', '.join(sorted(missing))}."
    if accepted:
        names = ", ".join(sorted(accepted))
        yield f"Edited after the run or of no stage of it, and accepted: {names}."
    if begun:
        yield f"Begun and not ended: {', '.join(begun)}. Repeat the command that made the run."
    if not stages:
        yield (
            f"There is no {FILE} that names a stage: whether these files are of one run, and as it "
            "wrote them, cannot be told. To make and seal them anew, repeat the command that "
            "made the run."
        )
    elif RECORD not in stages or any(s.outputs and not s.sha256 for s in stages.values()):
        yield (
            "Files of this folder are not sealed: a later change of them cannot be noticed. To "
            f"seal them as they are: topospike verify {folder} --accept."
        )


def read_network(folder: Path, name: str, notes: list[str]) -> Network:
    """Read one network's part of the run; remarks on damaged lines are added to ``notes``."""
    log = TrainingLog()
    if os.path.lexists(folder / "metrics.jsonl"):
        log = read_log(folder / "metrics.jsonl")
    notes += log.notes
    evaluations: dict[str, Evaluation] = {}
    conversions: dict[str, ConversionReport] = {}
    comparisons: dict[str, ActivationComparison] = {}
    rasters: dict[str, Raster] = {}
    places = sorted((folder / "conversions").glob("*/")) or [folder]
    for place in places:
        conversion = read_conversion(place / "conversion.json")
        method = place.name if place != folder else conversion.method if conversion else "snn"
        if conversion is not None:
            conversions[method] = conversion
        if os.path.lexists(place / "evaluation.json"):
            evaluations[method] = Evaluation.load(place / "evaluation.json")
        if os.path.lexists(place / "activations.json"):
            comparisons[method] = ActivationComparison.load(place / "activations.json")
        if os.path.lexists(place / "raster.json"):
            rasters[method] = Raster.load(place / "raster.json")
    return Network(name, log.epochs, log.updates, evaluations, conversions, comparisons, rasters)


def read_conversion(path: Path) -> ConversionReport | None:
    """Read ``conversion.json``, or return ``None`` when there is none."""
    return read_optional(path, ConversionReport, remedy=REMEDY)


def read_summary(path: Path) -> tuple[SummaryRow, ...]:
    """Read the rows of ``summary.json``; none when there is no such file."""
    found = read_optional(path, dict[str, tuple[SummaryRow, ...]], remedy=REMEDY)
    return (found or {}).get("rows", ())
