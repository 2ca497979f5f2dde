"""The vocabulary of an interactive figure: panels, legend entries, and the layout they share.

A chart is a plain dictionary in plotly's JSON form, so that building one needs neither plotly nor
a browser. Text colours, grid colours and the background come from the page's style sheet, which is
what makes light, dark and print work without redrawing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from topospike.report.labels import Style, time_ticks

Trace = dict[str, Any]
Layout = dict[str, Any]

FONT = "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif"
MODEBAR = "#80858c"
DASH_ARRAYS = {"solid": "", "dash": "6 3.5", "dot": "2 3", "dashdot": "6 3 2 3"}


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One line of a legend; ``key`` is the ``legendgroup`` of the traces that it shows and hides.

    ``mark`` is ``line``, ``marker``, ``bar`` or ``hatch``; an empty key means that the entry
    explains and does not switch.
    """

    label: str
    mark: str
    style: Style
    key: str = ""

    @property
    def switches(self) -> bool:
        """Whether pressing the entry hides its series."""
        return bool(self.key)

    @property
    def dasharray(self) -> str:
        """The dash pattern as SVG writes it."""
        return DASH_ARRAYS[self.style.dash]


@dataclass(frozen=True, slots=True)
class Panel:
    """One plot. ``label`` says in words what it shows, for those who do not see it."""

    key: str
    title: str
    label: str
    traces: tuple[Trace, ...]
    layout: Layout
    height: int = 300


@dataclass(frozen=True, slots=True)
class Table:
    """A table of ready-made text; the first cell of a row is its heading."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """Panels side by side under one caption and one legend, with the numbers behind them.

    ``shape`` is empty, ``wide`` (panels below one another) or ``square``.
    """

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]
    legend: tuple[LegendEntry, ...] = ()
    tables: tuple[Table, ...] = ()
    shape: str = ""


def plain_text(text: str) -> str:
    """Escape what plotly would read as markup in names, labels and hover texts.

    Examples
    --------
    >>> plain_text("a<b> & c")
    'a&lt;b&gt; &amp; c'
    """
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def axis(title: str, **settings: Any) -> Layout:
    """Return an axis in the style of the page; ``settings`` are plotly's own axis attributes."""
    base: Layout = {
        "title": {"text": plain_text(title), "standoff": 8},
        "automargin": True,
        "zeroline": False,
        "showline": True,
        "linewidth": 1,
        "ticks": "outside",
        "ticklen": 4,
        "gridwidth": 1,
    }
    return {**base, **settings}


def time_axis(last: int) -> Layout:
    """Return the axis of the time step: logarithmic, ticks at the powers of two."""
    ticks = time_ticks(last)
    return axis("time step t", type="log", tickvals=ticks, ticktext=[str(tick) for tick in ticks])


def log_ticks(low: float, high: float) -> list[float]:
    """Return round numbers within [low, high], about four to nine of them.

    Examples
    --------
    >>> log_ticks(1, 300)
    [1.0, 3.0, 10.0, 30.0, 100.0, 300.0]
    >>> log_ticks(2e-7, 5e-7)
    [2e-07, 3e-07, 4e-07, 5e-07]
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found: list[float] = []
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        found = [float(f"{m}e{decade}") for decade in decades for m in mantissas]
        found = [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]
        if len(found) >= 4:
            break
    return found


def log_axis(
    title: str, values: Sequence[float], *, written: Callable[[Any], str], **settings: Any
) -> Layout:
    """Return a logarithmic axis around the positive ``values``, ticks in the words of a reader."""
    low = min(value for value in values if value > 0)
    high = max(values)
    margin = max((high / low) ** 0.04, 1.06)
    low, high = low / margin, high * margin
    ticks = log_ticks(low, high)
    texts = [written(int(tick) if tick >= 1 and tick.is_integer() else tick) for tick in ticks]
    ends = [math.log10(low), math.log10(high)]
    return axis(title, type="log", range=ends, tickvals=ticks, ticktext=texts, **settings)


def share_axis(title: str, **settings: Any) -> Layout:
    """Return an axis of shares, written in percent."""
    return axis(title, tickformat=".3~%", **settings)


def layout(x_axis: Layout, y_axis: Layout, **settings: Any) -> Layout:
    """Return the layout that every panel shares around its two axes."""
    base: Layout = {
        "xaxis": x_axis,
        "yaxis": y_axis,
        "font": {"family": FONT, "size": 12.5},
        "margin": {"l": 8, "r": 12, "t": 10, "b": 8},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "showlegend": False,
        "hovermode": "closest",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": MODEBAR, "activecolor": MODEBAR},
        "hoverlabel": {
            "bgcolor": "#22262b",
            "bordercolor": "#22262b",
            "align": "left",
            "font": {"family": FONT, "size": 13, "color": "#f4f2ee"},
        },
    }
    return {**base, **settings}


def line(
    key: str,
    x: Sequence[float],
    y: Sequence[float | None],
    *,
    style: Style,
    hover: Sequence[str],
    width: float = 2.0,
    marker_size: float | Sequence[float] = 5.5,
    markers: bool = True,
) -> Trace:
    """Return a line with markers; ``hover`` holds one ready-made text a point."""
    trace: Trace = {
        "type": "scatter",
        "mode": "lines+markers" if markers else "lines",
        "legendgroup": key,
        "x": list(x),
        "y": list(y),
        "text": list(hover),
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": style.colour, "width": width, "dash": style.dash},
    }
    if markers:
        trace["marker"] = {
            "color": style.colour,
            "symbol": style.symbol,
            "size": list(marker_size) if isinstance(marker_size, Sequence) else marker_size,
            "opacity": 1,
            "line": {"width": 0},
        }
    return trace
