"""Charts of training: learning curves and topology updates, first their data, then the panels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from topospike.contracts import TopologyUpdate
from topospike.metrics_log import Epoch
from topospike.report.charts.figure import (
    Figure,
    LegendEntry,
    Panel,
    axis,
    layout,
    line,
    plain_text,
    share_axis,
)
from topospike.report.folder import Run
from topospike.report.labels import (
    CHANGE_COLOURS,
    NEUTRAL_COLOUR,
    Style,
    display_name,
    network_colour,
)
from topospike.report.units import count, percent, plain


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The training log of one network, one value an epoch; epochs count from 0 as in the log."""

    network: str
    epochs: tuple[int, ...]
    train_loss: tuple[float, ...]
    train_accuracy: tuple[float, ...]
    validation_accuracy: tuple[float | None, ...]
    validation_loss: tuple[float | None, ...] = ()


@dataclass(frozen=True, slots=True)
class TopologyHistory:
    """What every topology update did, in links summed over the layers, and where it led."""

    network: str
    epochs: tuple[int, ...]
    removed: tuple[int, ...]
    percolated: tuple[int, ...]
    grown: tuple[int, ...]
    links: tuple[int, ...]
    sparsity: tuple[float, ...]
    anp: tuple[float, ...]
    anp_hidden: tuple[float, ...]
    itop_rate: tuple[float, ...]


def learning_curves(run: Run) -> tuple[LearningCurve, ...]:
    """Return the learning curve of every network that has a training log."""
    return tuple(
        learning_curve(network.name, network.epochs) for network in run.networks if network.epochs
    )


def learning_curve(network: str, epochs: tuple[Epoch, ...]) -> LearningCurve:
    """Turn log lines into columns."""
    return LearningCurve(
        network=network,
        epochs=tuple(line.epoch for line in epochs),
        train_loss=tuple(line.train_loss for line in epochs),
        train_accuracy=tuple(line.train_accuracy for line in epochs),
        validation_accuracy=tuple(line.validation_accuracy for line in epochs),
        validation_loss=tuple(line.validation_loss for line in epochs),
    )


def topology_histories(run: Run) -> tuple[TopologyHistory, ...]:
    """Return the history of every network whose topology was updated."""
    return tuple(
        topology_history(network.name, network.updates)
        for network in run.networks
        if network.updates
    )


def topology_history(network: str, updates: tuple[TopologyUpdate, ...]) -> TopologyHistory:
    """Sum the changes over the layers of every update."""
    layers = [tuple(update.layers.values()) for update in updates]
    return TopologyHistory(
        network=network,
        epochs=tuple(update.epoch for update in updates),
        removed=tuple(sum(change.removed for change in row) for row in layers),
        percolated=tuple(sum(change.percolated for change in row) for row in layers),
        grown=tuple(sum(change.grown for change in row) for row in layers),
        links=tuple(sum(change.active_after for change in row) for row in layers),
        sparsity=tuple(update.sparsity for update in updates),
        anp=tuple(update.anp for update in updates),
        anp_hidden=tuple(update.anp_hidden for update in updates),
        itop_rate=tuple(update.itop_rate for update in updates),
    )


LARGEST_LOSS = 100.0
CHANGE_SYMBOLS = {"removed": "circle", "percolated": "square", "grown": "diamond"}
SHARE_STYLES = {
    "sparsity": ("sparsity", Style("#5f7d9c")),
    "anp": ("active neurons (ANP)", Style("#d1432f", "dash", "square")),
    "anp_hidden": ("active hidden neurons", Style("#a9791c", "dot", "diamond")),
    "itop_rate": ("positions ever active (ITOP)", Style("#2b8a6b", "dashdot", "triangle-up")),
}


def epoch_axis(unit: str = "epoch") -> dict[str, object]:
    """Return the axis of epochs, or of optimizer steps, whole numbers only."""
    return axis(unit, tickformat="d", nticks=8)


def perplexities(losses: Sequence[float | None]) -> tuple[float | None, ...]:
    """Return the exponential of every cross-entropy, ``None`` where it is too large to write."""
    return tuple(None if loss is None or loss > LARGEST_LOSS else math.exp(loss) for loss in losses)


