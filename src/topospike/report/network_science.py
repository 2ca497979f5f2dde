"""Data of the figures about the topology: degree distribution, hyperbolic disk, measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from topospike.report.chart import Table


@dataclass(frozen=True, slots=True)
class DegreeDistribution:
    """Share of nodes with degree >= k, and the power law fitted to its tail.

    ``fit_degree`` and ``fit_share`` are the ends of the fitted line; empty when nothing was fitted.
    """

    degree: tuple[int, ...]
    share: tuple[float, ...]
    gamma: float | None
    sigma: float | None
    xmin: int | None
    n_tail: int | None
    at_bound: bool
    fit_degree: tuple[float, ...]
    fit_share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class HyperbolicDisk:
    """Nodes of the largest component in the native hyperbolic disk, and links to draw.

    ``edges`` are pairs of positions in the node columns; ``links`` how many there are in all.
    """

    theta: tuple[float, ...]
    r: tuple[float, ...]
    layer: tuple[int, ...]
    degree: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    links: int
    layers: int


def degree_distribution(report: Mapping[str, Any]) -> DegreeDistribution | None:
    return None


def hyperbolic_disk(report: Mapping[str, Any]) -> HyperbolicDisk | None:
    return None


def measures_table(report: Mapping[str, Any]) -> Table:
    return Table("", (), ())
