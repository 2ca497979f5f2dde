"""Stage analyse: how a topology changed over training.

Two sources: the topologies saved after some updates, measured anew (gamma, meta-depth), and the
records that training wrote at every update (active neurons, percolated links). Small-worldness,
communities and the disk are left to `analyse`: they cost too much to be had many times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topospike.analysis.analysis import (
    LARGE_LINKS,
    LARGE_NULLS,
    choose_layers,
    layered_meta_depth,
    read_masks,
)
from topospike.analysis.connectivity import active_share
from topospike.analysis.degree import power_law
from topospike.analysis.figures import empty_figure
from topospike.contracts import to_json, write_json
from topospike.errors import ConfigError
from topospike.files.ranges import Amount, Count, Share
from topospike.files.reading import read_optional
from topospike.metrics_log import LoggedUpdate, read_log

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from topospike.analysis.analysis import TopologyLike


HISTORY_NULLS = 5


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One topology on the way: the number of updates before it, and the measures worth following.

    ``active`` counts the neurons with links. ``gamma`` with its standard error ``sigma`` is None
    for equal degrees; ``index`` and ``gini_z`` (meta-depth) are None without links or nulls.
    """

    update: Count
    links: Count
    active: Count
    gamma: float | None
    sigma: Amount | None
    at_bound: bool | None
    anp: Share
    anp_hidden: Share | None
    index: float | None
    gini_z: float | None


@dataclass(frozen=True, slots=True)
class UpdatePoint:
    """What training recorded at one topology update; ``percolated`` sums over the layers.

    ``seconds`` is the time the update took; None in logs of versions that did not write it.
    """

    update: int
    epoch: int
    sparsity: float
    anp: float
    anp_hidden: float | None
    itop_rate: float
    percolated: int
    seconds: float | None


def topology_history(
    topologies: Mapping[int, TopologyLike],
    *,
    chain: Sequence[str] | None = None,
    nulls: int = HISTORY_NULLS,
    seed: int = 0,
) -> tuple[HistoryPoint, ...]:
    """Measure a series of topologies of one network, by what costs little for each.

    Parameters
    ----------
    topologies
        Update index -> topology, its file, or its masks.
    chain
        Layers to join into one graph, as in `analyse`.
    nulls, seed
        Random graphs per topology, and their seed. Above 200 000 links at most 3 are drawn.

    Raises
    ------
    ConfigError
        If no topology is given.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> series = {0: {"fc": rng.random((30, 30)) < 0.2}, 1: {"fc": rng.random((30, 30)) < 0.1}}
    >>> [point.update for point in topology_history(series, nulls=2)]
    [0, 1]
    """
    if not topologies:
        raise ConfigError("no topology was given; pass at least one update index -> topology.")
    points = []
    for update in sorted(topologies):
        chosen = choose_layers(read_masks(topologies[update])[0], chain, None)
        graph = chosen.graph()
        distinct = len(np.unique(graph.degrees[graph.active]))
        fit = power_law(graph.degrees) if distinct > 1 else None
        drawn = nulls if graph.n_links <= LARGE_LINKS else min(nulls, LARGE_NULLS)
        depth = layered_meta_depth(graph, fit, nulls=drawn, seed=seed)
        anp, anp_hidden = active_share(chosen.sizes, chosen.blocks)
        points.append(
            HistoryPoint(
                update=update,
                links=graph.n_links,
                active=len(graph.active),
                gamma=fit.gamma if fit else None,
                sigma=fit.sigma if fit else None,
                at_bound=fit.at_bound if fit else None,
                anp=anp,
                anp_hidden=anp_hidden,
                index=depth.index if depth else None,
                gini_z=depth.pooled_gini.z if depth else None,
            )
        )
    return tuple(points)


def save_history(points: Sequence[HistoryPoint], path: str | Path) -> None:
    """Write what `topology_history` returned as JSON, atomically."""
    write_json(path, {"points": [to_json(point) for point in points]})


