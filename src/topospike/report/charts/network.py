"""Charts of the topology: its degrees, the hyperbolic disk, and how it changed over the updates."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from topospike.analysis import HistoryPoint
from topospike.analysis.report import Disk, TopologyReport
from topospike.report.charts.figure import (
    Figure,
    LegendEntry,
    Panel,
    Trace,
    axis,
    layout,
    line,
    log_axis,
    plain_text,
    share_axis,
)
from topospike.report.labels import DENSE_COLOUR, NETWORK_COLOURS, Style, ramp_colour
from topospike.report.units import GAMMA, NARROW, count, percent, plain

NODE_OUTLINE = "#22262b"
LINK_COLOUR = "rgba(128,133,140,0.28)"
SMALLEST_NODE, NODE_RANGE = 5.0, 11.0
FIT_COLOUR = NETWORK_COLOURS[0]
# The disk shrinks to the page: these keep the plot a square at the widest.
DISK_HEIGHT = 560


def degrees_figure(report: TopologyReport) -> Figure:
    """Draw the degree distribution with the power law fitted to its tail."""
    degrees = report.degrees
    nodes = Style(DENSE_COLOUR)
    texts = [
        f"degree {count(k)} or more<br>{percent(share)} of the nodes"
        for k, share in zip(degrees.degree, degrees.share, strict=True)
    ]
    observed = line("nodes", degrees.degree, degrees.share, style=nodes, hover=texts, marker_size=7)
    traces: list[Trace] = [{**observed, "mode": "markers"}]
    legend = [LegendEntry("nodes", "marker", nodes, "nodes")]
    if degrees.fit_degree:
        fit = Style(FIT_COLOUR, symbol="none")
        name = f"power law, {GAMMA} = {plain(report.gamma)}"
        texts = [name] * len(degrees.fit_degree)
        x, y = degrees.fit_degree, degrees.fit_share
        traces.append(line("fit", x, y, style=fit, hover=texts, markers=False))
        legend.append(LegendEntry(name, "line", fit, "fit"))
    panel = Panel(
        "degrees",
        "",
        "Share of nodes with at least k links over k, both axes logarithmic, with the fitted "
        "power law.",
        tuple(traces),
        layout(
            log_axis("degree k", degrees.degree, written=count),
            log_axis("share of nodes with degree ≥ k", degrees.share, written=short_percent),
        ),
        height=360,
    )
    caption = degrees_caption(report)
    return Figure("degrees", "Degree distribution", caption, (panel,), tuple(legend), shape="wide")


def short_percent(share: float) -> str:
    """Write a share in percent without trailing zeros."""
    return f"{100 * share:g}{NARROW}%"


def degrees_caption(report: TopologyReport) -> str:
    """State the fit with its uncertainty, and how to read it."""
    if report.gamma is None:
        return "No power law could be fitted: the degrees do not vary enough."
    text = (
        f"The discrete maximum-likelihood fit gives {GAMMA} = {plain(report.gamma)} ± "
        f"{plain(report.sigma, 2)} on the {count(report.n_tail)} nodes with degree ≥ "
        f"{count(report.xmin)}. Between 2 and 3 a network counts as scale-free; "
    )
    null = report.gamma_null
    if null is not None and null.mean is not None:
        text += f"random graphs with the same layers and links give {plain(null.mean)}. "
    else:
        text += "random graphs give much more. "
    if report.at_bound:
        text += "Here the fit ends at the border of its grid: read it as 10 or more. "
    return text + "Degrees are pooled over the layers, isolated nodes left out."


def disk_figure(disk: Disk, *, names: tuple[str, ...]) -> Figure:
    """Draw the hyperbolic disk; layers run from red through yellow to blue."""
    rim, layers = max(disk.r) or 1.0, len(names)
    traces = [rim_trace(rim), link_trace(disk)]
    traces += [node_trace(disk, layer, names=names) for layer in range(layers)]
    legend = tuple(
        LegendEntry(
            names[layer],
            "marker",
            Style(ramp_colour(layer, layers)),
            f"layer-{layer}",
        )
        for layer in range(layers)
    )
    frame = {"visible": False, "range": [-1.06 * rim, 1.06 * rim]}
    panel = Panel(
        "disk",
        "",
        f"Hyperbolic disk of {len(disk.r)} nodes in {layers} layers; nodes near the centre "
        "have the most links.",
        tuple(traces),
        layout(
            {**frame, "constrain": "domain"},
            {**frame, "scaleanchor": "x", "constrain": "domain"},
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
        ),
        height=DISK_HEIGHT,
    )
    part = f"{count(len(disk.edges))} of {count(disk.links)} links are drawn. "
    caption = (
        f"The {count(len(disk.r))} nodes of the largest connected component by coalescent "
        f"embedding ({disk.weighting}, {disk.reduction}, {disk.angles} angles). The radius falls "
        "with the degree, so hubs sit in the centre; nodes close in angle are close in the "
        f"network. {part if len(disk.edges) < disk.links else ''}Point at a node for its layer, "
        "degree and radius."
    )
    return Figure("disk", "Hyperbolic disk", caption, (panel,), legend, shape="square")


def layer_names(report: TopologyReport) -> tuple[str, ...]:
    """Name the layers of neurons by the weight layers they belong to."""
    names = [name.removesuffix(".weight") for name in report.chain]
    return (f"inputs of {names[0]}", *(f"outputs of {name}" for name in names))


def rim_trace(rim: float) -> Trace:
    """Return the circle at the largest radius."""
    angles = [math.tau * step / 180 for step in range(181)]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": [round(rim * math.cos(angle), 4) for angle in angles],
        "y": [round(rim * math.sin(angle), 4) for angle in angles],
        "hoverinfo": "skip",
        "line": {"color": "#80858c", "width": 1},
    }


def link_trace(disk: Disk) -> Trace:
    """Return all drawn links as one broken line; a gap separates two links."""
    x, y = positions(disk)
    across: list[float | None] = []
    up: list[float | None] = []
    for start, end in disk.edges:
        across += [x[start], x[end], None]
        up += [y[start], y[end], None]
    return {
        "type": "scatter",
        "mode": "lines",
        "x": across,
        "y": up,
        "hoverinfo": "skip",
        "line": {"color": LINK_COLOUR, "width": 0.5},
    }


def node_trace(disk: Disk, layer: int, *, names: tuple[str, ...]) -> Trace:
    """Return the nodes of one layer, the largest degree last so that it lies on top."""
    x, y = positions(disk)
    largest = max(disk.degree)
    nodes = sorted(
        (node for node in range(len(disk.layer)) if disk.layer[node] == layer),
        key=lambda node: disk.degree[node],
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "legendgroup": f"layer-{layer}",
        "x": [x[node] for node in nodes],
        "y": [y[node] for node in nodes],
        "text": [
            f"<b>{plain_text(names[layer])}</b><br>layer {layer}<br>"
            f"degree {count(disk.degree[node])}<br>radius {plain(disk.r[node])}"
            for node in nodes
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": ramp_colour(layer, len(names)),
            "size": [
                round(SMALLEST_NODE + NODE_RANGE * math.sqrt(disk.degree[node] / largest), 2)
                for node in nodes
            ],
            "opacity": 1,
            "line": {"color": NODE_OUTLINE, "width": 0.7},
        },
    }


def positions(disk: Disk) -> tuple[list[float], list[float]]:
    """Return Cartesian coordinates in the native disk, rounded to what a screen can show."""
    pairs = list(zip(disk.r, disk.theta, strict=True))
    return (
        [round(r * math.cos(theta), 4) for r, theta in pairs],
        [round(r * math.sin(theta), 4) for r, theta in pairs],
    )


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
