"""Pipeline: a recipe from data to report, in one call.

data -> train dense, train sparse -> quantised activations, if asked for -> for each method:
convert, measure -> analyse -> summary -> report. Networks trained through time are measured as they
are; where a recipe has such a network beside others (`topospike.recipe.parts`) it is a run of its
own, in the folder ``direct``. Stages that are done are skipped; see `topospike.pipeline.run`. Of
several processes all train, and the main one does the rest.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from topospike.errors import require
from topospike.pipeline.direct import is_direct, measure_spiking, train_spiking
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.networks import training_settings
from topospike.pipeline.pruning import make_network
from topospike.pipeline.quantising import quantise_network
from topospike.pipeline.run import Run, choose_device
from topospike.pipeline.stages import (
    analyse_network,
    convert_network,
    measure_network,
    refuse_changed_settings,
)
from topospike.pipeline.summary import saving_texts, write_summary
from topospike.recipe import Recipe
from topospike.recipe.files import resolve
from topospike.recipe.parts import parts
from topospike.report import write_report
from topospike.report.folder import BESIDE, SummaryRow
from topospike.train import Processes, process_group


@dataclass(frozen=True)
class RunResult:
    """What a run left in its folder.

    Attributes
    ----------
    folder
        The run folder; every network, evaluation and saved spiking network lies there.
    networks
        The folders of the trained networks, dense first, one trained through time beside them last.
    rows
        One for each network and conversion: accuracies, energy, sparsity (``summary.json``).
    savings
        For each conversion, in words, where the saving of the sparse network comes from.
    report
        The page, ``report.html``; ``None`` where none was asked for.
    """

    folder: Path
    networks: tuple[Path, ...] = ()
    rows: tuple[SummaryRow, ...] = ()
    savings: tuple[str, ...] = ()
    report: Path | None = None


def run_recipe(
    recipe: Recipe | str | Path,
    folder: str | Path | None = None,
    *,
    train_only: bool = False,
    device: str | None = None,
    overwrite: bool = False,
) -> RunResult:
    """Run a recipe from data to report: what ``topospike run`` does.

    Parameters
    ----------
    recipe
        A `topospike.recipe.Recipe`, the name of a packaged one, or the path of a YAML file;
        `topospike.recipe.files.resolve` reads one with changes.
    folder
        Where everything is written; default ``runs/NAME``. Stages that are done there with the
        same settings are kept, and a training that was stopped goes on.
    train_only
        Stop when the networks are trained (or pruned).
    device
        ``cpu``, ``cuda``, ...; ``None`` takes an accelerator where there is one.
    overwrite
        Train again where the folder holds networks trained with other settings.

    Returns
    -------
    RunResult
        On the main process; on others (under ``torchrun``) the folder alone.

    Raises
    ------
    ConfigError
        If the recipe contradicts itself or the folder holds networks trained with other settings.
    MissingDependencyError
        If what the last stages need is not installed; said before the first one.

    Examples
    --------
    >>> import tempfile
    >>> small = {"train": {"epochs": 2}, "dense_twin": False, "analyse": False, "measure":
    ...          {"timesteps": 2, "images": 32}, "convert": [{"method": "qcfs", "timesteps": 2}]}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     result = run_recipe(resolve("demo", small), folder, device="cpu")
    ...     result.rows[0].method, result.rows[0].timesteps, result.report.name
    ('qcfs', 2, 'report.html')
    """
    if not isinstance(recipe, Recipe):
        recipe = resolve(str(recipe))
    folder = Path("runs") / recipe.name if folder is None else Path(folder)
    with process_group(choose_device(device)), locked(folder):
        places = (folder, folder / BESIDE)
        runs = [
            Run(part, place, device=device, overwrite=overwrite)
            for part, place in zip(parts(recipe), places, strict=False)
        ]
        return run_training(*runs) if train_only else run_everything(*runs)


def run_training(run: Run, *beside: Run) -> RunResult:
    """Train the dense twin, if the recipe has one, and the sparse network; and those beside them.

    Every run is asked whether its folder holds other networks before one is trained.
    """
    runs = (run, *beside)
    for each in runs:
        refuse_changed_settings(each)
    kept = [each for each in beside if is_trained(each) and BESIDE in run.ledger.stages]
    for each in runs:
        with each.recorded():
            train_networks(each)
    for each in beside:
        if each not in kept:  # else what it is known by stays, also if it is of another run now
            run.always(BESIDE, lambda each=each: trained_files(each))
    return RunResult(run.folder, folders_of(*runs) if run.processes.is_main else ())


def run_everything(run: Run, *beside: Run) -> RunResult:
    """Run every stage, and write the summary and the report."""
    require("igraph", "matplotlib", "jinja2", "plotly", purpose="analysis and report of a run")
    trained = run_training(run, *beside)
    if not run.processes.is_main:
        return trained
    for each in (run, *beside):
        each.processes = Processes()
        with each.recorded():
            measure_networks(each)
            if each.recipe.analyse and each.recipe.sparse_twin:
                analyse_network(each)
    for each in beside:  # what it writes, the page of the whole run shows
        closed(each, report=True)
    return closed(run, *beside, report=True)


def is_trained(run: Run) -> bool:
    """Tell whether the networks of a run were all made before."""
    return all(run.ledger.is_complete(n.stage, training_settings(run, n)) for n in run.networks)


def trained_files(run: Run) -> list[Path]:
    """Return what the training of a run wrote, by which another one beside it knows it again."""
    stages = (run.ledger.stages[network.stage] for network in run.networks)
    return [run.folder / name for stage in stages for name in stage.outputs]


def train_networks(run: Run) -> None:
    """Make every network of the recipe: trained, pruned, or trained through time."""
    for network in run.networks:
        if is_direct(run):
            train_spiking(run, network)
            continue
        make_network(run, network)
        quantise_network(run, network)


def measure_networks(run: Run, only: str | None = None, *, convert: bool = True) -> None:
    """Convert and measure every network, or by one conversion ``only``.

    One trained through time is measured as it is. Without ``convert`` the conversions of the folder
    are measured.
    """
    for settings in run.recipe.convert:
        for network in run.networks:
            if only not in (None, settings.label):
                continue
            if is_direct(run):
                measure_spiking(run, network)
                continue
            if convert:
                convert_network(run, network, settings)
            measure_network(run, network, settings)


def closed(run: Run, *beside: Run, report: bool) -> RunResult:
    """Write ``summary.json`` and, if asked for, ``report.html``, and return what there is now."""
    runs = (run, *beside)
    rows = write_summary(run)
    savings = tuple(text for each in runs for text in saving_texts(each))
    if not report:
        return RunResult(run.folder, folders_of(*runs), rows, savings)
    started = time.perf_counter()
    path = write_report(run.folder)
    seconds = {**run.ledger.seconds, "report": round(time.perf_counter() - started, 3)}
    run.record.write(seconds=seconds)
    return RunResult(run.folder, folders_of(*runs), rows, savings, path)


def folders_of(*runs: Run) -> tuple[Path, ...]:
    """Return where the networks of runs lie."""
    return tuple(network.folder for run in runs for network in run.networks)
