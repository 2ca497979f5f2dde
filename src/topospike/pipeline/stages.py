"""Pipeline: the stages of a run, each from what is in the folder to what it adds to it.

A stage states its settings (what its result depends on), and `Run.stage` decides whether anything
is left to do. Every stage reads the networks from their files, never from an earlier stage's
memory, so a run continued tomorrow computes what a run in one go computes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topospike.analysis import save_history
from topospike.contracts import ConversionReport, to_json, write_atomically, write_json
from topospike.conversion import WeightReport, convert, quantise_weights
from topospike.data import SplitBatches
from topospike.errors import ConfigError, MissingDataError
from topospike.evolve import Sparsifier, sparsify
from topospike.export import load, save
from topospike.files.reading import read_bytes
from topospike.measure import compare_activations, evaluate, raster, settling
from topospike.pipeline.analysing import HISTORY_FILE, AnalysisSettings, measured, measured_series
from topospike.pipeline.folder.ledger import differences
from topospike.pipeline.networks import (
    calibration_images,
    digest,
    measured_images,
    save_weights,
    starting_model,
    trained_model,
    training_settings,
)
from topospike.pipeline.quantising import (
    is_missing,
    quantise_network,
    quantised_model,
    quantised_settings,
    refuse_changed_quantisation,
    trained_kind,
)
from topospike.pipeline.run import Network, Run
from topospike.pipeline.showing import conventions_of, hold_of, input_of, shown_data
from topospike.progress import watched
from topospike.recipe import ConversionSettings, MeasureSettings
from topospike.recipe.files import to_plain
from topospike.report.folder import read_conversion
from topospike.snn import SpikingNetwork
from topospike.topology import TopologySeries, saved_series
from topospike.train import fit, optimizer_steps

WEIGHTS = "weights.txt"
"""What rounding to whole weights changed, layer by layer, beside the conversion's record."""

CONVERSION_FILES = ("conversion.json", "activations.json", "evaluation.json")
SAVED_NETWORK = "network"
LATER = ("measure", "chip", "stream")
"""Stages that run what was converted."""
RASTER = "raster.json"
SUMMARY = "summary"
COMPARED_IMAGES = 128
SETTLED_IMAGES = 64
"""Test images run one by one until silence, where a network falls silent."""
CORRELATED_IMAGES = 20_000


def train_network(run: Run, network: Network) -> None:
    """Train one network, sparse ones with an evolving topology, and save it."""
    name, settings = network.stage, training_settings(run, network)
    changed = changed_settings(run, network)

    def action() -> list[Path]:
        is_main = run.processes.is_main
        if changed and is_main:
            remove_results(run, network)
        model = starting_model(run)
        sparsifier = new_sparsifier(run, model) if network.is_sparse else None
        fit(
            model,
            run.data,
            run.recipe.train,
            folder=network.folder,
            seed=run.recipe.seed,
            sparsifier=sparsifier,
            device=run.device,
            resume=not changed,
            label=name,
            method=run.method,
            after_update=topology_series(run, network, model),
        )
        outputs = [network.folder / "metrics.jsonl", network.folder / "model.safetensors"]
        if sparsifier is not None:
            topology = sparsifier.freeze()
            topology.verify(model)
            run.record.write(topology_digest=topology.digest)
            outputs.append(network.folder / "topology.npz")
            if is_main:
                topology.save(network.folder / "topology.npz")
            outputs += saved_series(network.folder).values()
        if is_main:
            save_weights(model, network.folder / "model.safetensors")
        return outputs

    run.stage(name, settings, action)


def changed_settings(run: Run, network: Network) -> list[str]:
    """Return the settings in which a network already trained in the folder differs."""
    settings = training_settings(run, network)
    before = run.ledger.settings(network.stage, like=settings)
    return [] if before is None else list(differences(before, settings))


def refuse_changed_settings(run: Run) -> None:
    """Raise `ConfigError` if the folder holds networks trained with other settings.

    Asked before anything is written, so that a refused command leaves the folder as it was.
    """
    for network in run.networks:
        changed = changed_settings(run, network)
        if changed and not run.overwrite:
            raise ConfigError(
                f"{network.folder} holds a network trained with other settings: "
                f"{', '.join(changed)}. Choose another --folder, go back to those settings, or "
                "--overwrite to train again."
            )
        refuse_changed_quantisation(run, network)


def remove_results(run: Run, network: Network) -> None:
    """Delete what was computed from a network that is about to be trained again."""
    for path in saved_series(network.folder).values():
        path.unlink()
    ours = [stage for stage in run.ledger.stages if stage.split()[1:2] == [network.name]]
    later = [stage for stage in ours if stage.split()[0] in ("convert", *LATER)]
    analyses = [stage for stage in run.ledger.stages if stage.split()[0] == "analyse"]
    run.ledger.discard(*later, *(analyses if network.is_sparse else ()), SUMMARY)


