"""Stage analyse: figures of a topology, returned to the caller.

Made with `matplotlib.figure.Figure` alone: no pyplot, no global state, safe without a display.
Save one with ``figure.savefig(path)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from topospike.analysis.embedding.hyperbolic import Embedding
from topospike.analysis.report import DegreeDistribution, Disk, TopologyReport
from topospike.errors import ConfigError, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINK_COLOUR = "0.82"
RAMP = ("#c8102e", "#f2c01e", "#1f4e9c")
"""First layer red, middle yellow, last blue, as in the paper's figure 3."""
GEODESIC_POINTS = 24


def layer_colours(layers: int) -> Float[np.ndarray, "layer 3"]:
    """RGB of each layer, interpolated from red over yellow to blue.

    Examples
    --------
    >>> layer_colours(3).shape
    (3, 3)
    """
    anchors = np.array([list(bytes.fromhex(colour[1:])) for colour in RAMP]) / 255
    at = np.linspace(0, 2, layers) if layers > 1 else np.zeros(1)
    return np.stack([np.interp(at, [0, 1, 2], anchors[:, k]) for k in range(3)], axis=1)


def hyperbolic_disk(
    source: TopologyReport | Embedding, *, model: str = "native", links: str = "straight"
) -> Figure:
    """Draw the hyperbolic disk: red -> yellow -> blue by layer, the largest degree on top.

    Parameters
    ----------
    source
        A report (draws its sample of links), or an embedding (draws every link).
    model
        ``native``: radius r; ``poincare``: radius tanh(r / 2).
    links
        ``straight`` segments, or ``geodesic`` arcs of the hyperbolic plane.

    Raises
    ------
    ConfigError
        If the report has no disk, or an option is unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import analyse
    >>> report = analyse([np.random.default_rng(0).random((20, 20)) < 0.2], nulls=0)
    >>> hyperbolic_disk(report).axes[0].get_aspect()
    1.0
    """
    figure, axes = new_figure(6.0, 6.0)
    draw_disk(axes, source, model=model, links=links)
    return figure


def draw_disk(
    axes: Axes,
    source: TopologyReport | Embedding,
    *,
    model: str = "native",
    links: str = "straight",
) -> None:
    """Draw the disk of `hyperbolic_disk` into given axes."""
    from matplotlib.collections import LineCollection
    from matplotlib.patches import Circle

    theta, r, layer, degree, edges, layers, rim = disk_columns(source)
    if model not in ("native", "poincare") or links not in ("straight", "geodesic"):
        raise ConfigError(
            f"model={model!r}, links={links!r}: model is 'native' or 'poincare', links are "
            "'straight' or 'geodesic'."
        )
    radius, border = (r, rim) if model == "native" else (np.tanh(r / 2), 1.0)
    xy = polar_to_xy(theta, radius)
    if links == "straight":
        lines = list(xy[edges])
    else:
        poincare = polar_to_xy(theta, np.tanh(r / 2))
        lines = [geodesic(poincare[i], poincare[j], native=model == "native") for i, j in edges]
    axes.add_patch(Circle((0, 0), border, fill=False, edgecolor="0.4", linewidth=0.8))
    axes.add_collection(LineCollection(lines, colors=LINK_COLOUR, linewidths=0.3, zorder=1))
    order = np.argsort(degree, kind="stable")
    colours = layer_colours(layers)
    axes.scatter(
        *xy[order].T,
        s=8 + 14 * np.log(degree[order]),
        c=colours[layer[order]],
        edgecolors="black",
        linewidths=0.3,
        zorder=2,
    )
    mark_layers(axes, layers, colours)
    axes.set(aspect="equal", xlim=(-1.03 * border, 1.03 * border))
    axes.set(ylim=(-1.03 * border, 1.03 * border))
    axes.set_axis_off()


def disk_columns(
    source: TopologyReport | Embedding,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, float]:
    """Return (theta, r, layer, degree, edges, number of layers, rim radius) of either source."""
    if isinstance(source, Embedding):
        graph = source.graph
        rim = 2 * np.log(graph.n_nodes)
        columns = (source.theta, source.r, graph.layers, graph.degrees, graph.edges)
        return (*columns, len(graph.sizes), rim)
    if source.disk is None:
        raise ConfigError(f"the report has no hyperbolic disk to draw: {' '.join(source.notes)}")
    disk: Disk = source.disk
    edges = np.array(disk.edges, dtype=np.int64).reshape(-1, 2)
    columns = (np.array(disk.theta), np.array(disk.r), np.array(disk.layer), np.array(disk.degree))
    return (*columns, edges, len(source.graph.sizes), 2 * np.log(len(disk.theta)))


