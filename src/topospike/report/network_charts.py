"""Charts of the topology: degree distribution and hyperbolic disk as plotly panels."""

from __future__ import annotations

import math

from topospike.report.chart import (
    Figure,
    LegendEntry,
    Panel,
    Trace,
    axis,
    layout,
    line,
)
from topospike.report.labels import DENSE_COLOUR, NETWORK_COLOURS, Style, ramp_colour
from topospike.report.network_science import DegreeDistribution, HyperbolicDisk
from topospike.report.units import count, percent, plain

NODE_OUTLINE = "#22262b"
LINK_COLOUR = "rgba(128,133,140,0.28)"
SMALLEST_NODE, NODE_RANGE = 5.0, 11.0
FIT_COLOUR = NETWORK_COLOURS[0]
# The disk shrinks to the page: these keep the plot a square at the widest.
DISK_HEIGHT = 560


def degrees_figure(degrees: DegreeDistribution) -> Figure:
    """Draw the degree distribution with the power law fitted to its tail."""
    nodes = Style(DENSE_COLOUR)
    texts = [
        f"degree {count(k)} or more<br>{percent(share)} of the nodes"
        for k, share in zip(degrees.degree, degrees.share, strict=True)
    ]
    observed = line("nodes", degrees.degree, degrees.share, style=nodes, hover=texts, marker_size=7)
    observed["mode"] = "markers"
    traces, legend = [observed], [LegendEntry("nodes", "marker", nodes, "nodes")]
    if degrees.fit_degree:
        fit = Style(FIT_COLOUR, symbol="none")
        texts = [f"power law, gamma = {plain(degrees.gamma)}"] * len(degrees.fit_degree)
        traces.append(
            line(
                "fit", degrees.fit_degree, degrees.fit_share, style=fit, hover=texts, markers=False
            )
        )
        legend.append(LegendEntry(f"power law, γ = {plain(degrees.gamma)}", "line", fit, "fit"))
    panel = Panel(
        "degrees",
        "",
        "Share of nodes with at least k links over k, both axes logarithmic, with the fitted "
        "power law.",
        tuple(traces),
        layout(
            axis("degree k", type="log", dtick="D1" if max(degrees.degree) < 200 else 1),
            axis("share of nodes with degree ≥ k", type="log", tickformat="~%", dtick=1),
        ),
        height=360,
    )
    caption = degrees_caption(degrees)
    return Figure("degrees", "Degree distribution", caption, (panel,), tuple(legend), shape="wide")


def degrees_caption(degrees: DegreeDistribution) -> str:
    """State the fit with its uncertainty, and how to read it."""
    if degrees.gamma is None:
        return "No power law could be fitted: the degrees do not vary enough."
    text = (
        f"The discrete maximum-likelihood fit gives γ = {plain(degrees.gamma)} ± "
        f"{plain(degrees.sigma, 2)} on the {count(degrees.n_tail)} nodes with degree ≥ "
        f"{count(degrees.xmin)}. Between 2 and 3 a network counts as scale-free; "
        "random graphs give much more. "
    )
    if degrees.at_bound:
        text += "Here the fit ends at the border of its grid: read it as 10 or more. "
    return text + "Degrees are pooled over the layers, isolated nodes left out."


def disk_figure(disk: HyperbolicDisk) -> Figure:
    """Draw the hyperbolic disk; layers run from red through yellow to blue."""
    rim = max(disk.r) or 1.0
    traces = [rim_trace(rim), link_trace(disk)]
    traces += [node_trace(disk, layer) for layer in range(disk.layers)]
    legend = tuple(
        LegendEntry(
            layer_name(layer, disk.layers),
            "marker",
            Style(ramp_colour(layer, disk.layers)),
            f"layer-{layer}",
        )
        for layer in range(disk.layers)
    )
    frame = {"visible": False, "range": [-1.06 * rim, 1.06 * rim]}
    panel = Panel(
        "disk",
        "",
        f"Hyperbolic disk of {len(disk.r)} nodes in {disk.layers} layers; nodes near the centre "
        "have the most links.",
        tuple(traces),
        layout(
            {**frame, "constrain": "domain"},
            {**frame, "scaleanchor": "x", "constrain": "domain"},
            margin={"l": 0, "r": 0, "t": 0, "b": 0},
        ),
        height=DISK_HEIGHT,
    )
    shown = f"{count(len(disk.edges))} of {count(disk.links)} links are drawn. "
    caption = (
        f"The {count(len(disk.r))} nodes of the largest connected component, by coalescent "
        "embedding: the radius falls with the degree, so hubs sit in the centre; nodes that are "
        f"close in angle are close in the network. "
        f"{shown if len(disk.edges) < disk.links else ''}"
        "Point at a node for its layer, degree and radius."
    )
    return Figure("disk", "Hyperbolic disk", caption, (panel,), legend, shape="square")


def layer_name(layer: int, layers: int) -> str:
    """Name a layer of neurons by its place."""
    if layer == 0:
        return "input neurons"
    return "output neurons" if layer == layers - 1 else f"hidden neurons {layer}"


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


def link_trace(disk: HyperbolicDisk) -> Trace:
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


def node_trace(disk: HyperbolicDisk, layer: int) -> Trace:
    """Return the nodes of one layer, the largest degree last so that it lies on top."""
    x, y = positions(disk)
    largest = max(disk.degree)
    nodes = sorted(
        (node for node in range(len(disk.layer)) if disk.layer[node] == layer),
        key=lambda node: disk.degree[node],
    )
    name = layer_name(layer, disk.layers)
    return {
        "type": "scatter",
        "mode": "markers",
        "legendgroup": f"layer-{layer}",
        "x": [x[node] for node in nodes],
        "y": [y[node] for node in nodes],
        "text": [
            f"<b>{name}</b><br>layer {layer}<br>degree {count(disk.degree[node])}<br>"
            f"radius {plain(disk.r[node])}"
            for node in nodes
        ],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": ramp_colour(layer, disk.layers),
            "size": [
                round(SMALLEST_NODE + NODE_RANGE * math.sqrt(disk.degree[node] / largest), 2)
                for node in nodes
            ],
            "opacity": 1,
            "line": {"color": NODE_OUTLINE, "width": 0.7},
        },
    }


def positions(disk: HyperbolicDisk) -> tuple[list[float], list[float]]:
    """Return Cartesian coordinates in the native disk, rounded to what a screen can show."""
    pairs = list(zip(disk.r, disk.theta, strict=True))
    return (
        [round(r * math.cos(theta), 4) for r, theta in pairs],
        [round(r * math.sin(theta), 4) for r, theta in pairs],
    )
