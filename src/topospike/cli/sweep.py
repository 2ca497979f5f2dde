"""Command line: ``topospike sweep``, one recipe with many settings, on Ray Tune.

Every trial is an ordinary run in a folder named after its settings, so a trial that is killed goes
on from its last checkpoint, a second start keeps what is done, and every result can be reported,
converted and analysed like any other. Ray shares out processors and accelerators, here or on a
cluster whose machines see the same folder, and starts failed trials again. What is searched is in
`topospike.cli.search`, and so is which trial is best.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from rich.table import Table

from topospike.cli.display import output
from topospike.cli.search import (
    SELECTIONS,
    Judgement,
    Space,
    best_of,
    grid_points,
    judge_run,
    nested,
    parse_space,
)
from topospike.contracts import write_json
from topospike.errors import ConfigError, TopospikeError, require
from topospike.files.reading import read_optional
from topospike.pipeline.api import run_everything
from topospike.pipeline.folder.ledger import plain
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.networks import run_folder
from topospike.pipeline.run import Run
from topospike.progress import say
from topospike.recipe import Recipe
from topospike.recipe.files import merged, recipe_from, resolve, to_plain, to_yaml
from topospike.report.simulation import Measured

RESULT = "trial.json"
SEARCHES = ("grid", "optuna")
OPTIONS = (
    "recipe", "space", "search", "samples", "select", "judge", "address", "cpus", "gpus",
    "retries", "folder", "device", "print_config", "debug",
)  # fmt: skip


REACH_SECONDS = 5.0
# What Ray's own start raises, besides its RayError, for an address or a machine it cannot use.
START_ERRORS = (OSError, RuntimeError, ValueError, OverflowError)


@dataclass(frozen=True)
class Trial:
    """One point of the search: its settings, its run folder, and what came out."""

    settings: Mapping[str, Any]
    folder: str
    score: float | None = None
    validation: float | None = None
    test: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class JudgedTrial(Trial):
    """A trial as ``trial.json`` holds it, with how it was judged."""

    judgement: Judgement


@dataclass(frozen=True)
class Order:
    """What every trial must know: the recipe, where runs go, and how they are judged."""

    recipe: Mapping[str, Any]
    root: str
    judgement: Judgement
    device: str | None

    def recipe_at(self, point: Mapping[str, Any]) -> Recipe:
        """Return the recipe with a point's settings, checked."""
        changes = {**nested(point), "name": self.recipe["name"]}
        return recipe_from(merged(self.recipe, changes), source="the sweep")

    def folder_at(self, point: Mapping[str, Any]) -> Path:
        """Return the run folder of a point."""
        return run_folder(Path(self.root), self.recipe_at(point))


def sweep(options: Namespace) -> None:
    """Run every trial that is missing, and write and print which is best."""
    typed = {k: v for k, v in to_plain(options).items() if k not in OPTIONS}
    recipe = resolve(options.recipe, typed)
    if options.get("print_config"):
        print(to_yaml(recipe), end="")
        return
    space = parse_space(options.get("space") or [], known=recipe)
    search, select = options.get("search") or "grid", options.get("select") or "validation"
    for value, known, name in ((search, SEARCHES, "search"), (select, SELECTIONS, "select")):
        if value not in known:
            raise ConfigError(f"--{name} is {value!r}; one of {', '.join(known)} is required.")
    folder = Path(options.get("folder") or Path("runs") / f"sweep-{recipe.name}").absolute()
    metric = recipe.measure.metric
    judgement = Judgement(select, options.get("judge") or "ann", metric).checked(recipe)
    order = Order(to_plain(recipe), str(folder), judgement, options.get("device"))
    resources = {"cpu": options.get("cpus") or 1.0, "gpu": options.get("gpus") or 0.0}
    work = Work(order, resources, retries=options.get("retries", 2), address=options.get("address"))
    if search == "grid":
        trials = run_grid(work, grid_points(space))
    else:
        trials = run_optuna(work, space, samples=options.get("samples") or 20, seed=recipe.seed)
    finish(folder, trials, judgement)


@dataclass(frozen=True)
class Work:
    """An order with the means to carry it out."""

    order: Order
    resources: Mapping[str, float]
    retries: int
    address: str | None


