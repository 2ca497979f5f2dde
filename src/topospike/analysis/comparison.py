"""Stage analyse: several topologies side by side, such as random, SET, CHT and DepGraph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from topospike.analysis.figures import draw_disk, empty_figure, layer_colours, new_figure
from topospike.analysis.report import TopologyReport
from topospike.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class ComparisonRow:
    """The headline numbers of one topology; None where the report has none.

    ``sigma`` is the standard error of gamma; ``small_world`` and ``omega`` are the small-worldness.
    """

    name: str
    sizes: tuple[int, ...]
    links: int
    largest_share: float
    gamma: float | None
    sigma: float | None
    at_bound: bool | None
    gamma_null: float | None
    xmin: int | None
    n_tail: int | None
    anp: float
    anp_hidden: float | None
    meta_depth: float | None
    gini_z: float | None
    meta_deep: bool | None
    deepest_layer: int | None
    small_world: float | None
    omega: float | None
    path_length: float | None
    separation: float | None
    separation_p: float | None
    modularity: float | None


def compare(reports: Mapping[str, TopologyReport]) -> tuple[ComparisonRow, ...]:
    """Put the headline numbers of several reports into rows, in the order given.

    Examples
    --------
    >>> import numpy as np
    >>> from topospike.analysis import analyse
    >>> masks = [np.random.default_rng(0).random((20, 20)) < 0.2]
    >>> (row,) = compare({"random": analyse(masks, nulls=2)})
    >>> row.name, row.meta_deep
    ('random', False)
    """
    return tuple(comparison_row(name, report) for name, report in reports.items())


def comparison_row(name: str, report: TopologyReport) -> ComparisonRow:
    """Pick the headline numbers of one report."""
    depth, world = report.meta_depth, report.small_world
    return ComparisonRow(
        name=name,
        sizes=report.graph.sizes,
        links=report.graph.links,
        largest_share=report.graph.largest_share,
        gamma=report.gamma,
        sigma=report.sigma,
        at_bound=report.at_bound,
        gamma_null=report.gamma_null.mean if report.gamma_null else None,
        xmin=report.xmin,
        n_tail=report.n_tail,
        anp=report.anp,
        anp_hidden=report.anp_hidden,
        meta_depth=depth.index if depth else None,
        gini_z=depth.pooled_gini.z if depth else None,
        meta_deep=depth.meta_deep if depth else None,
        deepest_layer=depth.deepest_layer if depth else None,
        small_world=world.sigma if world else None,
        omega=world.omega if world else None,
        path_length=world.path_length.value if world else None,
        separation=report.separation.index if report.separation else None,
        separation_p=report.separation.p_value if report.separation else None,
        modularity=report.modularity,
    )


def compared_disks(reports: Mapping[str, TopologyReport]) -> Figure:
    """Draw the hyperbolic disks of several reports in a row, to one scale.

    Raises
    ------
    ConfigError
        If no report has a disk.
    """
    drawn = {name: report for name, report in reports.items() if report.disk is not None}
    if not drawn:
        raise ConfigError("none of the reports has a hyperbolic disk to draw.")
    figure = empty_figure(4.2 * len(drawn), 4.5)
    grid = figure.subplots(1, len(drawn), squeeze=False)
    for axes, (name, report) in zip(grid[0], drawn.items(), strict=True):
        draw_disk(axes, report)
        gamma = "" if report.gamma is None else f", gamma = {report.gamma:.2f}"
        axes.set_title(f"{name}{gamma}")
    return figure


def compared_degrees(reports: Mapping[str, TopologyReport]) -> Figure:
    """Draw the degree distributions of several reports with their power laws in one figure.

    Raises
    ------
    ConfigError
        If no report has a link.
    """
    drawn = {name: report for name, report in reports.items() if report.degrees.degree}
    if not drawn:
        raise ConfigError("none of the reports has a degree to draw.")
    figure, axes = new_figure(5.5, 4.2)
    colours = 0.85 * layer_colours(max(len(drawn), 2))
    for colour, (name, report) in zip(colours, drawn.items(), strict=False):
        points, shade = report.degrees, tuple(np.clip(colour, 0, 1))
        gamma = "" if report.gamma is None else f", gamma = {report.gamma:.2f}"
        axes.loglog(points.degree, points.share, ".", color=shade, label=f"{name}{gamma}")
        axes.loglog(points.fit_degree, points.fit_share, color=shade, linewidth=1)
    axes.set(xlabel="degree k", ylabel="share of neurons with degree >= k")
    axes.legend(frameon=False)
    return figure
