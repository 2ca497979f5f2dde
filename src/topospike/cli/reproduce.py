"""Command line: ``topospike reproduce``, from a published table to ours beside it.

Every row is a recipe at work in a run folder named after its network and the digest of its
settings, so what is done is used again, by other tables too. A row that fails is shown with its
error and does not keep the others from running. The tables, the figures and a copy of every record
lie in ``FOLDER/SCALE``, the run folders in ``FOLDER/SCALE/runs``.
"""

from __future__ import annotations

import functools
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from jsonargparse import Namespace

from topospike.analysis import analyse
from topospike.contracts import write_atomically, write_json
from topospike.errors import ConfigError, TopospikeError
from topospike.files.reading import read_bytes, read_optional
from topospike.metrics_log import MOST_BYTES as MOST_LOG
from topospike.pipeline.direct import is_direct, measure_spiking, train_spiking
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.networks import fresh_model, run_folder
from topospike.pipeline.pruning import make_network, prune_run
from topospike.pipeline.quantising import quantise_network, trained_kind
from topospike.pipeline.run import Run, choose_device
from topospike.pipeline.stages import (
    analyse_network,
    convert_network,
    measure_network,
    new_sparsifier,
    refuse_changed_settings,
)
from topospike.pipeline.summary import write_summary
from topospike.progress import say
from topospike.recipe import Recipe
from topospike.recipe.files import resolve
from topospike.recipe.parts import parts
from topospike.reproduce import (
    COMPARED,
    SCALES,
    TARGETS,
    Experiment,
    Outcome,
    PublishedRow,
    Target,
    chosen_rows,
    compare,
    compare_methods,
    control_lines,
    controls,
    draw,
    example_run,
    experiment,
    methods_text,
    read_outcome,
    write_comparison,
    write_controls,
    write_methods,
)
from topospike.reproduce.controls import NAME as CONTROLS
from topospike.reproduce.methods import TARGET as CONVERSION_METHODS
from topospike.reproduce.outcomes import FAILED, FAILURES, INITIAL_REPORT
from topospike.reproduce.published import PAPER
from topospike.train import Processes, current_processes, process_group

EVERYTHING = "all"
# Options of published rows, and those of `reproduce methods`.
OF_ROWS = ("scale", "row", "seeds", "table_only")
OF_METHODS = ("runs", "methods", "images")
OF_CONTROLS = ("recipe",)
DEFAULT_FOLDER = "runs/reproduce"
RECORDS = ("record.json", "summary.json", "evaluation.json", "conversion.json", "metrics.jsonl")


@dataclass(frozen=True)
class Job:
    """One row with one seed: what to train, and where; ``source`` trains what is to be pruned."""

    experiment: Experiment
    recipe: Recipe
    folder: Path
    source: Job | None = None


def reproduce(options: Namespace) -> None:
    """Run the rows of a target that are missing, and write its tables and figures."""
    has = {CONVERSION_METHODS: OF_METHODS, CONTROLS: (*OF_ROWS, *OF_CONTROLS)}
    known = has.get(options.target, OF_ROWS)
    for name in {*OF_ROWS, *OF_METHODS, *OF_CONTROLS} - {*known}:
        if options.get(name):
            raise ConfigError(
                f"reproduce {options.target} has no {name!r}; it has {', '.join(known)}. See "
                "topospike reproduce --help."
            )
    if options.target == CONVERSION_METHODS:
        reproduce_methods(options)
        return
    scale, seeds = options.get("scale") or "cpu", options.get("seeds") or [0]
    _ = SCALES[scale]
    recipe = options.get("recipe")
    place = Path(recipe).stem if recipe else scale
    folder = Path(options.get("folder") or DEFAULT_FOLDER) / place
    targets = targets_of(options.target, scale, recipe)
    chosen = {t.name: chosen_rows(t, options.get("row") or ()) for t in targets}
    failed: list[str] = []
    with process_group(choose_device(options.get("device"))):
        for target in targets:
            if not options.get("table_only"):
                failed += run_rows(target, chosen[target.name], folder, options, scale, seeds)
            if current_processes().is_main:
                write_target(target, folder, scale=scale, seeds=seeds)
    if failed:
        raise TopospikeError(
            f"{len(failed)} rows failed: {', '.join(dict.fromkeys(failed))}. The tables say why; "
            "the same command runs them again and keeps what is done."
        )


def targets_of(name: str, scale: str, recipe: str | None) -> list[Target]:
    """Return the target of a name; ``all`` are those of the paper."""
    if name == CONTROLS:
        return [controls(scale, recipe)]
    of_paper = [target for target in TARGETS.values() if target.table.source == PAPER]
    return of_paper if name == EVERYTHING else [TARGETS[name]]


def reproduce_methods(options: Namespace) -> None:
    """Compare conversion methods on the networks of run folders, or of the packaged example."""
    folder = Path(options.get("folder") or DEFAULT_FOLDER) / CONVERSION_METHODS
    device = options.get("device")
    given = [Path(name) for name in options.get("runs") or ()]
    rows = compare_methods(
        given or [example_run(folder / "runs", device)],
        options.get("methods") or COMPARED,
        images=options.get("images"),
        device=device,
    )
    paths = write_methods(rows, folder)
    print(f"{methods_text(rows)}\n\n{paths[0]}, {paths[1]}")


def run_rows(
    target: Target,
    rows: Sequence[PublishedRow],
    folder: Path,
    options: Namespace,
    scale: str,
    seeds: Sequence[int],
) -> list[str]:
    """Run every row with every seed; return the keys of those that failed."""
    failed = []
    for row in rows:
        for seed in seeds:
            job = job_of(row, folder, scale=scale, seed=seed, plan=target.plan)
            say(f"{target.name} {row.key}, seed {seed}: {job.folder}")
            if not carry_out(job, needs_topology=target.has_disks, device=options.get("device")):
                failed.append(row.key)
    return failed


