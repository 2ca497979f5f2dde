"""The conversion health tables: sites with their thresholds, and what stays MAC and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from topospike.contracts import (
    DEAD_LIMIT,
    SATURATED_LIMIT,
    ActivationComparison,
    ConversionReport,
    SiteReport,
)
from topospike.report.charts.figure import Table
from topospike.report.folder import Run
from topospike.report.labels import series_name
from topospike.report.simulation import MAC_INPUTS
from topospike.report.units import count, percent, plain

FLAG = "\N{BLACK UP-POINTING TRIANGLE}\N{NO-BREAK SPACE}"

SITE_COLUMNS = (
    "site",
    "op",
    "module",
    "source",
    "channels",
    "threshold min",
    "mean",
    "max",
    "dead",
    "saturated",
)


@dataclass(frozen=True, slots=True)
class Fold:
    """A block that opens and closes: sentences, then tables."""

    title: str
    sentences: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    table_kind: str = ""
    open: bool = False


def health_folds(run: Run) -> tuple[Fold, ...]:
    """Return one block per conversion, the sparse network's first one open."""
    pairs = [
        (network.name, method, network.conversions[method], network.comparisons.get(method))
        for network in run.sparse_first
        for method in run.methods
        if method in network.conversions
    ]
    return tuple(
        Fold(
            title=f"{series_name(name, method)} – {summary(report)}",  # noqa: RUF001
            sentences=(
                settings(report),
                *mac_sentences(report),
                *advice(report),
                *error_sentences(comparison),
            ),
            tables=(site_table(report), *error_tables(comparison)),
            table_kind="sites",
            open=place == 0,
        )
        for place, (name, method, report, comparison) in enumerate(pairs)
    )


def summary(report: ConversionReport) -> str:
    """Say in a few words how the conversion fared."""
    flagged = sum(is_flagged(site) for site in report.sites)
    sites = f"{len(report.sites)} spiking sites"
    return f"{sites}, {flagged} to look at" if flagged else f"{sites}, all healthy"


def is_flagged(site: SiteReport) -> bool:
    """Tell whether a site deserves a look."""
    return site.dead_share > DEAD_LIMIT or site.saturated_share > SATURATED_LIMIT


def settings(report: ConversionReport) -> str:
    """State the settings of a conversion."""
    folded = len(report.batch_norms_folded)
    neuron = report.neuron[:1].upper() + report.neuron[1:]
    return (
        f"{neuron} neurons, {report.coding} coding, {report.levels} "
        f"threshold{'' if report.levels == 1 else 's'} each, found by {report.solver!r} per "
        f"{report.granularity}; calibrated on "
        f"{count(report.calibration_images)} images; {folded} batch "
        f"normalisation{'' if folded == 1 else 's'} folded."
        + (f" Options: {report.settings}." if report.options else "")
    )


def mac_sentences(report: ConversionReport) -> tuple[str, ...]:
    """Name every layer that stays a multiply-accumulate, and why."""
    named = [
        f"{layer.name} stays MAC ({layer.reason})."
        for layer in report.layers
        if layer.input in MAC_INPUTS
    ]
    return tuple(named) or ("No layer stays MAC: every weight layer is fed by spikes.",)


def advice(report: ConversionReport) -> tuple[str, ...]:
    """Return the converter's advice, and what the marks in the table mean."""
    marks = ()
    if any(is_flagged(site) for site in report.sites):
        marks = (
            f"{FLAG}marks a dead share above {percent(DEAD_LIMIT, 0)} or a saturated share above "
            f"{percent(SATURATED_LIMIT, 0)}.",
        )
    return (*(f"Advice: {sentence}" for sentence in report.advice), *marks)


def site_table(report: ConversionReport) -> Table:
    """Return one row per spiking site."""
    rows = tuple(
        (
            site.name,
            site.op,
            site.module,
            ", ".join(site.sources),
            count(site.channels),
            plain(site.threshold_min),
            plain(site.threshold_mean),
            plain(site.threshold_max),
            flagged(site.dead_share, DEAD_LIMIT),
            flagged(site.saturated_share, SATURATED_LIMIT),
        )
        for site in report.sites
    )
    caption = (
        "Sites. Thresholds are in units of the activation. Dead: share of neurons that no "
        "calibration image drives. Saturated: share of activations above the threshold, which are "
        "clipped at first."
    )
    return Table(caption, SITE_COLUMNS, rows)


def error_sentences(comparison: ActivationComparison | None) -> tuple[str, ...]:
    """Say where the spiking network departs from the ANN, if it was compared at all."""
    if comparison is None:
        return ()
    if comparison.jump is None:
        return ("The error against the ANN grows gradually from site to site; none stands out.",)
    return tuple(f"Advice: {sentence}" for sentence in comparison.advice)


def error_tables(comparison: ActivationComparison | None) -> tuple[Table, ...]:
    """Return one row per site: its error at every step compared, drawn and in numbers."""
    if comparison is None:
        return ()
    steps = comparison.timesteps
    errors = {(record.site, record.t): record.relative_error for record in comparison.sites}
    rows = tuple(
        (
            f"{FLAG if last.site == comparison.jump else ''}{last.site}",
            strip([errors[last.site, t] for t in steps]),
            *(percent(errors[last.site, t], 1) for t in steps),
            plain(last.correlation),
            plain(last.mean_bias),
            percent(last.dead_share, 1),
            percent(last.saturated_share, 1),
        )
        for last in comparison.at(steps[-1])
    )
    columns = ("site", "course", *(f"t = {t}" for t in steps), "corr.", "bias", "silent", "above")
    caption = (
        "Error. Decoded outputs against the activations of the ANN, on "
        f"{count(comparison.images)} calibration images, in execution order: norm of the "
        "difference over norm of the activation after t steps (course: one bar a step, on a "
        f"logarithmic scale, full at 100 %). The other columns: after t = {steps[-1]}. Silent: "
        "neurons driven in the ANN that have not fired yet. Above: activations larger than what a "
        "site can decode to by then."
    )
    return (Table(caption, columns, rows),)


BARS = "\N{LOWER ONE EIGHTH BLOCK}▂▃▄▅▆▇█"


def strip(errors: Sequence[float | None]) -> str:
    """Draw errors as bars, on a logarithmic scale from 0.1 % (lowest) to 100 % (full).

    Examples
    --------
    >>> strip([2.0, 0.1, 0.01, 0.0])
    '█▆▃▁'
    """
    heights = [0.0 if not error else 1 + math.log10(error) / 3 for error in errors]
    top = len(BARS) - 1
    return "".join(BARS[round(top * min(max(height, 0.0), 1.0))] for height in heights)


def flagged(share: float, limit: float) -> str:
    """Write a share, with a mark when it is above its limit."""
    return f"{FLAG if share > limit else ''}{percent(share, 1)}"