def read_history(path: str | Path) -> tuple[HistoryPoint, ...]:
    """Read what `save_history` wrote; without such a file there is no point.

    Raises
    ------
    CheckpointError
        If the file is damaged.
    """
    kind = dict[str, tuple[HistoryPoint, ...]]
    again = "Delete it and analyse the run again."
    return (read_optional(path, kind, remedy=again) or {}).get("points", ())


def read_updates(path: str | Path) -> tuple[UpdatePoint, ...]:
    """Read the topology updates that training recorded in ``metrics.jsonl``.

    Raises
    ------
    MissingDataError
        If the file is not there.
    CheckpointError
        If a line is damaged; names it.
    """
    return tuple(update_point(update) for update in read_log(path).updates)


def update_point(update: LoggedUpdate) -> UpdatePoint:
    """Turn one update of a training log into a point."""
    return UpdatePoint(
        update=update.update_index,
        epoch=update.epoch,
        sparsity=update.sparsity,
        anp=update.anp,
        anp_hidden=update.anp_hidden,
        itop_rate=update.itop_rate,
        percolated=sum(change.percolated for change in update.layers.values()),
        seconds=update.seconds,
    )


def evolution(points: Sequence[HistoryPoint]) -> Figure:
    """Draw gamma, active neurons, the meta-depth index and links over the topology updates.

    The band about gamma is one standard error to either side.

    Raises
    ------
    ConfigError
        If there is no point.
    """
    if not points:
        raise ConfigError("there is no point to draw; measure at least one topology.")
    panels = (
        ("gamma", [("gamma", [p.gamma for p in points])]),
        (
            "share of active neurons",
            [("ANP", [p.anp for p in points]), ("hidden", [p.anp_hidden for p in points])],
        ),
        ("meta-depth index", [("index", [p.index for p in points])]),
        ("links", [("links", [p.links for p in points])]),
    )
    at = [p.update for p in points]
    figure = stacked(panels, at, "topology update")
    low, high = zip(*map(error_band, points), strict=True)
    figure.axes[0].fill_between(at, low, high, alpha=0.25, linewidth=0)
    return figure


def error_band(point: HistoryPoint) -> tuple[float, float]:
    """Return gamma minus and plus its standard error, NaN without a fit."""
    if point.gamma is None or point.sigma is None:
        return float("nan"), float("nan")
    return point.gamma - point.sigma, point.gamma + point.sigma


def percolation(points: Sequence[UpdatePoint]) -> Figure:
    """Draw active neurons, percolated links and the share of positions ever active over epochs.

    Raises
    ------
    ConfigError
        If there is no point.
    """
    if not points:
        raise ConfigError("there is no topology update to draw; the run may be dense or static.")
    panels = (
        (
            "share of active neurons",
            [("ANP", [p.anp for p in points]), ("hidden", [p.anp_hidden for p in points])],
        ),
        ("percolated links", [("links", [p.percolated for p in points])]),
        ("share of positions ever active", [("ITOP rate", [p.itop_rate for p in points])]),
    )
    return stacked(panels, [p.epoch for p in points], "epoch")


# (axis label, [(line label, values)]) of each panel.
Panels = Sequence[tuple[str, Sequence[tuple[str, Sequence[float | None]]]]]


def stacked(panels: Panels, at: Sequence[int], label: str) -> Figure:
    """One panel above the other over a common axis; undefined values leave gaps."""
    figure = empty_figure(5.0, 1.9 * len(panels))
    grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)
    for axes, (name, lines) in zip(grid[:, 0], panels, strict=True):
        for line, values in lines:
            height = [np.nan if value is None else value for value in values]
            axes.plot(at, height, marker=".", label=line)
        axes.set_ylabel(name)
        if len(lines) > 1:
            axes.legend(frameon=False)
    grid[-1, 0].set_xlabel(label)
    return figure
