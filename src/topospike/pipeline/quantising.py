"""Pipeline: training quantised activations between a finished network and its conversion.

Stage 1 gives every rectifier of a trained network one learnt threshold, stage 2 goes on from there
with one a channel. The links are frozen: gradients of absent ones are zeroed by the same hook as
in sparse training, and the digest of the topology is compared before and after. Each stage has a
folder of its own (``quantised/KIND``) with metrics, checkpoints and weights, so it is resumed like
any training. Nothing is converted here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from topospike.conversion import METHODS, quantise_activations, to_channel_thresholds
from topospike.errors import ConfigError, TopologyViolation
from topospike.evolve import keep_links
from topospike.models.qcfs import ACTIVATION_KINDS, QCFS, Order
from topospike.models.rectifier_calls import take_out_activations
from topospike.pipeline.folder.ledger import differences
from topospike.pipeline.networks import (
    calibration_images,
    digest,
    fresh_model,
    load_weights,
    save_weights,
    trained_model,
    training_settings,
)
from topospike.pipeline.run import Network, Run
from topospike.recipe import Recipe, TrainSettings
from topospike.recipe.files import to_plain
from topospike.topology import Topology, masks_of
from topospike.train import fit
from topospike.train.resume import MetricsLog

LAYER_WISE = "s-qcfs"
CHANNEL_WISE = "cs-qcfs"
THRESHOLD_IMAGES = 1024


def trained_kind(recipe: Recipe, method: str) -> str | None:
    """Return the kind of activation whose training a method uses, ``None`` for a plain network."""
    return METHODS[method].activations if recipe.quantise.epochs else None


def kinds_to_train(recipe: Recipe) -> tuple[str, ...]:
    """Return the kinds the recipe's conversions need, in the order they are trained.

    Examples
    --------
    >>> from topospike.recipe import ConversionSettings, QuantisationSettings
    >>> kinds_to_train(Recipe(
    ...     convert=(ConversionSettings("dcgs"), ConversionSettings("cs-qcfs")),
    ...     quantise=QuantisationSettings(epochs=3, channel_epochs=1),
    ... ))
    ('s-qcfs', 'cs-qcfs')
    """
    asked = {trained_kind(recipe, settings.method) for settings in recipe.convert}
    if CHANNEL_WISE in asked:
        asked.add(LAYER_WISE)
    return tuple(kind for kind in ACTIVATION_KINDS if kind in asked)


def quantise_network(run: Run, network: Network) -> None:
    """Train every kind of quantised activation that the conversions of a network need."""
    for kind in kinds_to_train(run.recipe):
        train_kind(run, network, kind)


def is_missing(run: Run, network: Network, method: str) -> bool:
    """Tell whether a method needs trained activations that are not in the folder."""
    kind = trained_kind(run.recipe, method)
    return kind is not None and not (kind_folder(network, kind) / "model.safetensors").is_file()


def train_kind(run: Run, network: Network, kind: str) -> None:
    """Train one kind on one network, and save it."""
    name, folder = stage_name(network, kind), kind_folder(network, kind)
    settings = quantised_settings(run, network, kind)
    changed = changed_quantisation(run, network, kind)

    def action() -> list[Path]:
        model = untrained(run, network, kind)
        before = topology_digest(model)
        frozen = kind == CHANNEL_WISE and run.recipe.quantise.freeze_weights
        prepare(model, run.recipe, freeze=frozen)
        fit(
            model,
            run.data,
            stage_training(run.recipe, kind),
            folder=folder,
            seed=run.recipe.seed,
            # frozen weights need no guard, and an optimizer that does not have them has no hook
            sparsifier=keep_links(model) if before and not frozen else None,
            device=run.device,
            resume=not changed,
            label=name,
            method=run.method,
        )
        after = topology_digest(model)
        if after != before:
            raise TopologyViolation(
                f"{name} changed the topology: its digest was {before} and is {after}. Please "
                "report this, and convert the network without quantise.epochs."
            )
        if run.processes.is_main:
            MetricsLog(folder / "metrics.jsonl").write("thresholds", threshold_record(model))
            save_weights(model, folder / "model.safetensors")
        return [folder / "metrics.jsonl", folder / "model.safetensors"]

    run.stage(name, settings, action)


def untrained(run: Run, network: Network, kind: str) -> nn.Module:
    """Return the model a stage starts from: the trained network, or for stage 2 that of stage 1."""
    example = example_images(run).to(run.device)
    if kind == CHANNEL_WISE:
        return to_channel_thresholds(quantised_model(run, network, LAYER_WISE), example)
    settings = run.recipe.quantise
    images = None
    if settings.percentile is not None:
        images = [x.to(run.device) for x in calibration_images(run.data, THRESHOLD_IMAGES)]
    return with_activations(
        trained_model(run, network), run.recipe, kind, example=example, images=images
    )


def with_activations(
    model: nn.Module,
    recipe: Recipe,
    kind: str,
    *,
    example: Tensor,
    images: list[Tensor] | None = None,
) -> nn.Module:
    """Give a model the activations of a recipe; their thresholds are still to be trained."""
    settings = recipe.quantise
    order: Order = settings.order  # pyright: ignore[reportAssignmentType]  # checked by QCFS
    return quantise_activations(
        model,
        example,
        kind=kind,
        levels=settings.levels,
        theta_init=settings.initial_threshold,
        calibration=images,
        percentile=settings.percentile if settings.percentile is not None else 1.0,
        positive_map=settings.positive_map if kind in (LAYER_WISE, CHANNEL_WISE) else None,
        order=order,
    )


def prepare(model: nn.Module, recipe: Recipe, *, freeze: bool) -> None:
    """Set dropout, and leave only thresholds to train if asked."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = recipe.quantise.dropout
    if freeze:
        model.requires_grad_(False)
        for module in model.modules():
            if isinstance(module, QCFS):
                module.requires_grad_(True)


