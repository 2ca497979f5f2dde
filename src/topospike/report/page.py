"""The page as a record: every sentence, table and figure in reading order, before any HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topospike.report.charts.accuracy import accuracy_figure, pareto_figure
from topospike.report.charts.activity import (
    operations_figure,
    rates_figure,
    settling_figure,
    silences,
)
from topospike.report.charts.arrivals import arrivals, arrivals_figure, raster_figure
from topospike.report.charts.figure import Figure, Table
from topospike.report.charts.network import (
    degrees_figure,
    disk_figure,
    evolution_figure,
    layer_names,
)
from topospike.report.charts.training import (
    learning_curves,
    topology_histories,
    training_figure,
    updates_figure,
)
from topospike.report.cost_tables import (
    Formula,
    chip_table,
    convention_table,
    cost_table,
    energy_formula,
    saving_table,
)
from topospike.report.folder import Run
from topospike.report.health import Fold, health_folds
from topospike.report.labels import display_name
from topospike.report.network_science import measures_table, parts_table, rivals_table
from topospike.report.simulation import cost_sentences, layer_bars, site_rates, trajectories
from topospike.report.units import count, duration
from topospike.report.words import first_evaluation, headline, missing_sentences, summary_table


@dataclass(frozen=True, slots=True)
class Group:
    """One chapter of the page; ``absent`` says what a chapter lacks and why."""

    key: str
    title: str
    absent: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    table_kind: str = ""
    formula: Formula | None = None
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    folds: tuple[Fold, ...] = ()


@dataclass(frozen=True, slots=True)
class Page:
    """Everything the template needs."""

    title: str
    headline: str
    facts: tuple[tuple[str, str], ...]
    groups: tuple[Group, ...]
    footer: str

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures in reading order."""
        return tuple(figure for group in self.groups for figure in group.figures)


def build_page(run: Run) -> Page:
    """Lay out the page of a run."""
    groups = (
        result_group(run),
        energy_group(run),
        activity_group(run),
        training_group(run),
        topology_group(run),
        conversion_group(run),
        convention_group(run),
        record_group(run),
    )
    return Page(title(run), headline(run), facts(run), groups, footer(run))


def title(run: Run) -> str:
    """Name the run by its recipe, its data and its model."""
    data = (run.record.get("data") or {}).get("name") or run.recipe.get("data", {}).get("source")
    model = run.recipe.get("model", {}).get("name")
    what = " on ".join(str(part) for part in (model, data) if part)
    name = run.recipe.get("name") or run.folder.name
    return f"{name}: {what}" if what else str(name)


def facts(run: Run) -> tuple[tuple[str, str], ...]:
    """List the few facts that every reader asks for first."""
    data, recipe = run.record.get("data") or {}, run.recipe
    found: list[tuple[str, str]] = []
    if "train" in data:
        images = " / ".join(count(data.get(part)) for part in ("train", "validation", "test"))
        found.append((f"train / validation / test {run.example}s", images))
    if data.get("context"):
        found.append(("tokens of a context", count(data["context"])))
    if run.sparse is not None:
        found.append(("sparse training", display_name(run.sparse.name)))
    if run.methods:
        found.append(("conversion", ", ".join(display_name(method) for method in run.methods)))
    if "epochs" in recipe.get("train", {}):
        found.append(("epochs", count(recipe["train"]["epochs"])))
    if "seed" in run.record:
        found.append(("seed", str(run.record["seed"])))
    if run.record.get("seconds"):
        found.append(("time", duration(sum(run.record["seconds"].values()))))
    if "started" in run.record:
        found.append(("started", str(run.record["started"])[:16].replace("T", " ")))
    return tuple(found)


def result_group(run: Run) -> Group:
    """Compare dense and sparse in one table."""
    tables = (summary_table(run),) if run.rows else ()
    absent = missing_sentences(run)
    if not run.rows:
        absent = ("There is no summary in this folder: no network was evaluated.", *absent)
    return Group("result", "Result", absent, tables, "summary")


def energy_group(run: Run) -> Group:
    """Show what was measured against energy and against time, and what saves energy."""
    lines = trajectories(run)
    if not lines:
        absent = ("No spiking network was evaluated, so there is no curve of accuracy or energy.",)
        return Group("energy", "Accuracy and energy", absent)
    measured = lines[0].measured
    figures = (pareto_figure(lines), accuracy_figure(lines))
    if arriving := arrivals(run):
        figures = (*figures, arrivals_figure(arriving))
    split = saving_table(run)
    folds = (Fold("Where the saving comes from", tables=(split,), open=True),) if split else ()
    if wider := cost_table(run):
        folds += (Fold("What operations leave out", tables=(wider,), open=True),)
    if chips := chip_table(run):
        folds += (Fold("On a simulated chip", tables=(chips,), open=True),)
    return Group(
        "energy",
        f"{measured.title} and energy",
        sentences=(*text_sentences(run), *cost_sentences(run)),
        figures=figures,
        folds=folds,
    )


