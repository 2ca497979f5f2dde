"""Charts of activity: operations a layer, firing rates a site, and runs that end in silence."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topospike.contracts import Settling
from topospike.report.charts.figure import (
    Figure,
    Layout,
    LegendEntry,
    Panel,
    Table,
    Trace,
    axis,
    layout,
    line,
    plain_text,
    share_axis,
    time_axis,
)
from topospike.report.folder import Run
from topospike.report.labels import (
    DEPTH_RAMP,
    NEUTRAL_COLOUR,
    Style,
    display_name,
    names_of,
    network_colour,
    ramp_colour,
    series_name,
    series_style,
    shortened,
)
from topospike.report.simulation import LayerBars, SiteRates, evaluations
from topospike.report.units import energy, percent, plain, si

BAR_HEIGHT, BAR_FRAME = 17, 62
LONGEST_LABEL = 20


def operations_figure(groups: tuple[LayerBars, ...]) -> Figure:
    """Draw the operations of every layer, one panel a method, one bar a network."""
    networks, methods = names_of(groups)
    layers = list(dict.fromkeys(bar.name for group in groups for bar in group.bars))
    top = max(bar.operations for group in groups for bar in group.bars) * 1.04 or 1.0
    height = BAR_FRAME + len(layers) * (8 + BAR_HEIGHT * len(networks))
    steps = {group.method: group.timestep for group in groups}
    panels = tuple(
        Panel(
            key=f"sops-{place}",
            title=f"{display_name(method)}, steps 1 to {steps[method]}",
            label=f"Operations per image of every layer, converted by {display_name(method)}.",
            traces=tuple(
                bar_trace(group, network_colour(group.network, networks))
                for group in reversed(groups)
                if group.method == method
            ),
            layout=layout(
                axis("operations per image", tickformat="~s", range=[0, top], nticks=5),
                axis(
                    "",
                    categoryorder="array",
                    categoryarray=[plain_text(name) for name in reversed(layers)],
                    tickvals=[plain_text(name) for name in layers],
                    ticktext=[plain_text(shortened(name, LONGEST_LABEL)) for name in layers],
                    ticks="",
                ),
                barmode="group",
                bargap=0.24,
                bargroupgap=0.06,
            ),
            height=height,
        )
        for place, method in enumerate(methods)
    )
    legend = [
        LegendEntry(display_name(name), "bar", Style(network_colour(name, networks)), name)
        for name in networks
    ]
    if any(bar.is_mac for group in groups for bar in group.bars):
        legend.append(LegendEntry("multiply-accumulates", "hatch", Style(NEUTRAL_COLOUR)))
    caption = (
        "Operations per image. Solid bars are synaptic operations: one spike crossing one existing "
        "link, one accumulate. Hatched bars are layers that are not fed by spikes and pay "
        "multiply-accumulates."
    )
    return Figure("sops", "Operations per layer", caption, panels, tuple(legend))


def bar_trace(group: LayerBars, colour: str) -> Trace:
    """Return the bars of one converted network; layers paid in MACs are hatched."""
    name = plain_text(series_name(group.network, group.method))
    texts = [
        f"<b>{plain_text(bar.name)}</b><br>{name}<br>"
        f"{si(bar.operations, '')} {'MAC' if bar.is_mac else 'SOP'} per image<br>"
        f"{si(bar.ann_macs, '')} MAC as an ANN<br>density {percent(bar.density)}"
        for bar in group.bars
    ]
    return {
        "type": "bar",
        "orientation": "h",
        "legendgroup": group.network,
        "y": [plain_text(bar.name) for bar in group.bars],
        "x": [bar.operations for bar in group.bars],
        "text": texts,
        "textposition": "none",
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": colour,
            "pattern": {
                "shape": ["/" if bar.is_mac else "" for bar in group.bars],
                "fillmode": "replace",
                "size": 6,
                "solidity": 0.45,
            },
        },
    }


def rates_figure(groups: tuple[SiteRates, ...]) -> Figure:
    """Draw the firing rate of every site over time, one panel a converted network."""
    top = max(max(rates, default=0.0) for group in groups for _, _, rates in group.sites)
    panels = tuple(
        Panel(
            key=f"rates-{place}",
            title=series_name(group.network, group.method),
            label=f"Spikes per neuron and time step of every site of "
            f"{series_name(group.network, group.method)}.",
            traces=tuple(rate_traces(group)),
            layout=layout(
                time_axis(group.timesteps[-1]),
                axis("spikes per neuron", range=[0, top * 1.06 or 1.0], nticks=6),
            ),
            height=260,
        )
        for place, group in enumerate(groups)
    )
    longest = max((group.sites for group in groups), key=len)
    legend = tuple(
        LegendEntry(
            name, "line", Style(ramp_colour(place, len(longest), DEPTH_RAMP), symbol="none"), name
        )
        for place, (name, _, _) in enumerate(longest)
    )
    caption = (
        "Spikes per neuron at each single step, one line a spiking site, coloured from the input "
        "(teal) to the output (orange)."
    )
    return Figure("rates", "Firing rate", caption, panels, legend)


def rate_traces(group: SiteRates) -> list[Trace]:
    """Return one line per site, coloured by depth."""
    return [
        line(
            name,
            group.timesteps,
            rates,
            style=Style(ramp_colour(place, len(group.sites), DEPTH_RAMP)),
            hover=[
                f"<b>{plain_text(name)}</b><br>{neurons} neurons<br>t = {t}<br>"
                f"{plain(rate)} spikes per neuron"
                for t, rate in zip(group.timesteps, rates, strict=True)
            ],
            width=1.8,
            markers=False,
        )
        for place, (name, neurons, rates) in enumerate(group.sites)
    ]


HEIGHT = 260


@dataclass(frozen=True, slots=True)
class Silence:
    """One converted network whose images were run until nothing fired."""

    network: str
    method: str
    settling: Settling
    ann_energy_joule: float


def silences(run: Run) -> tuple[Silence, ...]:
    """Return the converted networks that fall silent."""
    return tuple(
        Silence(network, method, result.settling, result.ann_energy_joule)
        for network, method, result in evaluations(run)
        if result.settling is not None
    )


def settling_figure(items: tuple[Silence, ...]) -> Figure:
    """Draw spikes a step, and the shares of images that are done after so many steps and joules."""
    networks, methods = names_of(items)
    looks = [series_style(i.network, i.method, networks=networks, methods=methods) for i in items]
    panels = (
        panel(
            "spikes",
            "Spikes falling to zero",
            [spikes_trace(item, look) for item, look in zip(items, looks, strict=True)],
            axis("time step t", rangemode="tozero"),
            axis("neurons that fire", rangemode="tozero", nticks=6),
        ),
        panel(
            "steps",
            "Steps an image takes",
            [
                share_trace(item, look, item.settling.steps, lambda t: f"t = {plain(t)}")
                for item, look in zip(items, looks, strict=True)
            ],
            axis("time step t", rangemode="tozero"),
            share_axis("images that are silent", range=[0, 1.03]),
        ),
        panel(
            "joules",
            "Energy an image takes",
            [
                share_trace(item, look, [x / item.ann_energy_joule for x in joules], percent)
                for item, look in zip(items, looks, strict=True)
                for joules in (item.settling.energy_joule,)
            ],
            share_axis("energy until silence, of the ANN's", rangemode="tozero"),
            share_axis("images that are silent", range=[0, 1.03]),
        ),
    )
    images = max(len(item.settling.steps) for item in items)
    caption = (
        f"{images} test images run one by one until no neuron fires; from then on nothing changes "
        "and nothing is spent. Images that were cut off before count as never silent."
    )
    table = Table(
        "Runs until silence",
        ("network", "steps: half", "9 of 10", "most", "energy: half", "9 of 10", "not silent"),
        tuple(row_of(item) for item in items),
    )
    return Figure("silence", "Until silence", caption, panels, tables=(table,))


def panel(key: str, title: str, traces: Sequence[Trace], x: Layout, y: Layout) -> Panel:
    """Return one panel of the figure."""
    return Panel(
        key=f"silence-{key}",
        title=title,
        label=f"{title}, one line a converted network. The numbers are in the table below.",
        traces=tuple(traces),
        layout=layout(x, y),
        height=HEIGHT,
    )


def spikes_trace(item: Silence, look: Style) -> Trace:
    """Return the mean number of neurons that fire at each step."""
    name = plain_text(series_name(item.network, item.method))
    spikes = item.settling.spikes
    return line(
        f"{item.network}|{item.method}",
        range(1, len(spikes) + 1),
        spikes,
        style=look,
        hover=[
            f"<b>{name}</b><br>t = {t}<br>{plain(count)} neurons fire"
            for t, count in enumerate(spikes, start=1)
        ],
    )


def share_trace(
    item: Silence, look: Style, spent: Sequence[float], written: Callable[[float], str]
) -> Trace:
    """Return the share of the images that had enough of what they spent, rising to 1.

    Examples
    --------
    >>> run = Settling((3, 2), (True, True), (2e-6, 1e-6), (8.0, 4.0, 0.0), 64)
    >>> item = Silence("dense", "sigma-delta", run, 1.0)
    >>> share_trace(item, Style("#000"), (3, 2), str)["y"]
    [0.5, 1.0]
    """
    name = plain_text(series_name(item.network, item.method))
    done = sorted(x for x, silent in zip(spent, item.settling.silent, strict=True) if silent)
    shares = [(place + 1) / len(spent) for place in range(len(done))]
    return line(
        f"{item.network}|{item.method}",
        done,
        shares,
        style=look,
        hover=[
            f"<b>{name}</b><br>{written(x)}<br>{percent(share, 1)} of the images are silent"
            for x, share in zip(done, shares, strict=True)
        ],
        markers=False,
    )


def row_of(item: Silence) -> tuple[str, ...]:
    """Return one line of the table."""
    run = item.settling
    steps, joules = sorted(run.steps), sorted(run.energy_joule)
    ninth = -(-9 * len(steps) // 10) - 1
    return (
        series_name(item.network, item.method),
        plain(statistics.median(steps)),
        str(steps[ninth]),
        str(steps[-1]),
        energy(statistics.median(joules)),
        energy(joules[ninth]),
        f"{run.silent.count(False)} of {len(run.silent)}",
    )
