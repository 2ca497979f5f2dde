"""Charts of accuracy and energy: trajectories over time as plotly panels."""

from __future__ import annotations

from topospike.report.chart import (
    Figure,
    LegendEntry,
    Panel,
    Table,
    Trace,
    layout,
    line,
    log_axis,
    plain_text,
    share_axis,
    time_axis,
)
from topospike.report.labels import (
    NEUTRAL_COLOUR,
    Style,
    display_name,
    names_of,
    network_colour,
    series_name,
    series_style,
)
from topospike.report.simulation import Trajectory, on_front
from topospike.report.units import energy, percent, round_energy

MARKED_SIZE, USUAL_SIZE = 12.0, 5.0
# The close-up: networks that end within five points of the best ANN, and a point below them.
NEAR, CLOSE_MARGIN = 0.05, 0.01


def point_texts(trajectory: Trajectory) -> list[str]:
    """Return what a reader sees when pointing at each time step of a trajectory."""
    name = plain_text(series_name(trajectory.network, trajectory.method))
    return [
        f"<b>{name}</b><br>t = {timestep}<br>accuracy {percent(accuracy)}<br>"
        f"energy {energy(joules)} per image"
        for timestep, accuracy, joules in zip(
            trajectory.timesteps, trajectory.accuracy, trajectory.energy_joule, strict=True
        )
    ]


def trajectory_legend(lines: tuple[Trajectory, ...]) -> list[LegendEntry]:
    """Return one entry per converted network."""
    networks, methods = names_of(lines)
    return [
        LegendEntry(
            series_name(item.network, item.method),
            "line",
            series_style(item.network, item.method, networks=networks, methods=methods),
            f"{item.network}|{item.method}",
        )
        for item in lines
    ]


def ann_references(lines: tuple[Trajectory, ...]) -> list[tuple[str, float, float]]:
    """List (network, ANN accuracy, ANN energy in joules), each distinct one once."""
    return list(
        dict.fromkeys((item.network, item.ann_accuracy, item.ann_energy_joule) for item in lines)
    )


def pareto_figure(lines: tuple[Trajectory, ...]) -> Figure:
    """Draw accuracy over energy, time running along each curve, with the ANNs as stars."""
    networks, methods = names_of(lines)
    traces = [pareto_trace(item, networks=networks, methods=methods) for item in lines]
    traces += [saturation_ring(item, networks) for item in lines if item.saturation_time]
    for network, accuracy, joules in ann_references(lines):
        traces.append(star(network, accuracy, joules, network_colour(network, networks)))
    marked = marked_label(lines)
    legend = [
        *trajectory_legend(lines),
        LegendEntry("ANN", "marker", Style(NEUTRAL_COLOUR, symbol="star"), "ann"),
        LegendEntry(marked, "marker", Style(NEUTRAL_COLOUR, symbol="circle")),
        LegendEntry("T0", "marker", Style(NEUTRAL_COLOUR, symbol="circle-open"), "t0"),
    ]
    panels = (
        Panel(
            key="pareto",
            title="",
            label="Accuracy over energy per image for every time step of every converted network, "
            "energy on a logarithmic axis. The numbers are in the table below the figure.",
            traces=tuple(traces),
            layout=layout(
                log_axis("energy per image", energies_above(lines, 0.0), written=round_energy),
                share_axis("test accuracy"),
            ),
            height=420,
        ),
        *close_up(lines, tuple(traces)),
    )
    caption = (
        "Each curve is one converted network; time runs from left to right, one marker a time "
        f"step. The large marker is {marked}, the ring the saturation time T0, the star the "
        "network run once as an ANN. Better is up and to the left."
    )
    return Figure(
        "pareto",
        "Accuracy against energy",
        caption,
        panels,
        tuple(legend),
        tuple(trajectory_table(item, index, lines) for index, item in enumerate(lines)),
        shape="wide",
    )


def energies_above(lines: tuple[Trajectory, ...], accuracy: float) -> list[float]:
    """List the energies, of ANNs too, of all points with at least this accuracy."""
    points = [
        point
        for item in lines
        for point in (
            *zip(item.energy_joule, item.accuracy, strict=True),
            (item.ann_energy_joule, item.ann_accuracy),
        )
    ]
    return [joules for joules, reached in points if reached >= accuracy]