def run_grid(work: Work, points: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """Run every point; those that were finished before are not started at all."""
    known = {index: finished(work.order, point) for index, point in enumerate(points)}
    missing = [index for index, trial in known.items() if trial is None]
    say(f"{len(points)} trials, {len(points) - len(missing)} finished before")
    fresh: dict[int, Trial] = {}
    if missing:
        # What ray.tune.grid_search returns; Ray is imported once it is known to be there.
        space = {"point": {"grid_search": missing}}
        for index, trial in tuned(work, space, points=points, samples=1, search=None):
            fresh[index] = trial
    unfinished = [Trial(p, str(work.order.folder_at(p)), error="lost") for p in points]
    return [known[i] or fresh.get(i) or unfinished[i] for i in range(len(points))]


def run_optuna(work: Work, space: Space, *, samples: int, seed: int) -> list[Trial]:
    """Let Optuna choose the points; the same seed begins with the same ones."""
    require("ray", "optuna", purpose="topospike sweep")
    from optuna.samplers import TPESampler
    from ray.tune.search.optuna import OptunaSearch

    mode = "min" if work.order.judgement.lower_is_better else "max"
    search = OptunaSearch(metric="score", mode=mode, sampler=TPESampler(seed=seed))
    found = tuned(work, space.for_ray(), points=None, samples=samples, search=search)
    return [trial for _, trial in found]


def tuned(
    work: Work,
    space: Mapping[str, Any],
    *,
    points: Sequence[Mapping[str, Any]] | None,
    samples: int,
    search: Any,
) -> list[tuple[int, Trial]]:
    """Hand trials to Ray Tune and collect what became of each; numbers count within the grid."""
    start_ray(work.address)
    import ray
    from ray import tune

    def point_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
        return points[config["point"]] if points is not None else config

    order = work.order

    def trainable(config: dict[str, Any]) -> None:
        result = carry_out(order, point_of(config))
        tune.report({"score": result.score})

    failure = tune.FailureConfig(max_failures=work.retries)
    tuner = tune.Tuner(
        tune.with_resources(trainable, dict(work.resources)),
        param_space=dict(space),
        tune_config=tune.TuneConfig(num_samples=samples, search_alg=search),
        run_config=tune.RunConfig(
            name="ray", storage_path=order.root, failure_config=failure, verbose=0
        ),
    )
    try:
        results = tuner.fit()
    finally:
        ray.shutdown()
    found = []
    for result in results:
        config = result.config or {}
        point = point_of(config)
        trial = finished(order, point)
        if trial is None:
            reason = " ".join(str(result.error or "it did not end").split())
            trial = Trial(point, str(order.folder_at(point)), error=reason[-300:])
        found.append((config.get("point", len(found)), trial))
    return found


def carry_out(order: Order, point: Mapping[str, Any]) -> Trial:
    """Run one trial to its end in its folder, judge it, and write down the result."""
    folder = order.folder_at(point)
    with locked(folder):
        run = Run(order.recipe_at(point), folder, device=order.device)
        run_everything(run)
        validation, test, score = judge_run(run, order.judgement)
        trial = Trial(point, str(folder), score, validation, test)
        record = {**asdict(trial), "judgement": asdict(order.judgement)}

        def action() -> list[Path]:
            write_json(folder / RESULT, record)
            return [folder / RESULT]

        run.always("trial", action)
    return trial


def finished(order: Order, point: Mapping[str, Any]) -> Trial | None:
    """Return the result of a trial that ended before under the same judgement."""
    judged = read_optional(order.folder_at(point) / RESULT, JudgedTrial)
    if judged is None or (judged.judgement, judged.settings) != (order.judgement, plain(point)):
        return None
    return Trial(point, *(getattr(judged, f.name) for f in fields(Trial)[1:]))


def finish(folder: Path, trials: Sequence[Trial], judgement: Judgement) -> None:
    """Write ``sweep.json``, print the table, and say which trial is best.

    Raises
    ------
    TopospikeError
        Trials have failed, every retry included.
    """
    scores = [trial.score for trial in trials]
    best = best_of(scores, lower_is_better=judgement.lower_is_better)
    content = {
        "judgement": {**asdict(judgement), "rule": judgement.rule},
        "best": None if best is None else trials[best].folder,
        "trials": [asdict(trial) for trial in trials],
    }
    write_json(folder / "sweep.json", content)
    output().print(table_of(trials, best, Measured(judgement.metric)))
    print(f"selected by {judgement.rule}: {content['best']}")
    failed = [trial for trial in trials if trial.error is not None]
    if failed:
        raise TopospikeError(
            f"{len(failed)} of {len(trials)} trials failed, the first in {failed[0].folder}: "
            f"{failed[0].error}. The same command runs them again and keeps what is done."
        )


def table_of(trials: Sequence[Trial], best: int | None, measured: Measured) -> Table:
    """Return one line a trial."""
    table = Table(box=None, pad_edge=False)
    for name in dict.fromkeys(name for trial in trials for name in trial.settings):
        table.add_column(name)
    for name in ("validation", "test", "score", ""):
        table.add_column(name, justify="right")
    for index, trial in enumerate(trials):
        values = (trial.validation, trial.test, trial.score)
        texts = ["-" if value is None else measured.written(value) for value in values]
        note = "best" if index == best else ("failed" if trial.error else "")
        table.add_row(*(str(value) for value in trial.settings.values()), *texts, note)
    return table


def start_ray(address: str | None) -> None:
    """Connect to a cluster, or start Ray on this machine, without its dashboard and its log.

    An address at which nothing answers is refused within seconds; Ray itself would try for minutes.

    Raises
    ------
    ConfigError
        No cluster answers at the address.
    TopospikeError
        Ray cannot be started here.
    MissingDependencyError
        Ray is not installed.
    """
    require("ray", "optuna", purpose="topospike sweep")
    import ray
    from ray.exceptions import RayError

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    try:
        if address is not None:
            reach(address)
        ray.init(
            address=address,
            include_dashboard=False if address is None else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (*START_ERRORS, RayError) as error:
        ray.shutdown()
        raise cannot_start(address, error) from error


def reach(address: str) -> None:
    """Open and close a connection to the host and port of an address, if it has them."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_SECONDS).close()


def cannot_start(address: str | None, error: Exception) -> TopospikeError:
    """Return the error for a Ray that did not start, with Ray's reason on one line."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if address is None:
        return TopospikeError(
            f"Ray could not start on this machine ({reason}). It needs free processors, memory "
            "and space in its temporary folder; free some, set RAY_TMPDIR to another folder, or "
            "name a running cluster by --address."
        )
    return ConfigError(
        f"--address is {address!r}, where no Ray cluster can be used ({reason}). HOST:PORT of a "
        "head node started by `ray start --head` is required, or 'auto' on one of its machines; "
        "leave --address out to start Ray on this machine."
    )