def correlated_pixels(run: Run) -> Tensor:
    """Return training images, one flattened image a row, for topologies of correlated pixels.

    Normalisation shifts and scales each channel, which leaves every correlation as it is. Of
    recordings each frame is a row.
    """
    rows: list[Tensor] = []
    frames = run.recipe.data.events.frames > 0
    for images, _ in (run.data.over_time if frames else run.data).calibration:
        rows.append(images.flatten(0, int(frames)).flatten(1))
        if sum(len(part) for part in rows) >= CORRELATED_IMAGES:
            break
    return torch.cat(rows)[:CORRELATED_IMAGES]


def new_sparsifier(run: Run, model: nn.Module) -> Sparsifier:
    """Make a fresh network sparse as the recipe says."""
    settings, train = run.recipe.sparsity, run.recipe.train
    length = {"epochs": train.epochs}
    if settings.update_unit == "step":
        length = {"steps": train.epochs * optimizer_steps(train, batches=len(run.data.train))}
    topologies = settings.initial_topology
    names = topologies.values() if isinstance(topologies, dict) else (topologies,)
    return sparsify(
        model,
        settings,
        **length,
        seed=run.recipe.seed,
        csti_features=correlated_pixels(run) if {"csti", "sscti"} & {*names} else None,
        example_input=next(iter(run.data.validation))[0][:2],
    )


def topology_series(run: Run, network: Network, model: nn.Module) -> TopologySeries | None:
    """Return what saves the topologies on the way of a fresh network, if the recipe wants that."""
    every = run.recipe.sparsity.keep_every
    if not (network.is_sparse and every):
        return None
    return TopologySeries(model, network.folder, every=every, writes=run.processes.is_main)


def convert_network(run: Run, network: Network, settings: ConversionSettings) -> ConversionReport:
    """Convert one trained network by one method, and return what the conversion did."""
    path = conversion_folder(network, settings) / "conversion.json"
    compared = path.with_name("activations.json")

    def action() -> list[Path]:
        run.ledger.discard(*(f"{kind} {network.name} {settings.label}" for kind in LATER))
        snn, weights = new_spiking_network(run, network, settings)
        images = calibration_images(shown_data(run, settings), COMPARED_IMAGES)
        comparison = compare_activations(snn, images, compared_steps(settings.timesteps))
        comparison.save(compared)
        write_json(path, to_json(snn.report))
        written = [path, compared, *save(snn, path.with_name(SAVED_NETWORK))]
        rounded = path.with_name(WEIGHTS)
        rounded.unlink(missing_ok=True)
        if weights is not None:
            write_atomically(rounded, weights.text() + "\n")
            written.append(rounded)
        return written

    if is_missing(run, network, settings.method):
        quantise_network(run, network)
    stage, depends = conversion_stage(run, network, settings)
    run.stage(stage, depends, action)
    report = read_conversion(path)
    if report is None:
        raise MissingDataError(f"{path} vanished while it was in use; repeat the command.")
    return report


def conversion_stage(
    run: Run, network: Network, settings: ConversionSettings
) -> tuple[str, dict[str, Any]]:
    """Return the name of a conversion in the ledger, and what it depends on."""
    name = f"convert {network.name} {settings.label}"
    return name, conversion_settings(run, network, settings)


def conversion_settings(run: Run, network: Network, settings: ConversionSettings) -> dict[str, Any]:
    """Return everything a spiking network depends on."""
    depends = {
        "trained": digest(training_settings(run, network)),
        "conversion": to_plain(settings),
    }
    kind = trained_kind(run.recipe, settings.method)
    if kind is not None:
        depends["quantised"] = digest(quantised_settings(run, network, kind))
    return depends


def conversion_folder(network: Network, settings: ConversionSettings) -> Path:
    """Return the folder of one conversion of one network."""
    return network.folder / "conversions" / settings.label


def compared_steps(timesteps: int) -> tuple[int, ...]:
    """Return the steps at which activations are compared: powers of two, and the last.

    Examples
    --------
    >>> compared_steps(12)
    (1, 2, 4, 8, 12)
    """
    return (*(2**k for k in range(timesteps.bit_length()) if 2**k < timesteps), timesteps)


def spiking_network(run: Run, network: Network, settings: ConversionSettings) -> SpikingNetwork:
    """Return the network that the conversion stage has saved, converted anew if it is not there."""
    key = (network.name, settings.label)
    if key not in run.spiking:
        folder = conversion_folder(network, settings) / SAVED_NETWORK
        stage, depends = conversion_stage(run, network, settings)
        if folder.is_dir() and run.ledger.is_complete(stage, depends):
            run.spiking[key] = load(folder, device=run.device)
        else:
            new_spiking_network(run, network, settings)
    return run.spiking[key]


