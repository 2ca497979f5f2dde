"""Charts of activity: operations per layer and firing rates per site as plotly panels."""

from __future__ import annotations

from topospike.report.chart import (
    Figure,
    LegendEntry,
    Panel,
    Trace,
    axis,
    layout,
    line,
    plain_text,
    time_axis,
)
from topospike.report.labels import (
    DEPTH_RAMP,
    NEUTRAL_COLOUR,
    Style,
    display_name,
    names_of,
    network_colour,
    ramp_colour,
    series_name,
    shortened,
)
from topospike.report.simulation import LayerBars, SiteRates
from topospike.report.units import percent, plain, si

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
