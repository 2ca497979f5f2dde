"""The same figures as SVG files, for papers and README pages: matplotlib, one file a figure.

Drawn from the prepared data of this stage, on white, without any global matplotlib state.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from topospike.analysis.history import evolution
from topospike.analysis.report import Disk, TopologyReport
from topospike.contracts import write_atomically
from topospike.errors import require
from topospike.report.charts.accuracy import marked_label
from topospike.report.charts.network import layer_names
from topospike.report.folder import Run
from topospike.report.labels import (
    Style,
    display_name,
    names_of,
    network_colour,
    ramp_colour,
    series_name,
    series_style,
    shortened,
    time_ticks,
)
from topospike.report.simulation import LayerBars, Measured, Trajectory, layer_bars, trajectories

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE_STYLES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
MARKERS = {"circle": "o", "square": "s", "diamond": "D", "triangle-up": "^"}
LONGEST_LABEL = 30
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e1da",
    "grid.linewidth": 0.6,
    "axes.edgecolor": "#8d9096",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "topospike",
}


def write_svg_figures(run: Run) -> list[Path]:
    """Write the SVG files that the run has data for, and return their paths."""
    lines, bars, topology = trajectories(run), layer_bars(run), run.topology
    drawings: dict[str, Callable[[], Figure]] = {}
    if lines:
        drawings |= {"pareto": lambda: draw_pareto(lines), "accuracy": lambda: draw_accuracy(lines)}
    if bars:
        drawings["sops"] = lambda: draw_operations(bars)
    if topology is not None and topology.degrees.degree:
        drawings["degrees"] = lambda: draw_degrees(topology)
    if topology is not None and topology.disk is not None:
        disk, names = topology.disk, layer_names(topology)
        drawings["disk"] = lambda: draw_disk(disk, names=names)
    if run.history:
        drawings["evolution"] = lambda: evolution(run.history)
    written = []
    for name, draw in drawings.items():
        path = run.folder / "figures" / f"{name}.svg"
        with style():
            save(draw(), path)
        written.append(path)
    return written


@contextmanager
def style() -> Iterator[None]:
    """Use the style of this module and nothing else."""
    require("matplotlib", purpose="a figure")
    import matplotlib as mpl

    with mpl.rc_context(STYLE):
        yield


def save(figure: Figure, path: Path) -> None:
    """Write a figure without a date, so that the same run gives the same file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, bbox_inches="tight")
    write_atomically(path, buffer.getvalue())


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of its own, outside pyplot, with one set of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def draw_pareto(lines: tuple[Trajectory, ...]) -> Figure:
    """Draw the metric over energy, time running along the curves."""
    from matplotlib.ticker import EngFormatter

    networks, methods = names_of(lines)
    figure, axes = new_axes(6.4, 4.0)
    for item in lines:
        look = series_style(item.network, item.method, networks=networks, methods=methods)
        name = series_name(item.network, item.method)
        plot_line(axes, item.energy_joule, item.values, look, name)
        place = item.timesteps.index(item.marked)
        point = (item.energy_joule[place], item.values[place])
        axes.plot(*point, MARKERS[look.symbol], color=look.colour, markersize=8)
    for network in networks:
        item = next(line for line in lines if line.network == network)
        axes.plot(
            item.ann_energy_joule,
            item.ann_value,
            "*",
            color=network_colour(network, networks),
            markersize=12,
            label=verbatim(f"{display_name(network)} · ANN"),
        )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(EngFormatter("J"))
    scale(axes, lines[0].measured)
    axes.set(xlabel=f"energy per {lines[0].measured.example}")
    axes.set_title(verbatim(f"large marker: {marked_label(lines)}"), fontsize=8, loc="left")
    axes.legend()
    return figure


def draw_accuracy(lines: tuple[Trajectory, ...]) -> Figure:
    """Draw the metric over the time step, with the ANN as a level."""
    networks, methods = names_of(lines)
    figure, axes = new_axes(6.4, 3.6)
    for network in networks:
        item = next(line for line in lines if line.network == network)
        colour = network_colour(network, networks)
        name = verbatim(f"{display_name(network)} · ANN")
        axes.axhline(item.ann_value, color=colour, linestyle=":", linewidth=1, label=name)
    for item in lines:
        look = series_style(item.network, item.method, networks=networks, methods=methods)
        name = series_name(item.network, item.method)
        plot_line(axes, item.timesteps, item.values, look, name)
    ticks = time_ticks(max(item.timesteps[-1] for item in lines))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    scale(axes, lines[0].measured)
    axes.set(xlabel="time step t")
    axes.legend()
    return figure


def scale(axes: Axes, measured: Measured) -> None:
    """Write the axis of the metric: shares in per cent, perplexities on a logarithmic scale."""
    from matplotlib.ticker import PercentFormatter

    axes.set_ylabel(f"test {measured.words}")
    if measured.is_share:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    elif measured.name == "perplexity":
        axes.set_yscale("log")


