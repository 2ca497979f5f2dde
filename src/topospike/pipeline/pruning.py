"""Pipeline: sparse networks that come from a dense one by pruning.

The dense network is the run's dense twin, or, where training goes on after pruning, one of its own
(``pretrained``) that is trained for the epochs before. ``topospike prune`` gives every pruned
network a run folder of its own with a copy of the dense one, so that converting, measuring,
analysing and reporting know no difference.
"""

from __future__ import annotations

import dataclasses
import filecmp
import os
import shutil
from pathlib import Path

from torch import nn

from topospike.errors import ConfigError, MissingDataError
from topospike.evolve import keep_links
from topospike.files.reading import require_regular
from topospike.files.seal import require_intact
from topospike.pipeline.folder.ledger import Ledger
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.networks import (
    fresh_model,
    load_weights,
    save_weights,
    starting_model,
)
from topospike.pipeline.run import Network, Run
from topospike.pipeline.stages import (
    calibration_images,
    changed_settings,
    refuse_changed_settings,
    remove_results,
    train_network,
    training_settings,
)
from topospike.pruning import PruneReport
from topospike.pruning import prune as prune_model
from topospike.recipe import Recipe, TrainSettings
from topospike.topology import Topology
from topospike.train import fit

REPORT_FILE = "prune.json"
PRETRAINED = "pretrained"
WEIGHTS = "dense/model.safetensors"


def make_network(run: Run, network: Network) -> None:
    """Train a network, or prune a trained one, unless that was done before."""
    if network.is_pruned:
        prune_network(run, network)
    else:
        train_network(run, network)


def prune_network(run: Run, network: Network) -> None:
    """Prune a dense network as the recipe says, train it on if asked, and save it."""
    settings = training_settings(run, network)
    changed = changed_settings(run, network)
    source = dense_source(run, changed=bool(changed))

    def action() -> list[Path]:
        if changed and run.processes.is_main:
            remove_results(run, network)
        model = fresh_model(run)
        load_weights(model, source.folder / "model.safetensors")
        report = prune_as_set(run, model.to(run.device))
        outputs = [network.folder / REPORT_FILE]
        if run.recipe.prune.fine_tune:
            fine_tune(run, network, model, resume=not changed)
            outputs.append(network.folder / "metrics.jsonl")
        provenance = {"method": report.method, "target": dict(report.target)}
        topology = Topology.from_model(model, provenance=provenance)
        run.record.write(topology_digest=topology.digest)
        if run.processes.is_main:
            report.save(network.folder / REPORT_FILE)
            topology.save(network.folder / "topology.npz")
            save_weights(model, network.folder / "model.safetensors")
        return [*outputs, network.folder / "topology.npz", network.folder / "model.safetensors"]

    run.stage(network.stage, settings, action)


def dense_source(run: Run, *, changed: bool) -> Network:
    """Return the dense network to prune; one that only pruning needs is trained here."""
    if run.recipe.dense_twin and not run.recipe.prune.fine_tune:
        return next(network for network in run.networks if network.name == "dense")
    source = Network(PRETRAINED, run.folder / PRETRAINED, is_sparse=False)
    phase = first_phase(run.recipe)
    settings = {**training_settings(run, source), "epochs before pruning": phase.epochs}

    def action() -> list[Path]:
        model = starting_model(run)
        fit(
            model,
            run.data,
            phase,
            folder=source.folder,
            seed=run.recipe.seed,
            device=run.device,
            resume=not changed,
            label=source.stage,
            method=run.method,
        )
        if run.processes.is_main:
            save_weights(model, source.folder / "model.safetensors")
        return [source.folder / "metrics.jsonl", source.folder / "model.safetensors"]

    run.stage(source.stage, settings, action)
    return source


def prune_as_set(run: Run, model: nn.Module) -> PruneReport:
    """Prune a model by the recipe's method, on training images without augmentation."""
    settings, sparsity = run.recipe.prune, run.recipe.sparsity
    return prune_model(
        model,
        settings.method or "",
        {"linear": sparsity.linear, "conv": sparsity.conv},
        calibration_images(run.data, settings.calibration_images),
        comparison=settings.comparison,
        inputs=settings.inputs,
        exponent=settings.exponent,
        damping=settings.damping,
        fuse_qkv=settings.fuse_qkv,
        widths=settings.widths,
        tolerance=settings.tolerance,
    )