def stage_training(recipe: Recipe, kind: str) -> TrainSettings:
    """Return optimizer and schedule of a stage; precision and memory format are the recipe's."""
    settings = recipe.quantise
    second = kind == CHANNEL_WISE
    return dataclasses.replace(
        recipe.train,
        epochs=settings.channel_epochs if second else settings.epochs,
        learning_rate=settings.learning_rate * (settings.channel_rate if second else 1.0),
        optimizer="sgd",
        momentum=0.9,
        weight_decay=settings.weight_decay,
        schedule="cosine",
        warmup_epochs=0.0,
        final_learning_rate_fraction=0.0,
        milestones=(),
        restart_every_epochs=0.0,
        restart_warmup_epochs=0.0,
        label_smoothing=0.0,
        gradient_clip=None,
        ema_decay=0.0,
    )


def quantised_model(run: Run, network: Network, kind: str) -> nn.Module:
    """Read a network with trained activations; a sparse one must have its saved topology."""
    example = example_images(run)
    model = with_activations(fresh_model(run), run.recipe, kind, example=example)
    load_weights(model, kind_folder(network, kind) / "model.safetensors")
    if network.is_sparse:
        run.topology(network).verify(model)
    return model.to(run.device).eval()


def example_images(run: Run) -> Tensor:
    """Return a few images to capture models with, on the CPU."""
    return next(calibration_images(run.data, 8)).cpu()


def quantised_settings(run: Run, network: Network, kind: str) -> dict[str, Any]:
    """Return everything the weights of a stage depend on."""
    quantise = to_plain(run.recipe.quantise)
    if kind != CHANNEL_WISE:
        for name in ("channel_epochs", "channel_rate", "freeze_weights"):
            del quantise[name]
    return {"trained": digest(training_settings(run, network)), "quantise": quantise}


def changed_quantisation(run: Run, network: Network, kind: str) -> list[str]:
    """Return the settings in which a stage already trained in the folder differs."""
    settings = quantised_settings(run, network, kind)
    before = run.ledger.settings(stage_name(network, kind), like=settings)
    return [] if before is None else list(differences(before, settings))


def refuse_changed_quantisation(run: Run, network: Network) -> None:
    """Raise `ConfigError` if the folder holds activations trained with other settings."""
    for kind in kinds_to_train(run.recipe):
        changed = changed_quantisation(run, network, kind)
        if changed and not run.overwrite:
            raise ConfigError(
                f"{kind_folder(network, kind)} holds activations trained with other settings: "
                f"{', '.join(changed)}. Choose another --folder, go back to those settings, or "
                "--overwrite to train again."
            )


def stage_name(network: Network, kind: str) -> str:
    """Return the name of a stage in the ledger."""
    return f"quantise {network.name} {kind}"


def kind_folder(network: Network, kind: str) -> Path:
    """Return the folder of a stage."""
    return network.folder / "quantised" / kind


def topology_digest(model: nn.Module) -> str | None:
    """Return the digest of a model's masks, after checking its weights; ``None`` for none."""
    if not masks_of(model):
        return None
    return Topology.from_model(model).digest


def threshold_record(model: nn.Module) -> dict[str, Any]:
    """Describe the learnt thresholds, by site."""
    thetas = {
        name: one.theta.detach().double()
        for name, one in take_out_activations(model)[1].named.items()
    }
    return {
        "sites": {
            name: {
                "channels": theta.numel(),
                "min": theta.min().item(),
                "mean": theta.mean().item(),
                "max": theta.max().item(),
            }
            for name, theta in thetas.items()
        }
    }