def plot_line(
    axes: Axes, x: tuple[float, ...] | tuple[int, ...], y: tuple[float, ...], look: Style, name: str
) -> None:
    """Draw one series in its colour, dash and symbol."""
    axes.plot(
        x,
        y,
        LINE_STYLES[look.dash],
        marker=MARKERS[look.symbol],
        color=look.colour,
        markersize=3.2,
        linewidth=1.5,
        label=verbatim(name),
    )


def verbatim(name: str) -> str:
    r"""Keep a label short and literal: no mathematics between dollar signs, no hiding underscore.

    Examples
    --------
    >>> verbatim("_a$b$")
    '\u200b_a\\$b\\$'
    """
    name = shortened(name, LONGEST_LABEL)
    return ("\u200b" if name.startswith("_") else "") + name.replace("$", r"\$")


def draw_operations(groups: tuple[LayerBars, ...]) -> Figure:
    """Draw the operations of every layer, one column a method; hatched bars are MACs."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    networks, methods = names_of(groups)
    steps = {group.method: group.timestep for group in groups}
    layers = list(dict.fromkeys(bar.name for group in groups for bar in group.bars))
    thickness = 0.8 / len(networks)
    height = 1.2 + len(layers) * (0.12 + 0.17 * len(networks))
    figure = Figure(figsize=(3.2 * len(methods) + 1.6, max(height, 2.2)), layout="constrained")
    columns = figure.subplots(1, len(methods), sharex=True, sharey=True, squeeze=False)[0]
    for group in groups:
        axes = columns[methods.index(group.method)]
        offset = (networks.index(group.network) - (len(networks) - 1) / 2) * thickness
        colour = network_colour(group.network, networks)
        for bar in group.bars:
            axes.barh(
                layers.index(bar.name) + offset,
                bar.operations,
                thickness * 0.92,
                color="white" if bar.is_mac else colour,
                edgecolor=colour,
                linewidth=0.6,
                hatch="/////" if bar.is_mac else None,
            )
    for axes, method in zip(columns, methods, strict=True):
        axes.set_title(
            f"{verbatim(display_name(method))}, t = {steps[method]}", fontsize=9, loc="left"
        )
        axes.set_xlabel("operations per image")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.grid(visible=False, axis="y")
    columns[0].set_yticks(range(len(layers)), [verbatim(name) for name in layers])
    columns[0].invert_yaxis()
    add_operations_legend(columns[-1], networks)
    return figure


def add_operations_legend(axes: Axes, networks: list[str]) -> None:
    """Explain the colours and the hatching."""
    from matplotlib.patches import Patch

    handles = [
        Patch(color=network_colour(name, networks), label=verbatim(display_name(name)))
        for name in networks
    ]
    hatched = Patch(facecolor="white", edgecolor="#80858c", hatch="/////", label="MACs")
    axes.legend(handles=[*handles, hatched])


def draw_degrees(report: TopologyReport) -> Figure:
    """Draw the degree distribution with its power law."""
    degrees = report.degrees
    figure, axes = new_axes(4.6, 3.6)
    axes.loglog(degrees.degree, degrees.share, "o", markersize=3.5, color="#5f7d9c", label="nodes")
    if report.gamma is not None:
        label = f"power law, gamma = {report.gamma:.2f}, from k = {report.xmin}"
        axes.loglog(degrees.fit_degree, degrees.fit_share, color="#d1432f", label=label)
    axes.set(xlabel="degree k", ylabel="share of nodes with degree >= k")
    axes.legend()
    return figure


def draw_disk(disk: Disk, *, names: tuple[str, ...]) -> Figure:
    """Draw the hyperbolic disk: native radii, straight links, largest degree on top."""
    import numpy as np
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    theta, r = np.asarray(disk.theta), np.asarray(disk.r)
    points = np.stack([r * np.cos(theta), r * np.sin(theta)], axis=1)
    degree = np.asarray(disk.degree)
    figure, axes = new_axes(5.2, 5.2)
    rim = float(r.max())
    axes.add_patch(Circle((0, 0), rim, fill=False, edgecolor="#8d9096", linewidth=0.8))
    if disk.edges:
        segments = list(points[np.asarray(disk.edges)])
        axes.add_collection(LineCollection(segments, colors="#c9cbd0", linewidths=0.25, zorder=1))
    order = np.argsort(degree, kind="stable")
    colours = [ramp_colour(layer, len(names)) for layer in disk.layer]
    axes.scatter(
        *points[order].T,
        s=10 + 70 * np.sqrt(degree[order] / degree.max()),
        c=[colours[node] for node in order],
        edgecolors="#22262b",
        linewidths=0.4,
        zorder=2,
    )
    axes.set(aspect="equal", xlim=(-1.05 * rim, 1.05 * rim), ylim=(-1.05 * rim, 1.05 * rim))
    axes.set_axis_off()
    for layer, name in enumerate(names):
        colour, label = ramp_colour(layer, len(names)), verbatim(name)
        axes.plot([], [], "o", color=colour, markeredgecolor="#22262b", label=label)
    figure.legend(loc="outside lower center", ncols=min(len(names), 2))
    return figure
