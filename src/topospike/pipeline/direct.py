"""Pipeline: networks trained through time, from the recipe to their evaluation.

Such a network is not converted, so its stages are two: ``train`` and ``measure``. What it writes
lies where a conversion named ``direct`` would, so that summary and report read it as any other.
"""

from __future__ import annotations

from pathlib import Path

from torch import nn

from topospike.contracts import to_json, write_json
from topospike.direct import (
    DirectNetwork,
    SpikingModel,
    direct_data,
    spiking_model,
    spiking_network,
    structure_rule,
    training_method,
)
from topospike.errors import ConfigError
from topospike.measure import evaluate
from topospike.pipeline.networks import (
    digest,
    fresh_model,
    load_weights,
    measured_images,
    save_weights,
    starting_model,
    training_settings,
)
from topospike.pipeline.run import Network, Run
from topospike.pipeline.showing import conventions_of, hold_of, input_of, shown_data
from topospike.pipeline.stages import (
    RASTER,
    changed_settings,
    conversion_folder,
    new_sparsifier,
    remove_results,
    save_raster,
    topology_series,
)
from topospike.progress import watched
from topospike.recipe import Recipe
from topospike.recipe.files import to_plain
from topospike.topology import Topology, saved_series
from topospike.train import TopologyController, fit


def is_direct(run: Run) -> bool:
    """Tell whether the recipe trains spiking networks instead of converting ANNs."""
    return run.recipe.direct.rule is not None


def refuse_conversion(recipe: Recipe, folder: Path, action: str) -> None:
    """Raise if a run folder holds networks trained through time, to which this is not done."""
    if recipe.direct.rule is None:
        return
    raise ConfigError(
        f"{folder} holds a network trained through time (direct.rule is {recipe.direct.rule!r}); "
        f"only ANNs are {action}, and it spikes already. To measure it: "
        f"topospike simulate {folder}."
    )


def new_network(run: Run, network: Network) -> tuple[SpikingModel, TopologyController | None]:
    """Build a network with spiking neurons, and what governs its topology."""
    recipe, model = run.recipe, starting_model(run)
    if not network.is_sparse:
        return spiking_form(run, model), None
    if recipe.direct.rule == "evolve":
        # The graph of layers is read from the network as it is before it spikes.
        sparsifier = new_sparsifier(run, model)
        return spiking_form(run, model), sparsifier
    spiking = spiking_form(run, model)
    return spiking, structure_rule(spiking, recipe.direct, epochs=recipe.train.epochs)


def spiking_form(run: Run, model: nn.Module) -> SpikingModel:
    """Put spiking neurons into a network, which reads what the recipe shows it."""
    kind = input_of(run.recipe, run.recipe.convert[0])
    return spiking_model(model, run.recipe.direct, input=kind)


def train_spiking(run: Run, network: Network) -> None:
    """Train one network through time, and save it."""
    recipe = run.recipe
    changed, frames = changed_settings(run, network), shown_data(run, recipe.convert[0])
    over_time = frames.train.axis == 1
    if over_time and run.processes.count > 1:
        raise ConfigError(
            f"{run.processes.count} processes were started, and frames of events are trained on in "
            "one; start one."
        )

    def action() -> list[Path]:
        if changed:
            remove_results(run, network)
        model, rule = new_network(run, network)
        fit(
            model,
            direct_data(frames, recipe.direct, batch_size=recipe.data.batch_size, frames=over_time),
            recipe.train,
            folder=network.folder,
            seed=recipe.seed,
            sparsifier=rule,
            device=run.device,
            resume=not changed,
            label=network.stage,
            method=training_method(recipe.direct),
            after_update=topology_series(run, network, model),
        )
        outputs = [network.folder / "metrics.jsonl", network.folder / "model.safetensors"]
        save_weights(model, network.folder / "model.safetensors")
        if network.is_sparse:
            topology = Topology.from_model(model, provenance={"rule": network.name})
            topology.save(network.folder / "topology.npz")
            run.record.write(topology_digest=topology.digest)
            outputs += [network.folder / "topology.npz", *saved_series(network.folder).values()]
        return outputs

    run.stage(network.stage, training_settings(run, network), action)


def trained_network(run: Run, network: Network) -> DirectNetwork:
    """Read a trained network, ready to be simulated; a sparse one has its saved topology."""
    model = spiking_form(run, fresh_model(run))
    load_weights(model, network.folder / "model.safetensors")
    if network.is_sparse:
        run.topology(network).verify(model)
    model.to(run.device).eval()
    images, _ = next(iter(shown_data(run, run.recipe.convert[0]).calibration))
    return spiking_network(model, images)


def measure_spiking(run: Run, network: Network) -> None:
    """Simulate one trained network on the test split; write its populations and its evaluation."""
    settings, measure = run.recipe.convert[0], run.recipe.measure
    name = f"measure {network.name} {settings.label}"
    folder = conversion_folder(network, settings)

    def action() -> list[Path]:
        snn = trained_network(run, network)
        report, evaluation = folder / "conversion.json", folder / "evaluation.json"
        write_json(report, to_json(snn.report))
        result = evaluate(
            snn,
            watched(measured_images(shown_data(run, settings).test, measure.images), name),
            measure.timesteps,
            hold=hold_of(run, settings),
            conventions=conventions_of(measure),
            energy_model=measure.energy_model,
        )
        result.save(evaluation)
        if snn.report.input == "image":
            return [report, evaluation]
        test = shown_data(run, settings).test
        return [report, evaluation, save_raster(snn, test, folder / RASTER, measure)]

    depends = {"trained": digest(training_settings(run, network)), "measure": to_plain(measure)}
    run.stage(name, depends, action)