def text_sentences(run: Run) -> tuple[str, ...]:
    """Say what an image is where the data are text."""
    tokens = (run.record.get("data") or {}).get("context")
    if not tokens:
        return ()
    return (
        f"The data are text: what is counted per image or context is for all {count(tokens)} "
        f"tokens of a context together, and a token costs 1/{count(tokens)} of it.",
    )


def activity_group(run: Run) -> Group:
    """Show where the operations and the spikes are."""
    absent, figures = [], []
    bars, rates = layer_bars(run), site_rates(run)
    if bars:
        figures.append(operations_figure(bars))
    else:
        absent.append("No evaluation in this folder counts operations per layer.")
    if rates:
        figures.append(rates_figure(rates))
    else:
        absent.append("No evaluation in this folder holds firing rates per site.")
    if quiet := silences(run):
        figures.append(settling_figure(quiet))
    figures += [
        raster_figure(network.name, method, drawn)
        for network in run.sparse_first[:1]
        for method, drawn in list(network.rasters.items())[:1]
    ]
    return Group("activity", "Layers and spikes", tuple(absent), figures=tuple(figures))


def training_group(run: Run) -> Group:
    """Show how the networks learnt, and how the topology changed."""
    absent, figures = [], []
    curves, histories = learning_curves(run), topology_histories(run)
    if curves:
        figures.append(training_figure(curves, of_text=run.example == "context"))
    else:
        absent.append("There is no training log in this folder.")
    if histories:
        unit = run.recipe.get("sparsity", {}).get("update_unit", "epoch")
        figures.append(updates_figure(histories, unit=unit))
    else:
        absent.append("No topology update was logged: the topology did not change in training.")
    return Group("training", "Training", tuple(absent), figures=tuple(figures))


def topology_group(run: Run) -> Group:
    """Show the topology as a network."""
    name = "Topology"
    if run.topology is None:
        absent = ("The topology of this run was not analysed (no topology_report.json).",)
        return Group("topology", name, absent)
    report, figures, absent = run.topology, [], list(run.topology.notes)
    if report.degrees.degree:
        figures.append(degrees_figure(report))
    if report.disk is not None:
        figures.append(disk_figure(report.disk, names=layer_names(report)))
    else:
        absent.append("The analysis holds no hyperbolic embedding, so no disk is drawn.")
    if run.history:
        figures.append(evolution_figure(run.history))
    return Group(
        "topology",
        name,
        tuple(absent),
        tables=(measures_table(report),),
        table_kind="words",
        figures=tuple(figures),
        folds=(
            Fold(
                "Layers, blocks, and rivals of the power law",
                tables=(parts_table(report), *((rivals_table(report),) if report.gamma else ())),
                table_kind="words",
            ),
        ),
    )


def conversion_group(run: Run) -> Group:
    """Show the health of every conversion."""
    folds = health_folds(run)
    absent = () if folds else ("There is no conversion report in this folder.",)
    return Group("conversion", "Conversion health", absent, folds=folds)


def convention_group(run: Run) -> Group:
    """Say what the numbers count."""
    name = "What is counted"
    evaluation = first_evaluation(run)
    if evaluation is None:
        return Group("conventions", name, ("Nothing was counted in this run.",))
    return Group(
        "conventions",
        name,
        formula=energy_formula(evaluation.conventions),
        sentences=(
            f"Energies and counts are averages per test {run.example} and accumulate over the time "
            "steps 1 to t. A synaptic operation (SOP) is one spike crossing one existing link.",
        ),
        tables=(convention_table(evaluation.conventions),),
        table_kind="words",
    )


def record_group(run: Run) -> Group:
    """Show the full record of the run."""
    name = "Record"
    if not run.record:
        return Group("record", name, ("There is no record.json in this folder.",))
    warnings = tuple(f"Warning of the run: {text}" for text in run.record.get("warnings", ()))
    return Group("record", name, warnings, folds=(record_fold(run.record),))


def record_fold(record: Mapping[str, Any]) -> Fold:
    """Return every entry of the record, one table a block."""
    plain = {key: value for key, value in record.items() if not isinstance(value, Mapping)}
    blocks = {"run": plain} | {
        key: value for key, value in record.items() if isinstance(value, Mapping)
    }
    tables = tuple(
        Table(key, ("entry", "value"), tuple(leaves(block)))
        for key, block in blocks.items()
        if block
    )
    return Fold(
        "Recipe, versions, hardware, seeds, timings", tables=tables, table_kind="words titled"
    )


def leaves(block: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Flatten nested mappings into (dotted name, value) in their own order.

    Examples
    --------
    >>> leaves({"train": {"epochs": 3}, "widths": [8, 16], "note": None})
    [('train.epochs', '3'), ('widths', '8, 16'), ('note', 'none')]
    """
    found: list[tuple[str, str]] = []
    for key, value in block.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += leaves(value, f"{name}.")
        elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value):
                found += leaves({str(place): item}, f"{name}.")
        elif isinstance(value, list):
            found.append((name, ", ".join(map(str, value)) or "none"))
        else:
            found.append((name, "none" if value is None else str(value)))
    return found


def footer(run: Run) -> str:
    """Say what made the page."""
    commit = run.record.get("commit")
    return "Made by topospike" + (f" at commit {commit}." if commit else ".")