def job_of(
    row: PublishedRow,
    folder: Path,
    *,
    scale: str,
    seed: int,
    plan: Callable[..., Experiment] = experiment,
) -> Job:
    """Return the recipe of a row, complete and checked, and the folder of its run."""
    return job_for(plan(row, scale=scale, seed=seed), folder)


def job_for(planned: Experiment, folder: Path) -> Job:
    """Return the job of an experiment, and of the one it starts from."""
    recipe = recipe_of(planned.base, planned.name, json.dumps(planned.changes, sort_keys=True))
    source = job_for(planned.pruned_from, folder) if planned.pruned_from is not None else None
    return Job(planned, recipe, run_folder(folder / "runs", recipe), source)


@functools.cache
def recipe_of(base: str, name: str, changes: str) -> Recipe:
    """Return a packaged recipe with changes, as JSON; checked once for all rows that share it."""
    return parts(resolve(base, {**json.loads(changes), "name": name}))[0]


def carry_out(job: Job, *, needs_topology: bool, device: str | None) -> bool:
    """Run one row, or write down why it failed; tell whether it is done."""
    try:
        work(job, needs_topology=needs_topology, device=device)
    except Exception as error:  # Whatever goes wrong in one row, the others are still wanted.
        if not isinstance(error, TopospikeError):
            traceback.print_exc()
        note_failure(job, f"{type(error).__name__}: {' '.join(str(error).split())}")
        return False
    note_failure(job, None)
    return True


def work(job: Job, *, needs_topology: bool, device: str | None) -> None:
    """Train, convert and measure, or analyse, what a row needs; what is done is kept."""
    if job.source is not None:
        work(job.source, needs_topology=False, device=device)
        prune_run(job.source.folder, job.folder, job.recipe, device=device)
    with locked(job.folder):
        work_in_folder(job, needs_topology=needs_topology, device=device)


def work_in_folder(job: Job, *, needs_topology: bool, device: str | None) -> None:
    """Do what `work` does, in the folder of a row that is locked."""
    run = Run(job.recipe, job.folder, device=device)
    refuse_changed_settings(run)
    with run.recorded():
        if job.experiment.network == "initial":
            analyse_initial(run)
            return
        for network in run.networks:
            (train_spiking if is_direct(run) else make_network)(run, network)
        network = run.networks[0 if job.experiment.network == "dense" else -1]
        conversion = job.experiment.conversion
        if conversion is not None and trained_kind(job.recipe, conversion) is not None:
            quantise_network(run, network)
        if not run.processes.is_main:
            return
        run.processes = Processes()
        if is_direct(run):
            measure_spiking(run, network)
        for settings in job.recipe.convert:
            if settings.method == conversion and not is_direct(run):
                convert_network(run, network, settings)
                measure_network(run, network, settings)
        if needs_topology and network.is_sparse:
            analyse_network(run)
        write_summary(run)


def analyse_initial(run: Run) -> None:
    """Analyse the topology that the sparse network starts from."""
    path = run.folder / INITIAL_REPORT

    def action() -> list[Path]:
        topology = new_sparsifier(run, fresh_model(run)).freeze()
        analyse(topology, seed=run.recipe.seed, progress=say).save(path)
        return [path]

    run.stage("analyse initial", {"seed": run.recipe.seed}, action)


def note_failure(job: Job, message: str | None) -> None:
    """Keep the error of a row in its run folder, or remove it after a success."""
    path = job.folder / FAILURES
    known = read_optional(path, dict[str, str]) or {}
    name = job.experiment.part
    if message is None:
        known.pop(name, None)
    else:
        known[name] = message
    if known:
        write_json(path, known)
    else:
        path.unlink(missing_ok=True)


def write_target(target: Target, folder: Path, *, scale: str, seeds: Sequence[int]) -> None:
    """Write the tables and figures of a target from the run folders, whoever ran them."""
    outcomes = {}
    for row in target.table.rows:
        jobs = [job_of(row, folder, scale=scale, seed=s, plan=target.plan) for s in seeds]
        outcomes[row.key] = [outcome_of(row, job, folder) for job in jobs]
    lines = compare(outcomes, target.table.rows, target.quantities)
    drawings = draw(target, lines, folder)
    if target.name == CONTROLS:
        compared = control_lines(target, outcomes, seeds)
        paths = write_controls(target, compared, folder, scale=scale)
        print(paths[0].read_text())
    else:
        paths = write_comparison(target, lines, folder, scale=scale, drawings=drawings)
    done = sum(bool(line.done) for line in lines)
    failed = sum(outcome.state == FAILED for line in lines for outcome in line.outcomes)
    print(f"{target.name}: {done} of {len(lines)} rows done, {failed} failed: {paths[0]}")
    sys.stdout.flush()


def outcome_of(row: PublishedRow, job: Job, folder: Path) -> Outcome:
    """Read one row's outcome, and keep a copy of its records beside the tables."""
    copy_records(job.folder, folder / "records" / job.folder.name)
    return read_outcome(job.folder, job.experiment, timesteps=row.timesteps)


def copy_records(source: Path, target: Path) -> None:
    """Copy the small files of a run: everything a number in a table can be checked by."""
    names = (*RECORDS, "topology_report.json", INITIAL_REPORT)
    for path in source.rglob("*.json*"):
        if path.name in names:
            write_atomically(target / path.relative_to(source), read_bytes(path, most=MOST_LOG))
