"""Charts of networks that read frames: accuracy while they arrive, and a recording's raster."""

from __future__ import annotations

from dataclasses import replace

from topospike.contracts import Raster
from topospike.report.charts.figure import (
    Figure,
    LegendEntry,
    Panel,
    Table,
    Trace,
    axis,
    layout,
    line,
    plain_text,
    share_axis,
)
from topospike.report.folder import Run
from topospike.report.labels import (
    DEPTH_RAMP,
    Style,
    names_of,
    ramp_colour,
    series_name,
    series_style,
)
from topospike.report.simulation import Simulated, evaluations
from topospike.report.units import percent, si

GAP = 12
"""Empty lines between two populations of a raster."""


def arrivals(run: Run) -> tuple[Simulated, ...]:
    """Return the networks that read frames, those beside an ANN first."""
    found = [item for item in evaluations(run) if "input" in item.result.conventions]
    return tuple(sorted(found, key=lambda item: not item.result.ann_accuracy_per_step))


def arrivals_figure(items: tuple[Simulated, ...]) -> Figure:
    """Draw accuracy over the steps in which frames arrive, and what the ANN says meanwhile."""
    networks, methods = names_of(items)
    looks = [series_style(i.network, i.method, networks=networks, methods=methods) for i in items]
    traces = [curve(item, look) for item, look in zip(items, looks, strict=True)]
    legend = [
        LegendEntry(series_name(i.network, i.method), "line", look, f"{i.network}|{i.method}")
        for i, look in zip(items, looks, strict=True)
    ]
    for network in networks:
        of_ann = [i for i in items if i.network == network and i.result.ann_accuracy_per_step]
        if of_ann:
            look = looks[items.index(of_ann[0])]
            style = replace(look, dash="dot", symbol="none")
            traces.append(ann_curve(of_ann[0], style))
            legend.append(LegendEntry(f"{network}, ANN", "line", style, f"{network}|ann"))
    panel = Panel(
        key="arrivals",
        title="",
        label="Accuracy over time steps while frames arrive, spiking networks and their ANNs.",
        traces=tuple(traces),
        layout=layout(axis("time step t", rangemode="tozero"), share_axis("test accuracy")),
        height=340,
    )
    caption = (
        "Accuracy after step t. A dotted line is the ANN shown the mean of the frames that have "
        "arrived by then: no spiking network that reads frame t at step t knows more."
    )
    table = events_table(items)
    return Figure("arrivals", "While frames arrive", caption, (panel,), tuple(legend), (table,))


def curve(item: Simulated, look: Style) -> Trace:
    """Return the accuracy of a spiking network."""
    name, result = plain_text(series_name(item.network, item.method)), item.result
    points = list(zip(result.timesteps, result.accuracy, strict=True))
    hover = [f"<b>{name}</b><br>t = {t}<br>accuracy {percent(accuracy)}" for t, accuracy in points]
    key = f"{item.network}|{item.method}"
    return line(key, result.timesteps, result.accuracy, style=look, hover=hover)


def ann_curve(item: Simulated, style: Style) -> Trace:
    """Return what the ANN says of what has arrived."""
    values = item.result.ann_accuracy_per_step
    hover = [
        f"<b>{plain_text(item.network)}, ANN</b><br>frames to t = {t}<br>accuracy {percent(value)}"
        for t, value in enumerate(values, start=1)
    ]
    steps = range(1, len(values) + 1)
    return line(f"{item.network}|ann", steps, values, style=style, hover=hover, markers=False)


def events_table(items: tuple[Simulated, ...]) -> Table:
    """Return the events that enter the network and leave each of its sites, over all steps."""
    sites = list(dict.fromkeys(site.name for item in items for site in item.result.sites))
    rows = []
    for item in items:
        sent = {s.name: s.neurons * sum(s.firing_rate) for s in item.result.sites}
        entered = item.result.input_events
        rows.append(
            (
                series_name(item.network, item.method),
                si(entered[-1], "") if entered else "numbers",
                *(si(sent[name], "") if name in sent else "" for name in sites),
            )
        )
    steps = max(item.result.timesteps[-1] for item in items)
    caption = f"Events per recording up to t = {steps}: those of the input, and of each site"
    return Table(caption, ("network", "input", *sites), tuple(rows))


def raster_figure(network: str, method: str, raster: Raster) -> Figure:
    """Draw every event of one test recording, one band a population, the input at the bottom."""
    traces, ticks, texts, base = [], [], [], 0
    for place, row in enumerate(raster.rows):
        colour = ramp_colour(place, len(raster.rows), DEPTH_RAMP)
        traces.append(
            {
                "type": "scattergl",
                "mode": "markers",
                "x": list(row.t),
                "y": [base + number for number in row.neuron],
                "hoverinfo": "skip",
                "marker": {"color": colour, "size": 2.5, "symbol": "square"},
            }
        )
        ticks.append(base + row.shown / 2)
        texts.append(plain_text(f"{row.name} ({row.neurons})"))
        base += row.shown + GAP
    panel = Panel(
        key="raster",
        title=series_name(network, method),
        label="Every event of one test recording over time, one band a population of neurons.",
        traces=tuple(traces),
        layout=layout(
            axis("time step t", range=[0.5, raster.timesteps + 0.5]),
            axis("", tickvals=ticks, ticktext=texts, ticks="", showgrid=False),
        ),
        height=420,
    )
    caption = (
        "The first test recording: a mark is an event of a pixel or a spike of a neuron. Of large "
        "populations 400 evenly spread neurons are drawn."
    )
    counted = tuple((r.name, str(r.neurons), str(r.shown), str(len(r.t))) for r in raster.rows)
    table = Table("Events drawn", ("population", "neurons", "drawn", "events"), counted)
    return Figure("raster", "One recording", caption, (panel,), tables=(table,))