def polar_to_xy(
    theta: Float[np.ndarray, " node"], radius: Float[np.ndarray, " node"]
) -> Float[np.ndarray, "node 2"]:
    """Cartesian coordinates of polar ones."""
    return np.stack([radius * np.cos(theta), radius * np.sin(theta)], axis=1)


def geodesic(
    p: Float[np.ndarray, " 2"], q: Float[np.ndarray, " 2"], *, native: bool
) -> Float[np.ndarray, "point 2"]:
    """Points along the hyperbolic line from p to q, both given in the Poincare disk.

    Notes
    -----
    The line is the arc of the circle that meets the rim at right angles: its centre c solves
    2 c.p = 1 + |p|^2 and 2 c.q = 1 + |q|^2, its radius^2 is |c|^2 - 1; the shorter arc is taken. It
    is straight when p, q and the origin lie on one line. ``native`` maps each point back to native
    coordinates, radius 2 artanh(rho).

    Examples
    --------
    >>> import numpy as np
    >>> arc = geodesic(np.array([0.5, 0.0]), np.array([0.0, 0.5]), native=False)
    >>> bool(np.hypot(*arc[len(arc) // 2]) < 0.35)
    True
    """
    cross = p[0] * q[1] - p[1] * q[0]
    if abs(cross) < 1e-12:
        points = p + np.linspace(0, 1, GEODESIC_POINTS)[:, None] * (q - p)
    else:
        centre = np.linalg.solve(2 * np.stack([p, q]), 1 + np.array([p @ p, q @ q]))
        radius = np.sqrt(max(centre @ centre - 1, 0.0))
        start, end = (np.arctan2(*(point - centre)[::-1]) for point in (p, q))
        turn = (end - start + np.pi) % (2 * np.pi) - np.pi
        angle = start + np.linspace(0, turn, GEODESIC_POINTS)
        points = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        points[[0, -1]] = p, q
    if not native:
        return points
    rho = np.minimum(np.hypot(*points.T), 1 - 1e-15)
    scale = np.divide(2 * np.arctanh(rho), rho, out=np.full_like(rho, 2.0), where=rho > 0)
    return points * scale[:, None]


def degree_ccdf(source: TopologyReport) -> Figure:
    """Draw the share of neurons with degree >= k on log-log axes, with the fitted power law.

    Raises
    ------
    ConfigError
        If the topology of the report has no link.
    """
    points: DegreeDistribution = source.degrees
    if not points.degree:
        raise ConfigError("the report has no degree to draw: its topology has no link.")
    figure, axes = new_figure(5.0, 4.0)
    axes.loglog(points.degree, points.share, "o", markersize=3.5, color="0.35", label="neurons")
    if points.fit_degree and source.gamma is not None and source.sigma is not None:
        bound = ", at the bound of the fit" if source.at_bound else ""
        label = f"gamma = {source.gamma:.2f} ± {source.sigma:.2f} (k >= {source.xmin}{bound})"
        axes.loglog(points.fit_degree, points.fit_share, color=RAMP[0], label=label)
    axes.set(xlabel="degree k", ylabel="share of neurons with degree >= k")
    axes.legend(frameon=False)
    return figure


def adjacency_spy(source: TopologyReport | Embedding) -> Figure:
    """Draw the adjacency matrix with the nodes ordered by their angle.

    Links between angular neighbours fall near the diagonal; dots are coloured by the deeper (later)
    layer of the link. A report draws its sample of links, an embedding every link.

    Raises
    ------
    ConfigError
        If the report has no disk.
    """
    theta, _, layer, _, edges, layers, _ = disk_columns(source)
    n = len(theta)
    position = np.empty(n, dtype=np.int64)
    position[np.argsort(theta, kind="stable")] = np.arange(n)
    ends = position[edges]
    colours = layer_colours(layers)
    later = layer[edges].max(axis=1)
    figure, axes = new_figure(5.0, 5.0)
    for column, row in ((0, 1), (1, 0)):
        axes.scatter(ends[:, column], ends[:, row], s=1.0, c=colours[later], linewidths=0)
    axes.set(aspect="equal", xlim=(-0.5, n - 0.5), ylim=(n - 0.5, -0.5))
    axes.set(xlabel="neuron, by angle", ylabel="neuron, by angle")
    return figure


def mark_layers(axes: Axes, layers: int, colours: Float[np.ndarray, "layer 3"]) -> None:
    """Add a legend of the layers."""
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", linestyle="", color=tuple(colour), label=f"layer {k}")
        for k, colour in enumerate(colours[:layers])
    ]
    axes.legend(handles=marks, frameon=False, loc="upper left", fontsize="small")


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty figure of this size in inches with one pair of axes."""
    figure = empty_figure(width, height)
    return figure, figure.add_subplot()


def empty_figure(width: float, height: float) -> Figure:
    """Return a figure of this size in inches with nothing in it."""
    require("matplotlib", purpose="a figure")
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
