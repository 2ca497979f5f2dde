"""Charts of accuracy, or another metric, and energy: trajectories over time as plotly panels."""

from __future__ import annotations

from topospike.report.charts.figure import (
    Figure,
    Layout,
    LegendEntry,
    Panel,
    Table,
    Trace,
    layout,
    line,
    log_axis,
    plain_text,
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
from topospike.report.simulation import Measured, Trajectory, on_front
from topospike.report.units import energy, round_energy

MARKED_SIZE, USUAL_SIZE = 12.0, 5.0
# The close-up: networks that end within five points of the best ANN, and a point below them.
NEAR, CLOSE_MARGIN = 0.05, 0.01


def point_texts(trajectory: Trajectory) -> list[str]:
    """Return what a reader sees when pointing at each time step of a trajectory."""
    name = plain_text(series_name(trajectory.network, trajectory.method))
    measured = trajectory.measured
    return [
        f"<b>{name}</b><br>t = {timestep}<br>{measured.words} {measured.written(value)}<br>"
        f"energy {energy(joules)} per {measured.example}"
        for timestep, value, joules in zip(
            trajectory.timesteps, trajectory.values, trajectory.energy_joule, strict=True
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
    """List (network, value of the ANN, its energy in joules), each distinct one once."""
    return list(
        dict.fromkeys((item.network, item.ann_value, item.ann_energy_joule) for item in lines)
    )


def values_of(lines: tuple[Trajectory, ...]) -> list[float]:
    """List all values that a figure shows, of ANNs too."""
    return [value for item in lines for value in (*item.values, item.ann_value)]


def pareto_figure(lines: tuple[Trajectory, ...]) -> Figure:
    """Draw the metric over energy, time running along each curve, with the ANNs as stars."""
    networks, methods = names_of(lines)
    measured = lines[0].measured
    traces = [pareto_trace(item, networks=networks, methods=methods) for item in lines]
    traces += [saturation_ring(item, networks) for item in lines if item.saturation_time]
    for network, value, joules in ann_references(lines):
        colour = network_colour(network, networks)
        traces.append(star(network, (joules, value), colour, measured))
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
            label=f"{measured.title} over energy per {measured.example} for every time step of "
            "every converted network, energy on a logarithmic axis. The numbers are in the table "
            "below the figure.",
            traces=tuple(traces),
            layout=layout(
                energy_axis([*energies_of(lines)], measured),
                measured.axis(values_of(lines)),
            ),
            height=420,
        ),
        *close_up(lines, tuple(traces)),
    )
    caption = (
        "Each curve is one converted network; time runs from left to right, one marker a time "
        f"step. The large marker is {marked}, the ring the saturation time T0, the star the "
        f"network run once as an ANN. Better is {'down' if measured.lower_is_better else 'up'} and "
        "to the left."
    )
    return Figure(
        "pareto",
        f"{measured.title} against energy",
        caption,
        panels,
        tuple(legend),
        tuple(trajectory_table(item, index, lines) for index, item in enumerate(lines)),
        shape="wide",
    )


def energy_axis(energies: list[float], measured: Measured) -> Layout:
    """Return the logarithmic axis of energies."""
    return log_axis(f"energy per {measured.example}", energies, written=round_energy)


def energies_of(lines: tuple[Trajectory, ...], least: float | None = None) -> list[float]:
    """List the energies, of ANNs too, of all points, or of those with at least this value."""
    points = [
        point
        for item in lines
        for point in (
            *zip(item.energy_joule, item.values, strict=True),
            (item.ann_energy_joule, item.ann_value),
        )
    ]
    return [joules for joules, reached in points if least is None or reached >= least]


def close_up(lines: tuple[Trajectory, ...], traces: tuple[Trace, ...]) -> tuple[Panel, ...]:
    """Enlarge the region near the best ANN, where the curves of good conversions lie together.

    Nothing when the curves stay there anyway, or are no shares. A network that ends more than
    ``NEAR`` below the best ANN does not widen the region.
    """
    measured = lines[0].measured
    if not measured.is_share:
        return ()
    best = max(item.ann_value for item in lines)
    ends = [value for item in lines for value in (item.ann_value, item.values[-1])]
    low = min(value for value in ends if value >= best - NEAR) - CLOSE_MARGIN
    top = max(best, *(max(item.values) for item in lines)) + CLOSE_MARGIN / 3
    if min(min(item.values) for item in lines) >= low:
        return ()
    panel = Panel(
        key="pareto-near",
        title="Close-up near the ANN",
        label="The same curves, enlarged to what is near the best ANN.",
        traces=traces,
        layout=layout(
            energy_axis(energies_of(lines, low), measured),
            {**measured.axis(()), "range": [low, top]},
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
        item.values,
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
        "y": [item.values[place]],
        "text": [text],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": network_colour(item.network, networks),
            "symbol": "circle-open",
            "size": 17,
            "line": {"width": 1.6},
        },
    }


def star(network: str, place: tuple[float, float], colour: str, measured: Measured) -> Trace:
    """Return the reference point of one ANN at (energy, value)."""
    joules, value = place
    text = (
        f"<b>{plain_text(display_name(network))} · ANN</b><br>{measured.words} "
        f"{measured.written(value)}<br>energy {energy(joules)} per {measured.example}"
    )
    return {
        "type": "scatter",
        "mode": "markers",
        "legendgroup": "ann",
        "x": [joules],
        "y": [value],
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
            item.measured.written(item.values[place]),
            energy(item.energy_joule[place]),
            "yes" if (index, place) in front else "",
        )
        for place, timestep in enumerate(item.timesteps)
    )
    return Table(
        series_name(item.network, item.method),
        ("t", item.measured.words, "energy", "on the front"),
        rows,
    )


def accuracy_figure(lines: tuple[Trajectory, ...]) -> Figure:
    """Draw the metric over the time step, with the ANN's value as a thin level."""
    networks, methods = names_of(lines)
    measured, traces = lines[0].measured, []
    for network, value, _ in ann_references(lines):
        last = max(item.timesteps[-1] for item in lines)
        name = plain_text(display_name(network))
        level = line(
            "ann",
            [1, last],
            [value, value],
            style=Style(network_colour(network, networks), "dot"),
            hover=[f"<b>{name} · ANN</b><br>{measured.words} {measured.written(value)}"] * 2,
            width=1.2,
            markers=False,
        )
        traces.append(level)
    for item in lines:
        style = series_style(item.network, item.method, networks=networks, methods=methods)
        key = f"{item.network}|{item.method}"
        traces.append(line(key, item.timesteps, item.values, style=style, hover=point_texts(item)))
    panel = Panel(
        key="accuracy",
        title="",
        label=f"Test {measured.words} of every converted network at every time step, with that of "
        "its ANN. The numbers are in the table of the previous figure.",
        traces=tuple(traces),
        layout=layout(
            time_axis(max(item.timesteps[-1] for item in lines)), measured.axis(values_of(lines))
        ),
        height=360,
    )
    level_entry = LegendEntry("ANN", "line", Style(NEUTRAL_COLOUR, "dot", "none"), "ann")
    caption = "How fast each spiking network reaches its ANN (dotted level). Time is logarithmic."
    legend = (*trajectory_legend(lines), level_entry)
    return Figure(
        "accuracy", f"{measured.title} over time", caption, (panel,), legend, shape="wide"
    )