def fine_tune(run: Run, network: Network, model: nn.Module, *, resume: bool) -> None:
    """Train a pruned network on, with its links as they are."""
    dropout = run.recipe.prune.fine_tune_dropout
    for module in model.modules():
        if dropout is not None and isinstance(module, nn.Dropout):
            module.p = dropout
    fit(
        model,
        run.data,
        second_phase(run.recipe),
        folder=network.folder,
        seed=run.recipe.seed,
        sparsifier=keep_links(model),
        device=run.device,
        resume=resume,
        label=f"fine-tune {network.name}",
        method=run.method,
    )


def first_phase(recipe: Recipe) -> TrainSettings:
    """Return how the dense network is trained before it is pruned.

    Examples
    --------
    >>> from topospike.recipe import PruneSettings
    >>> recipe = Recipe(prune=PruneSettings("depgraph", fine_tune=1 / 3))
    >>> first_phase(recipe).epochs, second_phase(recipe).epochs
    (133, 67)
    """
    epochs = max(1, round((1.0 - recipe.prune.fine_tune) * recipe.train.epochs))
    return shortened(recipe.train, epochs)


def second_phase(recipe: Recipe) -> TrainSettings:
    """Return how a pruned network is trained on: a new schedule, a smaller rate, no warm-up."""
    epochs = max(1, recipe.train.epochs - first_phase(recipe).epochs)
    rate = recipe.train.learning_rate * recipe.prune.fine_tune_rate
    start = dataclasses.replace(recipe.train, learning_rate=rate, warmup_epochs=0.0)
    return shortened(start, epochs)


def shortened(settings: TrainSettings, epochs: int) -> TrainSettings:
    """Fit a schedule into fewer epochs; its milestones move along."""
    share = epochs / settings.epochs
    milestones = tuple(float(round(epoch * share)) for epoch in settings.milestones)
    return dataclasses.replace(settings, epochs=epochs, milestones=milestones)


def prune_run(source: Path, folder: Path, recipe: Recipe, *, device: str | None) -> PruneReport:
    """Prune the dense network of a run folder into another one; return what was done.

    Raises
    ------
    MissingDataError
        The folder holds no trained dense network.
    ConfigError
        The pruned folder belongs to another dense network.
    """
    known = Ledger(source)
    if "train dense" not in known.seconds:
        raise MissingDataError(
            f"{source} holds no trained dense network to prune; train one first, with "
            "dense_twin: true in its recipe."
        )
    with locked(folder):
        run = Run(recipe, folder, device=device, overwrite=True)
        copy_dense(source, run, known)
        refuse_changed_settings(run)
        with run.recorded():
            for network in run.networks:
                make_network(run, network)
    return PruneReport.load(folder / REPORT_FILE)


def copy_dense(source: Path, run: Run, known: Ledger) -> None:
    """Copy the dense network, with what was measured of it, unless it is there."""
    if source.resolve() == run.folder.resolve():
        return
    if (run.folder / WEIGHTS).is_file():
        if not filecmp.cmp(source / WEIGHTS, run.folder / WEIGHTS, shallow=False):
            raise ConfigError(
                f"{run.folder} holds the pruning of another dense network than {source} has now; "
                "choose another folder by --to, or delete that one."
            )
        return
    require_intact(source / WEIGHTS)
    for name in run.ledger.adopt(known, "dense"):
        if name != WEIGHTS and os.path.lexists(source / name):  # else missing in the copy as well
            copy_whole(source / name, run.folder / name)
    copy_whole(source / WEIGHTS, run.folder / WEIGHTS)  # last: they say that all are there


def copy_whole(source: Path, target: Path) -> None:
    """Copy a regular file; a command that is killed leaves a whole copy or none."""
    require_regular(source)  # a device would be copied without end
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}")
    shutil.copyfile(source, unfinished)
    unfinished.replace(target)
