"""Command line: ``topospike export`` and ``topospike chip``, one network of a run folder."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from topospike.contracts import to_json, write_json
from topospike.errors import ConfigError, MissingDataError
from topospike.export import export_csr, export_graph, export_nir, export_onnx, simulate_chip
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.part import converted_part
from topospike.pipeline.run import Network, Run
from topospike.pipeline.stages import conversion_folder, spiking_network, trained_model
from topospike.recipe import ConversionSettings, Recipe
from topospike.registry import suggestion
from topospike.topology import Topology

FOR_ANNS = {"nir": "converted networks", "csr": "converted networks", "onnx": "ANNs"}


def export(options: Namespace) -> None:
    """Write one network of a run folder as NIR, CSR weights, a graph, or ONNX."""
    folder = Path(options.folder)
    recipe = recorded_recipe(folder)
    refuse_spiking(recipe, folder, options.to)
    run = Run(recipe, folder, device=options.get("device"))
    network = chosen_network(run, options.get("network"))
    kind = options.to
    if kind in ("nir", "csr"):
        settings = chosen_conversion(run, options.get("method"))
        snn = spiking_network(run, network, settings)
        name = f"{network.name}-{settings.label}"
        if kind == "csr":
            print(f"export: {export_csr(snn, target(options, folder, f'{name}-csr'))}")
            return
        report = export_nir(
            snn,
            target(options, folder, f"{name}.nir"),
            neuron=options.get("neuron") or "if",
            binary_axons=options.get("binary_axons", False),
        )
        print(report.text())
    elif kind == "onnx":
        example = next(iter(run.data.validation))[0][:2].to(run.device)
        path = target(options, folder, f"{network.name}.onnx")
        print(f"export: {export_onnx(trained_model(run, network), path, example)}")
    else:
        path = target(options, folder, f"{network.name}.{kind}")
        print(f"export: {export_graph(topology_of(run, network), path)}")


def chip(options: Namespace) -> None:
    """Run one network of a run folder on a simulated chip, and keep what it cost."""
    folder = Path(options.folder)
    recipe = recorded_recipe(folder)
    run = Run(recipe, folder, device=options.get("device"))
    network = chosen_network(run, options.get("network"))
    settings = chosen_conversion(run, options.get("method") or "qcfs")
    images = next(iter(run.data.test))[0][: options.get("images") or 4]
    part = options.get("part")
    if part is None:
        snn = spiking_network(run, network, settings)
    else:
        snn, images = converted_part(run, network, settings, part, images)
    found = simulate_chip(
        snn,
        images,
        options.get("timesteps") or settings.timesteps,
        architecture=options.get("arch") or "loihi",
    )
    found = replace(found, part=part or "")
    path = conversion_folder(network, settings) / "chip.json"

    def write() -> list[Path]:
        write_json(path, to_json(found))
        return [path]

    with locked(folder):
        run.always(f"chip {network.name} {settings.label}", write)
    print(f"{found.text()}\nwritten: {path}")


def refuse_spiking(recipe: Recipe, folder: Path, kind: str) -> None:
    """Raise if a run folder holds networks trained through time, which this format is not for."""
    if recipe.direct.rule is not None and kind in FOR_ANNS:
        raise ConfigError(
            f"{folder} holds a network trained through time (direct.rule is "
            f"{recipe.direct.rule!r}), and --to {kind} writes {FOR_ANNS[kind]}. Export its "
            "topology (--to graphml, npz or csv); its weights are in model.safetensors."
        )


def target(options: Namespace, folder: Path, name: str) -> Path:
    """Return where the export goes."""
    return Path(options.get("output") or folder / "export" / name)


def chosen_network(run: Run, name: str | None) -> Network:
    """Return the network with a name, by default the sparse one."""
    if name is None:
        return run.networks[-1]
    known = {network.name: network for network in run.networks}
    if name not in known:
        raise ConfigError(
            f"{run.folder} has no network {name!r}; it has {', '.join(known)}."
            f"{suggestion(name, known)}"
        )
    return known[name]


def chosen_conversion(run: Run, method: str | None) -> ConversionSettings:
    """Return the settings of a conversion, by default the first of the recipe."""
    known = {settings.label: settings for settings in run.recipe.convert}
    if not known:
        raise ConfigError(
            f"{run.folder} has no conversion; convert first: topospike convert {run.folder} "
            "--method qcfs."
        )
    if method is None:
        return next(iter(known.values()))
    if method not in known:
        raise ConfigError(
            f"{run.folder} has no conversion {method!r}; it has {', '.join(known)}. Convert "
            f"first: topospike convert {run.folder} --method {method}."
        )
    return known[method]


def topology_of(run: Run, network: Network) -> Topology:
    """Read the frozen topology of a sparse network."""
    path = network.folder / "topology.npz"
    if not os.path.lexists(path):
        raise MissingDataError(
            f"{network.folder} has no topology: the network {network.name!r} is dense. Export "
            "the sparse one, or its weights (--to csr)."
        )
    return run.topology(network)
