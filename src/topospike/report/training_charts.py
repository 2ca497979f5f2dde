"""Charts of training: learning curves and topology updates as plotly panels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from topospike.report.chart import (
    Figure,
    LegendEntry,
    Panel,
    axis,
    layout,
    line,
    plain_text,
    share_axis,
)
from topospike.report.labels import (
    CHANGE_COLOURS,
    NEUTRAL_COLOUR,
    Style,
    display_name,
    network_colour,
)
from topospike.report.training import LearningCurve, TopologyHistory
from topospike.report.units import count, percent, plain

CHANGE_SYMBOLS = {"removed": "circle", "percolated": "square", "grown": "diamond"}
SHARE_STYLES = {
    "sparsity": ("sparsity", Style("#5f7d9c")),
    "anp": ("active neurons (ANP)", Style("#d1432f", "dash", "square")),
    "anp_hidden": ("active hidden neurons", Style("#a9791c", "dot", "diamond")),
    "itop_rate": ("positions ever active (ITOP)", Style("#2b8a6b", "dashdot", "triangle-up")),
}


def epoch_axis() -> dict[str, object]:
    """Return the axis of epochs, whole numbers only."""
    return axis("epoch", tickformat="d", nticks=8)


def training_figure(curves: tuple[LearningCurve, ...]) -> Figure:
    """Draw loss and accuracy over the epochs of every network."""
    networks = [curve.network for curve in curves]
    loss, accuracy = [], []
    for curve in curves:
        colour = network_colour(curve.network, networks)
        columns = (
            (loss, "training loss", curve.train_loss, Style(colour), plain),
            (accuracy, "training accuracy", curve.train_accuracy, Style(colour, "dot"), percent),
            (accuracy, "validation accuracy", curve.validation_accuracy, Style(colour), percent),
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
            "learning-accuracy",
            "Accuracy",
            "Training and validation accuracy of every network over the epochs.",
            tuple(accuracy),
            layout(epoch_axis(), share_axis("accuracy")),
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
    legend.append(LegendEntry("on training images", "line", Style(NEUTRAL_COLOUR, "dot", "none")))
    caption = (
        "The networks as ANNs, before conversion. Accuracy on validation images is solid, on "
        "training images dotted."
    )
    return Figure("learning", "Learning curves", caption, panels, tuple(legend))


def updates_figure(histories: tuple[TopologyHistory, ...]) -> Figure:
    """Draw links changed by every topology update, and the shares they lead to."""
    panels: list[Panel] = []
    for history in histories:
        name = display_name(history.network)
        panels.append(
            Panel(
                f"links-{history.network}",
                "Links changed by each update",
                f"Links removed, percolated and grown by every topology update of {name}.",
                tuple(
                    share_line(kind, history, getattr(history, kind), style, written=count)
                    for kind, style in change_styles().items()
                ),
                layout(epoch_axis(), axis("links", rangemode="tozero", tickformat="~s")),
            )
        )
        panels.append(
            Panel(
                f"shares-{history.network}",
                "Where the updates lead",
                f"Sparsity, share of active neurons and share of positions ever active, after "
                f"every topology update of {name}.",
                tuple(
                    share_line(what, history, getattr(history, kind), style, written=percent)
                    for kind, (what, style) in SHARE_STYLES.items()
                ),
                layout(epoch_axis(), share_axis("share", rangemode="tozero")),
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
) -> dict[str, object]:
    """Return one quantity over the epochs of the updates."""
    texts = [
        f"epoch {epoch}<br>{what} {written(value)}"
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
