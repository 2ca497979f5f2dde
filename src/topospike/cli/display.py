"""Command line: the tables of results, on standard output, plain text off a terminal.

What is shown while a run works is `topospike.progress`'s.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from topospike.analysis import ComparisonRow, TopologyReport
from topospike.analysis.graphs.null import NullComparison
from topospike.files.reading import shortened
from topospike.pipeline.folder.verify import Verification
from topospike.pipeline.streaming import ShownFrame
from topospike.pruning import PruneReport
from topospike.report.folder import SummaryRow
from topospike.report.labels import display_name
from topospike.report.simulation import Measured
from topospike.report.units import count, energy, percent, plain

PLAIN_WIDTH = 120
MOST_LINES, LONGEST_LINE = 2000, 2000


def output() -> Console:
    """Return the console results are printed on: without colours or wrapping off a terminal."""
    terminal = sys.stdout.isatty()
    return Console(file=sys.stdout, width=None if terminal else PLAIN_WIDTH, highlight=False)


def show_text(text: str) -> None:
    """Print a text that was made of what files hold, however much that is."""
    lines = text.split("\n")
    for line in lines[:MOST_LINES]:
        print(line if len(line) <= LONGEST_LINE else shortened(line, LONGEST_LINE))
    if len(lines) > MOST_LINES:
        print(f"... ({len(lines) - MOST_LINES} more lines)")


def results_table(rows: Sequence[SummaryRow]) -> Table:
    """Return the table of a run: one line for each network and conversion method."""
    table = Table(box=None, pad_edge=False)
    table.add_column("network")
    table.add_column("conversion")
    steps = sorted({row.timesteps for row in rows})
    at = f" T={steps[0]}" if len(steps) == 1 else ""
    measured = [Measured(row.metric) for row in rows]
    of = {"" if kind.is_share else f", {kind.words}" for kind in measured}
    of = of.pop() if len(of) == 1 else ""
    for title in ("sparsity", f"ANN{of}", f"SNN{at}{of}", f"energy{at}", "ratio to dense", "T0"):
        table.add_column(title, justify="right")
    for row, kind in zip(rows, measured, strict=True):
        ann, snn = map(kind.written, row.values)
        table.add_row(
            display_name(row.network),
            display_name(row.method),
            percent(row.sparsity, 1),
            ann,
            snn + (f" (T={row.timesteps})" if not at else ""),
            energy(row.energy_joule),
            "-" if row.energy_ratio is None else f"{row.energy_ratio:.3f}",
            "-" if row.saturation_time is None else str(row.saturation_time),
        )
    return table


def stream_table(name: str, frames: Sequence[ShownFrame]) -> Table:
    """Return the table of a stream: one line a frame, and all but the first together."""
    table = Table(box=None, pad_edge=False, title=name, title_justify="left")
    for title in ("frame", "steps", "events", "energy", "of the ANN's", "answer", "as the ANN"):
        table.add_column(title, justify="right")
    for line in frames:
        table.add_row(
            str(line.frame),
            str(line.steps),
            f"{line.events:.0f}",
            energy(line.energy_joule),
            percent(line.energy_joule / line.ann_energy_joule),
            str(line.answer),
            percent(line.agreement, 0),
        )
    if later := frames[1:]:
        mean = sum(line.energy_joule for line in later) / len(later)
        share = percent(mean / later[0].ann_energy_joule)
        table.add_row("later", "", "", energy(mean), share, "", "")
    return table


def topology_table(report: TopologyReport) -> Table:
    """Return the main numbers of a topology analysis."""
    graph, world, depth = report.graph, report.small_world, report.meta_depth
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column("what")
    table.add_column("value")
    table.add_row("layers", f"{shortened(' -> '.join(report.chain))} ({report.chain_kind} graph)")
    table.add_row("neurons", shortened(" - ".join(str(size) for size in graph.sizes)))
    table.add_row("links", f"{count(graph.links)}, density {percent(graph.density)}")
    table.add_row("active neurons", percent(report.anp))
    table.add_row("gamma", gamma_text(report))
    if world is not None:
        table.add_row("small world: sigma, omega", f"{plain(world.sigma)}, {plain(world.omega)}")
    if depth is not None:
        answer = {True: "yes", False: "no", None: "undecided"}[depth.meta_deep]
        excess = f"index {plain(depth.index)}, z {plain(depth.pooled_gini.z)}"
        table.add_row("meta-deep", f"{answer} ({excess})")
    if report.separation is not None:
        chance = f"{plain(report.separation.index)} (p = {plain(report.separation.p_value)})"
        table.add_row("angular separation of layers", chance)
    table.add_row("modularity", plain(report.modularity))
    if report.paths is not None:
        table.add_row("paths from input to output", beside_random(report.paths.total))
        if report.paths.through_hubs is not None:
            table.add_row("share through hubs alone", beside_random(report.paths.through_hubs))
    if report.consistency is not None:
        table.add_row("structural consistency", beside_random(report.consistency))
    for note in report.notes:
        table.add_row("note", note)
    return table


def beside_random(measure: NullComparison) -> str:
    """Write a measure and the mean of its null."""
    return f"{plain(measure.value)} (random {plain(measure.mean)})"


def gamma_text(report: TopologyReport) -> str:
    """Write gamma with its error, its null, and its bootstrap p where there are such."""
    if report.gamma is None:
        return plain(None)
    text = "10 or more" if report.at_bound else f"{plain(report.gamma)} ± {plain(report.sigma, 2)}"
    text += f" on {count(report.n_tail)} neurons with degree >= {count(report.xmin)}"
    null = report.gamma_null
    if null is not None and null.mean is not None:
        text += f"; random {plain(null.mean)} ± {plain(null.std, 2)}"
    if report.p_value is not None:
        text += f"; power law p = {plain(report.p_value, 2)}"
    return text


def comparison_table(rows: Sequence[ComparisonRow]) -> Table:
    """Return the main numbers of several topologies, one a line."""
    table = Table(box=None, pad_edge=False)
    table.add_column("topology", no_wrap=True, min_width=max(len(row.name) for row in rows))
    for title in (
        "neurons",
        "links",
        "active",
        "gamma",
        "random",
        "meta-depth",
        "z",
        "meta-deep",
        "sigma",
        "separation",
        "modularity",
    ):
        table.add_column(title, justify="right")
    for row in rows:
        answer = {True: "yes", False: "no", None: "undecided"}[row.meta_deep]
        table.add_row(
            row.name,
            "-".join(str(size) for size in row.sizes),
            count(row.links),
            percent(row.anp, 1),
            "10+" if row.at_bound else f"{plain(row.gamma)} ± {plain(row.sigma, 2)}",
            plain(row.gamma_null),
            plain(row.meta_depth),
            plain(row.gini_z),
            answer,
            plain(row.small_world),
            plain(row.separation),
            plain(row.modularity),
        )
    return table


def pruning_table(report: PruneReport) -> Table:
    """Return the table of a pruning: one line a layer, and all together."""
    table = Table(box=None, pad_edge=False)
    table.add_column("layer")
    for title in ("shape", "links", "density", "error, mask alone", "error"):
        table.add_column(title, justify="right")
    for layer in report.layers:
        errors = (layer.error_before, layer.error_after)
        table.add_row(
            layer.name + (" (classifier)" if layer.is_classifier else ""),
            " x ".join(map(str, layer.shape)),
            count(layer.links),
            percent(layer.density),
            *("-" if error is None else f"{error:.3f}" for error in errors),
        )
    links = sum(layer.links for layer in report.layers if not layer.is_classifier)
    table.add_row("pruned layers", "", count(links), percent(1.0 - report.sparsity()), "", "")
    table.add_row("all weights", "", "", percent(1.0 - report.overall_sparsity), "", "")
    return table


def verification_table(found: Verification) -> Table:
    """Return the table of a check: one line a file."""
    table = Table(box=None, pad_edge=False)
    for title in ("file", "written by", "state"):
        table.add_column(title, overflow="fold")
    for file in found.files:
        table.add_row(file.name, file.stage, file.state)
    return table
