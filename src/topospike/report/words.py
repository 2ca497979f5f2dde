"""The sentences of the page: the result in words, and what its numbers count."""

from __future__ import annotations

from topospike.contracts import Evaluation
from topospike.report.charts.figure import Table
from topospike.report.folder import Run, SummaryRow
from topospike.report.labels import display_name, series_name
from topospike.report.simulation import Measured
from topospike.report.units import NO_VALUE, energy, percent, plain, points

TRAINED = "direct"
"""What the report of a network trained through time calls its method."""


def headline(run: Run) -> str:
    """State the result of the run in one sentence."""
    row = headline_row(run)
    if row is None:
        if run.networks:
            return "This run holds no evaluation of a spiking network yet."
        return "This run holds no trained network yet."
    subject = "the dense network,"
    if row.network != "dense":
        subject = f"the {display_name(row.network)} network, {percent(row.sparsity, 1)} sparse and"
    parts = [
        f"At time step {row.timesteps} {subject} converted by {display_name(row.method)}, "
        f"{achievement(row, run)}, for {energy(row.energy_joule)} per {run.example}"
    ]
    if row.energy_ratio is not None and row.network != "dense":
        parts.append(f"{percent(row.energy_ratio, 1)} of the energy of its dense twin")
    return ": ".join(parts) + "."


def headline_row(run: Run) -> SummaryRow | None:
    """Return the row the headline speaks of: the first sparse one, else the first."""
    return next((row for row in run.rows if row.network != "dense"), next(iter(run.rows), None))


def achievement(row: SummaryRow, run: Run) -> str:
    """Say what a spiking network reaches, and how far that is from its ANN."""
    measured = Measured(row.metric, example=run.example)
    ann, snn = row.values
    if row.metric == "accuracy":
        return (
            f"classifies {percent(row.snn_accuracy)} of the test images correctly, "
            f"{against_ann(row)}"
        )
    reached = f"has a {measured.words} of {measured.written(snn)} on the test data"
    if ann is None or snn is None:
        return reached
    side = "above" if snn > ann else "below"
    return f"{reached}, {measured.distance(snn - ann)} {side} its ANN"


def against_ann(row: SummaryRow) -> str:
    """Compare a spiking network with its ANN in words."""
    difference = row.snn_accuracy - row.ann_accuracy
    if abs(difference) < 5e-5:
        return "as many as its ANN"
    return f"{points(difference)} {'above' if difference > 0 else 'below'} its ANN"


def summary_table(run: Run) -> Table:
    """Return the table dense versus sparse, one row per network and conversion."""
    measured = Measured(run.rows[0].metric, example=run.example)
    columns = (
        *("network", f"ANN {measured.words}", f"SNN {measured.words}"),
        *(f"energy per {measured.example}", "ratio to dense", "T0", "sparsity"),
    )
    rows = tuple(
        (
            row_name(row, run),
            *map(measured.written, row.values),
            energy(row.energy_joule),
            plain(row.energy_ratio),
            NO_VALUE if row.saturation_time is None else str(row.saturation_time),
            percent(row.sparsity),
        )
        for row in run.rows
    )
    return Table(summary_caption(run), columns, rows)


def row_name(row: SummaryRow, run: Run) -> str:
    """Name a row; the time step is part of the name where the rows differ in it."""
    name = series_name(row.network, row.method)
    return (
        name
        if len({other.timesteps for other in run.rows}) == 1
        else f"{name}, t = {row.timesteps}"
    )


def summary_caption(run: Run) -> str:
    """Say what the columns of the summary mean."""
    steps = {row.timesteps for row in run.rows}
    at = f"t = {steps.pop()}" if len(steps) == 1 else "the time step t of the row"
    images = next((e.images for n in run.networks for e in n.evaluations.values()), None)
    on = f" on {images} test {run.example}s" if images else ""
    words = Measured(run.rows[0].metric).words
    conversions = (report for network in run.networks for report in network.conversions.values())
    trained = any(report.method == TRAINED for report in conversions)
    own = " A network trained through time has no ANN; there its own is shown." if trained else ""
    return (
        f"SNN {words} and energy at {at}{on}. Ratio is the energy over that of the dense twin "
        f"converted by the same method; T0 the time step by which {words} has stopped "
        f"improving; sparsity the share of absent links among all weights.{own}"
    )


def missing_sentences(run: Run) -> tuple[str, ...]:
    """Say which parts of a complete run this folder lacks."""
    sentences = []
    names = {network.name for network in run.networks}
    if run.networks and "dense" not in names:
        sentences.append("The run has no dense twin, so nothing is compared with one.")
    if run.networks and not names - {"dense"}:
        sentences.append("The run has no sparse network.")
    if len(run.methods) == 1:
        sentences.append(f"One conversion method was run: {display_name(run.methods[0])}.")
    return (*sentences, *run.notes)


def first_evaluation(run: Run) -> Evaluation | None:
    """Return the evaluation whose conventions the page states."""
    return next((e for n in run.sparse_first for e in n.evaluations.values()), None)
