"""The conversion health tables: sites with their thresholds, and what stays MAC and why."""

from __future__ import annotations

from dataclasses import dataclass

from topospike.contracts import DEAD_LIMIT, SATURATED_LIMIT, ConversionReport, SiteReport
from topospike.report.chart import Table
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
        (network.name, method, network.conversions[method])
        for network in reversed(run.networks)
        for method in run.methods
        if method in network.conversions
    ]
    return tuple(
        Fold(
            title=f"{series_name(name, method)} – {summary(report)}",  # noqa: RUF001
            sentences=(settings(report), *mac_sentences(report), *advice(report)),
            tables=(site_table(report),),
            table_kind="sites",
            open=place == 0,
        )
        for place, (name, method, report) in enumerate(pairs)
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


def flagged(share: float, limit: float) -> str:
    """Write a share, with a mark when it is above its limit."""
    return f"{FLAG if share > limit else ''}{percent(share, 1)}"
