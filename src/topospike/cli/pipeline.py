"""Command line: the stages of a recipe in their order, and what closes every run.

data -> train dense, train sparse -> quantised activations, if asked for -> for each method:
convert, measure -> analyse -> summary -> report. Networks trained through time are measured as they
are. Stages that are done are skipped; see `topospike.cli.run`. Of several processes all train, and
the main one does the rest.
"""

from __future__ import annotations

import time

from topospike.cli.direct import is_direct, measure_spiking, train_spiking
from topospike.cli.display import output, results_table
from topospike.cli.prune import make_network
from topospike.cli.quantise import quantise_network
from topospike.cli.run import Run
from topospike.cli.stages import (
    analyse_network,
    convert_network,
    measure_network,
    refuse_changed_settings,
    show_first_conversion,
)
from topospike.cli.summary import saving_texts, write_summary
from topospike.errors import require
from topospike.report import write_report
from topospike.train import Processes


def run_training(run: Run) -> None:
    """Train the dense twin, if the recipe has one, and the sparse network."""
    refuse_changed_settings(run)
    with run.recorded():
        train_networks(run)
    if run.processes.is_main:
        print(f"trained networks: {run.folder}")


def run_everything(run: Run) -> None:
    """Run every stage, print the table, and write the report.

    Raises
    ------
    MissingDependencyError
        If what the last stages need is not installed; said before the first one.
    """
    require("igraph", "matplotlib", "jinja2", "plotly", purpose="analysis and report of a run")
    refuse_changed_settings(run)
    with run.recorded():
        train_networks(run)
        if not run.processes.is_main:
            return
        run.processes = Processes()
        measure_networks(run)
        if run.recipe.analyse and run.recipe.sparse_twin:
            analyse_network(run)
    print_summary(run)
    print_report(run)


def train_networks(run: Run) -> None:
    """Make every network of the recipe: trained, pruned, or trained through time."""
    for network in run.networks:
        if is_direct(run):
            train_spiking(run, network)
            continue
        make_network(run, network)
        quantise_network(run, network)


def measure_networks(run: Run) -> None:
    """Convert and measure every network; one trained through time is measured as it is."""
    if is_direct(run):
        for network in run.networks:
            measure_spiking(run, network)
        return
    for settings in run.recipe.convert:
        for network in run.networks:
            convert_network(run, network, settings)
            measure_network(run, network, settings)


def print_summary(run: Run) -> None:
    """Write ``summary.json``, and print its table and where the savings come from."""
    for network in run.networks:
        show_first_conversion(run, network)
    rows = write_summary(run)
    if rows:
        output().print(results_table(rows))
    for text in saving_texts(run):
        print(f"\n{text}")


def print_report(run: Run) -> None:
    """Write ``report.html`` and say where it is."""
    started = time.perf_counter()
    path = write_report(run.folder)
    seconds = {**run.ledger.seconds, "report": round(time.perf_counter() - started, 3)}
    run.record.write(seconds=seconds)
    print(f"report: {path}")