def close_up(lines: tuple[Trajectory, ...], traces: tuple[Trace, ...]) -> tuple[Panel, ...]:
    """Enlarge the region near the best ANN, where the curves of good conversions lie together.

    Nothing when the curves stay there anyway. A network that ends more than ``NEAR`` below the
    best ANN does not widen the region.
    """
    best = max(item.ann_accuracy for item in lines)
    ends = [value for item in lines for value in (item.ann_accuracy, item.accuracy[-1])]
    low = min(value for value in ends if value >= best - NEAR) - CLOSE_MARGIN
    top = max(best, *(max(item.accuracy) for item in lines)) + CLOSE_MARGIN / 3
    if min(min(item.accuracy) for item in lines) >= low:
        return ()
    energies = energies_above(lines, low)
    panel = Panel(
        key="pareto-near",
        title="Close-up near the ANN",
        label="The same curves, enlarged to the accuracies near the best ANN.",
        traces=traces,
        layout=layout(
            log_axis("energy per image", energies, written=round_energy),
            share_axis("test accuracy", range=[low, top]),
        ),
        height=320,
    )
    return (panel,)


def marked_label(lines: tuple[Trajectory, ...]) -> str:
    """Name the marked time step: one for all, or one for each method."""
    steps = dict.fromkeys((item.method, item.marked) for item in lines)
    if len({step for _, step in steps}) == 1:
        return f"t = {lines[0].marked}"
    return ", ".join(f"t = {step} ({display_name(method)})" for method, step in steps)


def pareto_trace(item: Trajectory, *, networks: list[str], methods: list[str]) -> Trace:
    """Return one trajectory, larger at the marked time step."""
    return line(
        f"{item.network}|{item.method}",
        item.energy_joule,
        item.accuracy,
        style=series_style(item.network, item.method, networks=networks, methods=methods),
        hover=point_texts(item),
        marker_size=[MARKED_SIZE if t == item.marked else USUAL_SIZE for t in item.timesteps],
    )


def saturation_ring(item: Trajectory, networks: list[str]) -> Trace:
    """Return a ring around the point at T0."""
    place = item.timesteps.index(item.saturation_time or item.marked)
    text = point_texts(item)[place] + "<br>saturation time T0"
    return {
        "type": "scatter",
        "mode": "markers",
        "legendgroup": "t0",
        "x": [item.energy_joule[place]],
        "y": [item.accuracy[place]],
        "text": [text],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": network_colour(item.network, networks),
            "symbol": "circle-open",
            "size": 17,
            "line": {"width": 1.6},
        },
    }


def star(network: str, accuracy: float, joules: float, colour: str) -> Trace:
    """Return the reference point of one ANN."""
    text = (
        f"<b>{plain_text(display_name(network))} · ANN</b><br>accuracy {percent(accuracy)}<br>"
        f"energy {energy(joules)} per image"
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "legendgroup": "ann",
        "x": [joules],
        "y": [accuracy],
        "text": [text],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": colour, "symbol": "star", "size": 14},
    }


def trajectory_table(item: Trajectory, index: int, lines: tuple[Trajectory, ...]) -> Table:
    """Return the numbers behind one trajectory; a dot marks the points on the common front."""
    front = on_front(lines)
    rows = tuple(
        (
            str(timestep),
            percent(item.accuracy[place]),
            energy(item.energy_joule[place]),
            "yes" if (index, place) in front else "",
        )
        for place, timestep in enumerate(item.timesteps)
    )
    return Table(
        series_name(item.network, item.method), ("t", "accuracy", "energy", "on the front"), rows
    )


def accuracy_figure(lines: tuple[Trajectory, ...]) -> Figure:
    """Draw accuracy over the time step, with the ANN's accuracy as a thin level."""
    networks, methods = names_of(lines)
    traces = []
    for network, accuracy, _ in ann_references(lines):
        last = max(item.timesteps[-1] for item in lines)
        name = plain_text(display_name(network))
        level = line(
            "ann",
            [1, last],
            [accuracy, accuracy],
            style=Style(network_colour(network, networks), "dot"),
            hover=[f"<b>{name} · ANN</b><br>accuracy {percent(accuracy)}"] * 2,
            width=1.2,
            markers=False,
        )
        traces.append(level)
    for item in lines:
        style = series_style(item.network, item.method, networks=networks, methods=methods)
        key = f"{item.network}|{item.method}"
        traces.append(
            line(key, item.timesteps, item.accuracy, style=style, hover=point_texts(item))
        )
    panel = Panel(
        key="accuracy",
        title="",
        label="Test accuracy of every converted network at every time step, with the accuracy of "
        "its ANN. The numbers are in the table of the previous figure.",
        traces=tuple(traces),
        layout=layout(
            time_axis(max(item.timesteps[-1] for item in lines)), share_axis("test accuracy")
        ),
        height=360,
    )
    level_entry = LegendEntry("ANN", "line", Style(NEUTRAL_COLOUR, "dot", "none"), "ann")
    caption = "How fast each spiking network reaches its ANN (dotted level). Time is logarithmic."
    legend = (*trajectory_legend(lines), level_entry)
    return Figure("accuracy", "Accuracy over time", caption, (panel,), legend, shape="wide")
