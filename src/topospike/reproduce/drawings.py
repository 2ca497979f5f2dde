"""Reproduce: the figures of a target as SVG files, drawn from the outcomes of its rows.

Accuracy over energy, one figure for each dataset, network and conversion, as in figures 4, 5 and
A1; hyperbolic disks, one for each topology, as in figure 3. Rows that were not run are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from topospike.report.network_charts import layer_names
from topospike.report.simulation import Trajectory
from topospike.report.svg import draw_disk, draw_pareto, save, style
from topospike.reproduce.comparison import Line
from topospike.reproduce.published import slug
from topospike.reproduce.render import shown_label
from topospike.reproduce.targets import Target


def draw(target: Target, lines: Sequence[Line], folder: Path) -> list[Path]:
    """Draw what the target plots and return the files."""
    drawn: list[Path] = []
    with style():
        if target.has_curves:
            for name, group in groups(lines).items():
                path = folder / f"{target.name}-{name}.svg"
                save(draw_pareto(tuple(group)), path)
                drawn.append(path)
        if target.has_disks:
            drawn += draw_disks(target, lines, folder)
    return drawn


def groups(lines: Sequence[Line]) -> Mapping[str, list[Trajectory]]:
    """Collect the curves that belong into one figure."""
    together: dict[str, list[Trajectory]] = {}
    for line in lines:
        labels = line.row.labels
        evaluation = line.done[0].evaluation if line.done else None
        if evaluation is None:
            continue
        name = "-".join(slug(labels[part]) for part in ("dataset", "network", "conversion"))
        curve = Trajectory(
            network=shown_label(labels["method"]),
            method=labels["conversion"],
            timesteps=evaluation.timesteps,
            values=evaluation.accuracy,
            energy_joule=evaluation.energy_joule,
            ann_value=evaluation.ann_accuracy,
            ann_energy_joule=evaluation.ann_energy_joule,
            marked=line.row.timesteps or evaluation.timesteps[-1],
            saturation_time=evaluation.saturation_time,
        )
        together.setdefault(name, []).append(curve)
    return together


def draw_disks(target: Target, lines: Sequence[Line], folder: Path) -> list[Path]:
    """Draw one hyperbolic disk a topology."""
    drawn = []
    for line in lines:
        topology = line.done[0].topology if line.done else None
        if topology is None or topology.disk is None:
            continue
        path = folder / f"{target.name}-{slug(line.row.labels['method'])}.svg"
        save(draw_disk(topology.disk, names=layer_names(topology)), path)
        drawn.append(path)
    return drawn
