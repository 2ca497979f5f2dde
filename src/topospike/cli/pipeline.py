"""Command line: the stages of a recipe in their order, and what closes every run.

data -> train dense, train sparse -> quantised activations, if asked for -> for each method:
convert, measure -> analyse -> summary -> report. Stages that are done are skipped; see `topospike.cli.run`. Of several processes all train,
and the main one does the rest.
"""

from __future__ import annotations

import time

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
from topospike.cli.summary import write_summary
from topospike.report import write_report
from topospike.train import Processes


def run_training(run: Run) -> None:
    """Train the dense twin, if the recipe has one, and the sparse network."""
    refuse_changed_settings(run)
    with run.recorded():
        for network in run.networks:
            make_network(run, network)
            quantise_network(run, network)
    if run.processes.is_main:
        print(f"trained networks: {run.folder}")


def run_everything(run: Run) -> None:
    """Run every stage, print the table, and write the report."""
    refuse_changed_settings(run)
    with run.recorded():
        for network in run.networks:
            make_network(run, network)
            quantise_network(run, network)
        if not run.processes.is_main:
            return
        run.processes = Processes()
        for settings in run.recipe.convert:
            for network in run.networks:
                convert_network(run, network, settings)
                measure_network(run, network, settings)
        if run.recipe.analyse and run.recipe.sparse_twin:
            analyse_network(run)
    print_summary(run)
    print_report(run)


def print_summary(run: Run) -> None:
    """Write ``summary.json`` and print its table."""
    for network in run.networks:
        show_first_conversion(run, network)
    rows = write_summary(run)
    if rows:
        output().print(results_table(rows))


def print_report(run: Run) -> None:
    """Write ``report.html`` and say where it is."""
    started = time.perf_counter()
    path = write_report(run.folder)
    seconds = {**run.ledger.seconds, "report": round(time.perf_counter() - started, 3)}
    run.record.write(seconds=seconds)
    print(f"report: {path}")
