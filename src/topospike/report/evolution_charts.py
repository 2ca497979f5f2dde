"""Charts of how the topology changed over the updates, from the topologies saved on the way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from topospike.analysis import HistoryPoint
from topospike.report.chart import Figure, LegendEntry, Panel, Trace, axis, layout, line, share_axis
from topospike.report.labels import NETWORK_COLOURS, Style
from topospike.report.units import GAMMA, NARROW, count, percent, plain

MEASURE = Style(NETWORK_COLOURS[0])
SHARES = {
    "anp": ("active neurons (ANP)", Style(NETWORK_COLOURS[0], "dash", "square")),
    "anp_hidden": ("active hidden neurons", Style(NETWORK_COLOURS[3], "dot", "diamond")),
}
Points = Sequence[HistoryPoint]


def evolution_figure(points: Points) -> Figure:
    """Draw gamma, active neurons, meta-depth and links over the topology updates."""
    panels = (
        panel(
            "gamma",
            f"Power-law exponent {GAMMA}",
            "The exponent of the degree distribution with its standard error, after a number of "
            "topology updates.",
            [gamma_trace(points)],
            axis(GAMMA),
        ),
        panel(
            "active",
            "Active neurons",
            "The share of neurons with links, after a number of topology updates.",
            [
                measure_trace(points, name, what, style, written=percent)
                for name, (what, style) in SHARES.items()
            ],
            share_axis("share", rangemode="tozero"),
        ),
        panel(
            "depth",
            "Meta-depth index",
            "The meta-depth index, inequality of degrees inside layers beyond that of random "
            "links, after a number of topology updates.",
            [measure_trace(points, "index", "meta-depth index", MEASURE, written=plain)],
            axis("index"),
        ),
        panel(
            "links",
            "Links",
            "The number of links of the graph, after a number of topology updates.",
            [measure_trace(points, "links", "links", MEASURE, written=count)],
            axis("links", rangemode="tozero", tickformat="~s"),
        ),
    )
    legend = tuple(LegendEntry(what, "line", style, name) for name, (what, style) in SHARES.items())
    title = "Evolution of the topology"
    return Figure("evolution", title, evolution_caption(points), panels, legend)


def panel(
    key: str, title: str, label: str, traces: Sequence[Trace], y_axis: dict[str, Any]
) -> Panel:
    """Return one measure over the number of updates."""
    x_axis = axis("topology updates", tickformat="d", nticks=8)
    return Panel(f"evolution-{key}", title, label, tuple(traces), layout(x_axis, y_axis))


def measure_trace(
    points: Points, name: str, what: str, style: Style, *, written: Callable[[Any], str]
) -> Trace:
    """Return one measure as a line; where it is undefined the line has a gap."""
    values = [getattr(point, name) for point in points]
    texts = [
        f"after {count(point.update)} updates<br>{what} {written(value)}"
        for point, value in zip(points, values, strict=True)
    ]
    return line(name, [point.update for point in points], values, style=style, hover=texts)


def gamma_trace(points: Points) -> Trace:
    """Return gamma with its standard error as bars; a fit at the end of its grid says so."""
    trace = measure_trace(points, "gamma", GAMMA, MEASURE, written=plain)
    for place, point in enumerate(points):
        if point.at_bound:
            trace["text"][place] += " or more"
        elif point.sigma is not None:
            trace["text"][place] += f"{NARROW}±{NARROW}{plain(point.sigma, 2)}"
    sigmas = [point.sigma for point in points]
    trace["error_y"] = {"array": sigmas, "color": MEASURE.colour, "thickness": 1, "width": 3}
    return trace


def evolution_caption(points: Points) -> str:
    """Say in words from where to where the topology went."""
    first, last = points[0], points[-1]
    text = (
        f"The graph at {len(points)} moments, from {count(first.update)} to {count(last.update)} "
        f"topology updates: links {count(first.links)} to {count(last.links)}, active neurons "
        f"{percent(first.anp, 1)} to {percent(last.anp, 1)}"
    )
    if first.gamma is not None and last.gamma is not None:
        text += f", {GAMMA} {gamma_text(first)} to {gamma_text(last)}"
    if first.index is not None and last.index is not None:
        text += f", meta-depth index {plain(first.index)} to {plain(last.index)}"
    return f"{text}. Bars are one standard error of {GAMMA}."


def gamma_text(point: HistoryPoint) -> str:
    """Write gamma with its standard error."""
    if point.at_bound:
        return "10 or more"
    return f"{plain(point.gamma)} ± {plain(point.sigma, 2)}"