def training_figure(curves: tuple[LearningCurve, ...], *, of_text: bool = False) -> Figure:
    """Draw loss, and accuracy or (of text) perplexity, over the epochs of every network."""
    networks = [curve.network for curve in curves]
    name = "perplexity" if of_text else "accuracy"
    loss, quality = [], []
    for curve in curves:
        colour = network_colour(curve.network, networks)
        train, validation = (
            (perplexities(curve.train_loss), perplexities(curve.validation_loss))
            if of_text
            else (curve.train_accuracy, curve.validation_accuracy)
        )
        written = plain if of_text else percent
        columns = (
            (loss, "training loss", curve.train_loss, Style(colour), plain),
            (quality, f"training {name}", train, Style(colour, "dot"), written),
            (quality, f"validation {name}", validation, Style(colour), written),
        )
        for panel, what, values, style, written in columns:
            texts = [
                f"<b>{plain_text(display_name(curve.network))}</b><br>epoch {epoch}<br>"
                f"{what} {written(value)}"
                for epoch, value in zip(curve.epochs, values, strict=True)
            ]
            markers = len(values) == 1
            panel.append(
                line(curve.network, curve.epochs, values, style=style, hover=texts, markers=markers)
            )
    panels = (
        Panel(
            "learning-loss",
            "Training loss",
            "Training loss of every network over the epochs.",
            tuple(loss),
            layout(epoch_axis(), axis("loss", rangemode="tozero")),
        ),
        Panel(
            f"learning-{name}",
            name.capitalize(),
            f"Training and validation {name} of every network over the epochs.",
            tuple(quality),
            layout(epoch_axis(), axis(name, type="log") if of_text else share_axis(name)),
        ),
    )
    legend = [
        LegendEntry(
            display_name(name),
            "line",
            Style(network_colour(name, networks), symbol="none"),
            name,
        )
        for name in networks
    ]
    kind = "text" if of_text else "images"
    legend.append(LegendEntry(f"on training {kind}", "line", Style(NEUTRAL_COLOUR, "dot", "none")))
    caption = (
        f"The networks as ANNs, before conversion. {name.capitalize()} on validation {kind} is "
        f"solid, on training {kind} dotted."
    )
    return Figure("learning", "Learning curves", caption, panels, tuple(legend))


def updates_figure(histories: tuple[TopologyHistory, ...], *, unit: str = "epoch") -> Figure:
    """Draw links changed by every topology update, and the shares they lead to.

    ``unit`` is what the updates are numbered by, ``epoch`` or ``step``.
    """
    panels: list[Panel] = []
    for history in histories:
        name = display_name(history.network)
        panels.append(
            Panel(
                f"links-{history.network}",
                "Links changed by each update",
                f"Links removed, percolated and grown by every topology update of {name}.",
                tuple(
                    share_line(
                        kind, history, getattr(history, kind), style, written=count, unit=unit
                    )
                    for kind, style in change_styles().items()
                ),
                layout(epoch_axis(unit), axis("links", rangemode="tozero", tickformat="~s")),
            )
        )
        panels.append(
            Panel(
                f"shares-{history.network}",
                "Where the updates lead",
                f"Sparsity, share of active neurons and share of positions ever active, after "
                f"every topology update of {name}.",
                tuple(
                    share_line(
                        what, history, getattr(history, kind), style, written=percent, unit=unit
                    )
                    for kind, (what, style) in SHARE_STYLES.items()
                ),
                layout(epoch_axis(unit), share_axis("share", rangemode="tozero")),
            )
        )
    legend = [LegendEntry(kind, "line", style, kind) for kind, style in change_styles().items()]
    legend += [LegendEntry(what, "line", style, what) for what, style in SHARE_STYLES.values()]
    caption = updates_caption(histories)
    return Figure("updates", "Topology updates", caption, tuple(panels), tuple(legend))


def change_styles() -> dict[str, Style]:
    """Return the style of each kind of change."""
    return {
        kind: Style(colour, symbol=CHANGE_SYMBOLS[kind]) for kind, colour in CHANGE_COLOURS.items()
    }


def share_line(
    what: str,
    history: TopologyHistory,
    values: Sequence[float],
    style: Style,
    *,
    written: Callable[[Any], str],
    unit: str,
) -> dict[str, object]:
    """Return one quantity over the epochs, or steps, of the updates."""
    texts = [
        f"{unit} {epoch}<br>{what} {written(value)}"
        for epoch, value in zip(history.epochs, values, strict=True)
    ]
    # Removed and grown often coincide: the broad line stays visible under the thin one.
    width = 4.0 if what == "removed" else 2.0
    x = history.epochs
    return line(what, x, values, style=style, hover=texts, width=width, marker_size=width + 2.5)


def updates_caption(histories: tuple[TopologyHistory, ...]) -> str:
    """Say what the updates did, in words."""
    parts = []
    for history in histories:
        parts.append(
            f"{display_name(history.network)}: {len(history.epochs)} updates removed "
            f"{count(sum(history.removed))} links by magnitude and density decay and "
            f"{count(sum(history.percolated))} by percolation, and grew "
            f"{count(sum(history.grown))}; {count(history.links[-1])} links remain, "
            f"{percent(history.sparsity[-1])} sparse. "
        )
    return "".join(parts) + (
        "ANP is the share of neurons that still carry links, ITOP the share of all positions that "
        "were a link at any time."
    )