def new_spiking_network(
    run: Run, network: Network, settings: ConversionSettings
) -> tuple[SpikingNetwork, WeightReport | None]:
    """Convert a trained network; tell what rounding to whole weights changed, if that is wanted."""
    images = calibration_images(shown_data(run, settings), settings.calibration_images)
    snn, weights = converted(run, settings, model_to_convert(run, network, settings), images)
    run.spiking[network.name, settings.label] = snn
    return snn, weights


def model_to_convert(run: Run, network: Network, settings: ConversionSettings) -> nn.Module:
    """Return the trained network, with the activations that the method is for if it has them."""
    kind = trained_kind(run.recipe, settings.method)
    return trained_model(run, network) if kind is None else quantised_model(run, network, kind)


def converted(
    run: Run, settings: ConversionSettings, model: nn.Module, images: Iterable[Tensor]
) -> tuple[SpikingNetwork, WeightReport | None]:
    """Convert a model as the settings say, and round its weights if they do."""
    snn = convert(
        model,
        settings.method,
        images,
        settings.timesteps,
        input=input_of(run.recipe, settings),
        **settings.options,
    )
    if settings.weight_bits is None:
        return snn, None
    return quantise_weights(snn, settings.weight_bits)


def measure_network(run: Run, network: Network, settings: ConversionSettings) -> None:
    """Simulate one converted network on the test split, and write accuracy and energy."""
    name = f"measure {network.name} {settings.label}"
    measure = run.recipe.measure
    path = conversion_folder(network, settings) / "evaluation.json"

    def action() -> list[Path]:
        snn = spiking_network(run, network, settings)
        counted, prices = conventions_of(measure), measure.energy_model
        test = shown_data(run, settings).test
        result = evaluate(
            snn,
            watched(measured_images(test, measure.images), name),
            measure.timesteps,
            metric=measure.metrics,
            hold=hold_of(run, settings),
            conventions=counted,
            energy_model=prices,
            executor=measure.executor,
        )
        if snn.settles:
            some = measured_images(test, SETTLED_IMAGES)
            alone = settling(snn, some, SETTLED_IMAGES, conventions=counted, energy_model=prices)
            result = replace(result, settling=alone)
        result.save(path)
        if snn.report.input == "image":
            return [path]
        return [path, save_raster(snn, test, path.with_name(RASTER), measure)]

    depends = {**conversion_settings(run, network, settings), "measure": to_plain(measure)}
    run.stage(name, depends, action)


def save_raster(
    snn: SpikingNetwork, test: SplitBatches, path: Path, measure: MeasureSettings
) -> Path:
    """Write the events of the first test recording."""
    frames, _ = next(iter(test))
    raster(snn, frames[:, :1], measure.timesteps, hold=measure.hold).save(path)
    return path


def analyse_network(run: Run, settings: AnalysisSettings | None = None) -> Path:
    """Analyse the frozen topology of the sparse network as a graph; return the report's path.

    Topologies saved over the updates are measured as well, into a file of their own.
    """
    network = run.networks[-1]
    if not network.is_sparse:
        raise ConfigError(
            f"{run.folder} holds a dense network only, so there is no topology to analyse. Train "
            "with sparse_twin: true, or prune it: topospike prune."
        )
    if not (network.folder / "topology.npz").is_file():
        raise MissingDataError(
            f"{run.folder} has no topology yet: {network.name!r} was not trained or pruned to its "
            "end. Repeat the command that made the folder; it goes on from the last checkpoint."
        )
    path, history = run.folder / "topology_report.json", run.folder / HISTORY_FILE
    asked = settings or AnalysisSettings()

    def action() -> list[Path]:
        topology = run.topology(network)
        measured(topology, asked, seed=run.recipe.seed).save(path)
        points = measured_series(network.folder, asked, seed=run.recipe.seed)
        if not points:
            return [path]
        save_history(points, history)
        return [path, history]

    depends = {"trained": digest(training_settings(run, network)), "seed": run.recipe.seed}
    run.stage("analyse", depends | asked.changed, action)
    return path


def show_first_conversion(run: Run, network: Network) -> list[Path]:
    """Copy the files of the recipe's first conversion to the top of the network's folder."""
    if not run.recipe.convert:
        return []
    source = conversion_folder(network, run.recipe.convert[0])
    for name in CONVERSION_FILES:
        target = network.folder / name
        if not (source / name).is_file():
            target.unlink(missing_ok=True)
            continue
        content = read_bytes(source / name)
        if not (target.is_file() and read_bytes(target) == content):
            write_atomically(target, content)
    shown = [network.folder / name for name in CONVERSION_FILES]
    return [path for path in shown if path.is_file()]
