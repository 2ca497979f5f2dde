"""The measures of the topology in one table, each beside its random null where it has one."""

from __future__ import annotations

from topospike.analysis.degree import DegreeStatistics
from topospike.analysis.graphs.null import NullComparison
from topospike.analysis.report import TopologyReport
from topospike.report.charts.figure import Table
from topospike.report.units import GAMMA, NARROW, SIGMA, count, percent, plain

Row = tuple[str, str, str]


def measures_table(report: TopologyReport) -> Table:
    """Return what was measured on the graph; undefined measures are left out."""
    rows = (
        *size_rows(report),
        *activity_rows(report),
        *hierarchy_rows(report),
        *world_rows(report),
    )
    what = "channel graph of" if report.chain_kind == "channel" else "layers"
    caption = (
        f"The graph of the {what} {', '.join(report.chain)}. The random value is the mean ± "
        f"standard deviation over {report.nulls} random graphs with the same layers and link "
        "counts; for the small world the degrees are kept as well."
    )
    return Table(caption, ("measure", "value", "random"), rows)


def beside_null(comparison: NullComparison) -> str:
    """Write mean and spread of a null, with the distance z of the observed value from it."""
    if comparison.mean is None:
        return ""
    text = f"{plain(comparison.mean)} ± {plain(comparison.std, 2)}"
    if comparison.z is None:
        return text
    return f"{text} (z{NARROW}={NARROW}{plain(comparison.z, 2)})"


def size_rows(report: TopologyReport) -> tuple[Row, ...]:
    """Nodes, links and coherence."""
    graph = report.graph
    return (
        ("neurons per layer", ", ".join(count(size) for size in graph.sizes), ""),
        ("active neurons per layer", ", ".join(count(size) for size in graph.active), ""),
        ("links", f"{count(graph.links)}, density {percent(graph.density)}", ""),
        ("connected components", count(graph.components), ""),
        ("share of the largest component", percent(graph.largest_share, 1), ""),
    )


def activity_rows(report: TopologyReport) -> tuple[Row, ...]:
    """Active neurons, in both ways of counting."""
    rows: tuple[Row, ...] = (("active neurons (ANP)", percent(report.anp, 1), ""),)
    if report.anp_hidden is not None:
        rows += (("hidden neurons linked on both sides", percent(report.anp_hidden, 1), ""),)
    return rows


def hierarchy_rows(report: TopologyReport) -> tuple[Row, ...]:
    """Power law and meta-depth."""
    rows: tuple[Row, ...] = ()
    if report.gamma is not None:
        fit = (
            f"{plain(report.gamma)} ± {plain(report.sigma, 2)}, "
            f"{count(report.n_tail)} nodes with k ≥ {count(report.xmin)}"
        )
        null = beside_null(report.gamma_null) if report.gamma_null else ""
        rows += ((f"power-law exponent {GAMMA}", fit, null),)
    depth = report.meta_depth
    if depth is not None:
        gini = depth.pooled_gini
        rows += (
            ("inequality of degrees inside layers (Gini)", plain(gini.value), beside_null(gini)),
        )
        if depth.index is not None:
            rows += (("meta-depth index", plain(depth.index), verdict(depth.meta_deep)),)
        if depth.deepest_layer is not None:
            rows += (("deepest layer (0 is the input)", count(depth.deepest_layer), ""),)
    return rows


def rivals_table(report: TopologyReport) -> Table:
    """Return the laws that the power law was weighed against on the tail of the degrees."""
    caption = (
        "Log-likelihood of the power law minus that of another law on the same tail: a positive "
        "ratio favours the power law, and a small p says that the sign can be trusted."
    )
    if report.p_value is not None:
        caption += (
            f" Bootstrap p of the power law itself: {plain(report.p_value, 2)}; below 0.1 it is "
            "implausible."
        )
    rows = tuple(
        (rival.name, plain(rival.ratio), plain(rival.p_value, 2)) for rival in report.alternatives
    )
    return Table(caption, ("law", "ratio", "p"), rows)


def parts_table(report: TopologyReport) -> Table:
    """Return the degrees of every layer of neurons, and of every block of links on its own."""
    names = [name.removesuffix(".weight") for name in report.chain]
    layers = [f"layer {row.layer}" for row in report.layers]
    plain_chain = len(report.blocks) == len(names) == len(layers) - 1
    blocks = [
        f"block {names[k]}" if plain_chain else f"block from layer {row.layer}"
        for k, row in enumerate(report.blocks)
    ]
    rows = tuple(
        (name, count(row.active), plain(row.mean), count(row.maximum), plain(row.gini), fit(row))
        for name, row in zip([*layers, *blocks], [*report.layers, *report.blocks], strict=True)
    )
    caption = (
        "Degrees of the active neurons, layer by layer (0 is the input) and pooled over the two "
        "sides of each weight layer."
    )
    return Table(caption, ("part", "neurons", "mean", "largest", "Gini", GAMMA), rows)


def fit(row: DegreeStatistics) -> str:
    """Write the exponent of one part with the neurons it rests on."""
    if row.gamma is None:
        return ""
    value = "10 or more" if row.at_bound else plain(row.gamma)
    return f"{value} ({count(row.n_tail)} with k ≥ {count(row.xmin)})"


def verdict(meta_deep: bool | None) -> str:
    """Say whether all conditions of meta-depth hold."""
    if meta_deep is None:
        return "undecided"
    return "meta-deep" if meta_deep else "not meta-deep"


def world_rows(report: TopologyReport) -> tuple[Row, ...]:
    """Clustering, paths, communities, and the separation of layers in the disk."""
    rows: tuple[Row, ...] = ()
    world = report.small_world
    if world is not None:
        rows += (
            (
                "bipartite clustering",
                plain(world.clustering.value),
                beside_null(world.clustering),
            ),
            ("mean path length", plain(world.path_length.value), beside_null(world.path_length)),
        )
        if world.sigma is not None:
            rows += ((f"small-worldness {SIGMA} (above 1: small world)", plain(world.sigma), ""),)
        if world.omega is not None:
            rows += (
                ("small-worldness ω (-1 lattice, 0 small world, 1 random)", plain(world.omega), ""),
            )
    if report.modularity is not None:
        rows += (("modularity", plain(report.modularity), ""),)
    if report.paths is not None:
        total, hubs = report.paths.total, report.paths.through_hubs
        rows += (("paths from input to output", plain(total.value), beside_null(total)),)
        if hubs is not None:
            rows += (("share of them through hubs alone", plain(hubs.value), beside_null(hubs)),)
    if report.consistency is not None:
        predicted = report.consistency
        rows += (("structural consistency", plain(predicted.value), beside_null(predicted)),)
    if report.separation is not None:
        chance = report.separation.p_value
        beside = "" if chance is None else f"p{NARROW}={NARROW}{plain(chance, 2)}"
        rows += (("angular separation of layers (ASI)", plain(report.separation.index), beside),)
    return rows
