"""What a run folder holds, read once: the only place of this stage that opens files.

Everything is optional; what is missing becomes an empty tuple, an empty mapping or ``None``, and
the page says so. What is there but cannot be read is an error that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from topospike.analysis import HistoryPoint, read_history
from topospike.analysis.report import TopologyReport
from topospike.contracts import (
    ActivationComparison,
    ConversionReport,
    Evaluation,
    LayerChange,
    Raster,
    TopologyUpdate,
)
from topospike.errors import CheckpointError, MissingDataError

R = TypeVar("R")
L = TypeVar("L", Evaluation, ActivationComparison, Raster)
DENSE = "dense"


@dataclass(frozen=True, slots=True)
class Epoch:
    """One line of training metrics."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One network converted by one method, as ``summary.json`` states it."""

    network: str
    method: str
    ann_accuracy: float
    snn_accuracy: float
    timesteps: int
    energy_joule: float
    energy_ratio: float | None
    ann_energy_joule: float
    saturation_time: int | None
    sparsity: float


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
    def sparse(self) -> Network | None:
        """The first network that is not the dense twin."""
        return next((network for network in self.networks if not network.is_dense), None)


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
    record = read_json(folder / "record.json") or {}
    notes: list[str] = []
    recipe = record.get("recipe", {})
    name = recipe.get("prune", {}).get("method") or recipe.get("sparsity", {}).get("rule", "sparse")
    networks = (
        read_network(folder / DENSE, DENSE, notes),
        read_network(folder, name, notes),
    )
    summary = read_json(folder / "summary.json") or {"rows": []}
    rows = tuple(build(SummaryRow, row, folder / "summary.json") for row in summary["rows"])
    run = Run(
        folder=folder,
        record=record,
        rows=rows,
        networks=tuple(network for network in networks if not network.is_empty),
        topology=read_topology(folder / "topology_report.json"),
        history=read_history(folder / "topology_history.json"),
        notes=tuple(notes),
    )
    if not (run.record or run.rows or run.networks or run.topology):
        raise MissingDataError(
            f"{str(folder)!r} holds none of record.json, summary.json, metrics.jsonl, "
            "evaluation.json, conversion.json, topology_report.json: it is not a run folder. "
            "Give the folder written by `topospike run`."
        )
    return run


def read_network(folder: Path, name: str, notes: list[str]) -> Network:
    """Read one network's part of the run; remarks on damaged lines are added to ``notes``."""
    epochs, updates = read_metrics(folder / "metrics.jsonl", notes)
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
        evaluation = read_record(Evaluation, place / "evaluation.json")
        if evaluation is not None:
            evaluations[method] = evaluation
        comparison = read_record(ActivationComparison, place / "activations.json")
        if comparison is not None:
            comparisons[method] = comparison
        drawn = read_record(Raster, place / "raster.json")
        if drawn is not None:
            rasters[method] = drawn
    return Network(name, epochs, updates, evaluations, conversions, comparisons, rasters)


def read_topology(path: Path) -> TopologyReport | None:
    """Read ``topology_report.json``, or return ``None`` when there is none."""
    return TopologyReport.load(path) if path.is_file() else None


def read_record(kind: type[L], path: Path) -> L | None:
    """Read what a record has saved, or return ``None`` when there is no such file."""
    if not path.is_file():
        return None
    try:
        return kind.load(path)
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, error) from error


def read_conversion(path: Path) -> ConversionReport | None:
    """Read ``conversion.json``, or return ``None`` when there is none."""
    raw = read_json(path)
    if raw is None:
        return None
    try:
        return ConversionReport.from_plain(raw)
    except (TypeError, KeyError) as error:
        raise damaged(path, error) from error


def read_metrics(
    path: Path, notes: list[str]
) -> tuple[tuple[Epoch, ...], tuple[TopologyUpdate, ...]]:
    """Read the training log; a last line cut short by a kill is left out, with a note."""
    if not path.is_file():
        return (), ()
    epochs: list[Epoch] = []
    updates: list[TopologyUpdate] = []
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                notes.append(f"The last line of {path.name} is incomplete and was left out.")
                break
            raise damaged(path, f"line {number}: {error}") from error
        kind = entry.pop("kind", None)
        if kind == "epoch":
            epochs.append(build(Epoch, known_fields(Epoch, entry), path))
        elif kind == "topology_update":
            layers = {
                name: build(LayerChange, change, path) for name, change in entry["layers"].items()
            }
            update = known_fields(TopologyUpdate, {**entry, "layers": layers})
            updates.append(build(TopologyUpdate, update, path))
    return tuple(epochs), tuple(updates)


def known_fields(record: type, entry: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the keys that are fields of ``record``: a log line may carry more than we show."""
    return {key: value for key, value in entry.items() if key in record.__dataclass_fields__}


def read_json(path: Path) -> dict[str, Any] | None:
    """Read a JSON object, or return ``None`` when there is no such file."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
    except ValueError as error:
        raise damaged(path, error) from error
    if not isinstance(content, dict):
        raise damaged(path, f"it holds a {type(content).__name__}, not an object")
    return content


def build(record: type[R], raw: Mapping[str, Any], path: Path) -> R:
    """Make a record of the fields in ``raw``, or say which file does not fit it."""
    try:
        return record(**raw)
    except TypeError as error:
        raise damaged(path, error) from error


def damaged(path: Path, reason: object) -> CheckpointError:
    """Return the error for a file that is there but cannot be used."""
    return CheckpointError(
        f"{path}: cannot be read ({reason}). A report needs the file as the run wrote it; "
        "repeat that stage of the run, or delete the file to leave its section out."
    )
