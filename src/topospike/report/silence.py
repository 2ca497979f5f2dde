"""Charts of networks that fall silent: spikes a step, and what single images took."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from topospike.contracts import Settling
from topospike.report.chart import (
    Figure,
    Layout,
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
from topospike.report.labels import Style, names_of, series_name, series_style
from topospike.report.simulation import evaluations
from topospike.report.units import energy, percent, plain

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
