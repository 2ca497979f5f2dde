"""Stage analyse: how a topology changed over training.

Two sources: the topologies saved after some updates, measured anew (gamma, meta-depth), and the
records that training wrote at every update (active neurons, percolated links).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from topospike.analyse.analysis import choose_layers, layered_meta_depth, read_masks
from topospike.analyse.connectivity import active_share
from topospike.analyse.degree import power_law
from topospike.errors import CheckpointError, ConfigError, MissingDataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from topospike.analyse.analysis import TopologyLike


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """One topology on the way: its update index and the measures worth following.

    ``gamma`` is None for equal degrees; ``index`` and ``gini_z`` (meta-depth) are None without
    links or nulls.
    """

    update: int
    links: int
    gamma: float | None
    at_bound: bool | None
    anp: float
    anp_hidden: float | None
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
    nulls: int = 5,
    seed: int = 0,
) -> tuple[HistoryPoint, ...]:
    """Measure a series of topologies of one network.

    Parameters
    ----------
    topologies
        Update index -> topology, its file, or its masks.
    chain
        Layers to join into one graph, as in `analyse`.
    nulls, seed
        Random graphs per topology, and their seed.

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
        depth = layered_meta_depth(graph, fit, nulls=nulls, seed=seed)
        anp, anp_hidden = active_share(chosen.sizes, chosen.blocks)
        points.append(
            HistoryPoint(
                update=update,
                links=graph.n_links,
                gamma=fit.gamma if fit else None,
                at_bound=fit.at_bound if fit else None,
                anp=anp,
                anp_hidden=anp_hidden,
                index=depth.index if depth else None,
                gini_z=depth.pooled_gini.z if depth else None,
            )
        )
    return tuple(points)


def read_updates(path: str | Path) -> tuple[UpdatePoint, ...]:
    """Read the topology updates that training recorded in ``metrics.jsonl``.

    Raises
    ------
    MissingDataError
        If the file is not there.
    CheckpointError
        If a line is damaged; names it.
    """
    path = Path(path)
    if not path.is_file():
        raise MissingDataError(f"{path} does not exist; training writes it into the run folder.")
    points = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        try:
            record = json.loads(line)
            if record["kind"] == "topology_update":
                points.append(update_point(record))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{path}, line {number} is damaged: {error!r}.") from error
    return tuple(points)


def update_point(record: Mapping[str, object]) -> UpdatePoint:
    """Turn one record of ``metrics.jsonl`` into a point."""
    raw = json.loads(json.dumps(record))
    return UpdatePoint(
        update=raw["update_index"],
        epoch=raw["epoch"],
        sparsity=raw["sparsity"],
        anp=raw["anp"],
        anp_hidden=raw["anp_hidden"],
        itop_rate=raw["itop_rate"],
        percolated=sum(change["percolated"] for change in raw["layers"].values()),
        seconds=raw.get("seconds"),
    )


def evolution(points: Sequence[HistoryPoint]) -> Figure:
    """Draw gamma, active neurons and the meta-depth index over the topology updates.

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
    )
    return stacked(panels, [p.update for p in points], "topology update")


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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 1.9 * len(panels)), layout="constrained")
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
