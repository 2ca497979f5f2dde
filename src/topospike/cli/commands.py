"""Command line: what each subcommand does with its options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from topospike.analysis import TopologyReport, compare
from topospike.cli.comparison import (
    analyse_all,
    differing_layers,
    figure_folder,
    random_reports,
    write_comparison,
)
from topospike.cli.display import (
    comparison_table,
    output,
    pruning_table,
    results_table,
    show_text,
    stream_table,
    topology_table,
    verification_table,
)
from topospike.cli.export import chip, export
from topospike.cli.reproduce import reproduce
from topospike.cli.sweep import sweep
from topospike.contracts import ActivationComparison
from topospike.conversion import conversion_text
from topospike.errors import CheckpointError, ConfigError
from topospike.measure import comparison_text
from topospike.pipeline.analysing import AnalysisSettings, write_figures
from topospike.pipeline.api import RunResult, closed, measure_networks, run_recipe
from topospike.pipeline.direct import refuse_conversion
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.folder.verify import verify_run
from topospike.pipeline.pruning import prune_run
from topospike.pipeline.run import Run
from topospike.pipeline.stages import conversion_folder, convert_network
from topospike.pipeline.streaming import stream_networks
from topospike.pruning import PRUNING_METHODS
from topospike.recipe import Recipe
from topospike.recipe.files import merged, recipe_from, resolve, to_plain, to_yaml
from topospike.report import write_report

# Options that say what to do with a recipe; every other one is a key of it.
RUN_OPTIONS = ("recipe", "folder", "device", "overwrite", "print_config", "debug")
PRUNE_OPTIONS = ("folder", "to", "sparsity", "conv_sparsity", "device", "debug")
FOLDER_OPTIONS = ("folder", "method", "device", "debug", "stream", "steps", "first")


def demo(options: Namespace) -> None:
    """Run the packaged example; where an older version of it was trained, train again."""
    start("demo", options, overwrite=True)


def run(options: Namespace) -> None:
    """Run a recipe from data to report."""
    start(options.recipe, options, overwrite=options.get("overwrite", False))


def train(options: Namespace) -> None:
    """Run the training stages of a recipe."""
    overwrite = options.get("overwrite", False)
    start(options.recipe, options, overwrite=overwrite, train_only=True)


def start(name: str, options: Namespace, *, overwrite: bool, train_only: bool = False) -> None:
    """Resolve a recipe, and print it or put it to work in its folder; print what came out."""
    recipe = resolve(name, settings_among(options, RUN_OPTIONS))
    if options.get("print_config"):
        print(to_yaml(recipe), end="")
        return
    result = run_recipe(
        recipe,
        options.get("folder"),
        train_only=train_only,
        device=options.get("device"),
        overwrite=overwrite,
    )
    if train_only and result.networks:
        print(f"trained networks: {result.folder}")
    show(result)


def show(result: RunResult) -> None:
    """Print the table of a run, where its savings come from, and where its page is."""
    if result.rows:
        output().print(results_table(result.rows))
    for text in result.savings:
        show_text(f"\n{text}")
    if result.report is not None:
        print(f"report: {result.report}")


def prune(options: Namespace) -> None:
    """Prune the dense network of a run folder, into a folder of its own, and print the layers."""
    source = Path(options.folder)
    recipe = recorded_recipe(source)
    refuse_conversion(recipe, source, "pruned")
    typed = settings_among(options, PRUNE_OPTIONS)
    method = typed.setdefault("method", recipe.prune.method)
    if method is None:
        raise ConfigError(
            f"no method to prune by; add --method, one of {', '.join(PRUNING_METHODS)}."
        )
    given = {"linear": options.get("sparsity"), "conv": options.get("conv_sparsity")}
    sparsity = {kind: share for kind, share in given.items() if share is not None}
    folder = Path(options.get("to") or source.with_name(f"{source.name}-{method}"))
    twins = {"dense_twin": True, "sparse_twin": True}
    changes = {"name": folder.name, "prune": typed, "sparsity": sparsity, **twins}
    report = prune_run(source, folder, changed(recipe, changes), device=options.get("device"))
    output().print(pruning_table(report))
    print(f"pruned network: {folder}")


def convert(options: Namespace) -> None:
    """Convert the networks of a run folder by one method, and show what the conversion did.

    A conversion of the folder with that name (by default that of the method) is done anew.
    """
    folder = Path(options.folder)
    recipe = recorded_recipe(folder)
    refuse_conversion(recipe, folder, "converted")
    typed = settings_among(options, ("folder", "device", "debug"))
    known = {entry.label: to_plain(entry) for entry in recipe.convert}
    first = next(iter(known.values()), {"method": "dcgs"})
    typed.setdefault("method", known.get(typed.get("name", ""), first)["method"])
    label = typed.get("name") or typed["method"]
    before = known.get(label, {})
    same_method = before.get("method") == typed["method"]
    known[label] = merged(before, typed) if same_method else {**before, "options": {}, **typed}
    recipe = changed(recipe, {"convert": list(known.values())})
    settings = next(entry for entry in recipe.convert if entry.label == label)
    with locked(folder):
        at_work = Run(recipe, folder, device=options.get("device"))
        with at_work.recorded():
            for network in at_work.networks:
                text = conversion_text(convert_network(at_work, network, settings))
                compared = conversion_folder(network, settings) / "activations.json"
                if os.path.lexists(compared):  # folders of earlier versions have none
                    text += f"\n\n{comparison_text(ActivationComparison.load(compared))}"
                show_text(f"{network.name}\n{text}\n")


def simulate(options: Namespace) -> None:
    """Measure the spiking networks of a run folder at every time step, and print the table."""
    folder = Path(options.folder)
    recipe = recorded_recipe(folder)
    recipe = changed(recipe, {"measure": settings_among(options, FOLDER_OPTIONS)})
    names = [settings.label for settings in recipe.convert]
    only = options.get("method")
    if only is not None and only not in names:
        raise ConfigError(
            f"{folder} has no conversion {only!r}; it has {', '.join(names) or 'none'}. "
            f"Convert first: topospike convert {folder} --method {only}."
        )
    with locked(folder):
        at_work = Run(recipe, folder, device=options.get("device"))
        if options.get("stream") is not None:
            shown = stream_networks(
                at_work,
                Path(options.stream),
                only,
                steps=options.get("steps", 2),
                first=options.get("first"),
            )
            for name, records in shown:
                output().print(stream_table(name, records))
            return
        with at_work.recorded():
            measure_networks(at_work, only, convert=False)
        show(closed(at_work, report=False))


def analyse(options: Namespace) -> None:
    """Analyse the topologies of run folders, or saved ones, and print the main numbers."""
    paths = [Path(path) for path in options.paths]
    settings = AnalysisSettings.from_options(options)
    targets = analyse_all(paths, settings)
    reports = {name: TopologyReport.load(target) for name, target in targets.items()}
    if options.get("random"):
        reports |= random_reports(paths, settings)
    several = len(reports) > 1
    output().print(
        comparison_table(compare(reports)) if several else topology_table(*reports.values())
    )
    for path, (name, target) in zip(paths, targets.items(), strict=True):
        print(f"analysis: {target}")
        if options.get("figures"):
            drawn = write_figures(reports[name], figure_folder(path), run=path)
            print(f"figures: {', '.join(map(str, drawn)) or 'nothing to draw'}")
    if several:
        if different := differing_layers(reports):
            print(f"note: {different}")
        folder = Path(options.get("folder") or Path("runs") / "comparison")
        print(f"comparison: {write_comparison(reports, folder)}")


def report(options: Namespace) -> None:
    """Write the page of each run folder."""
    for folder in options.folders:
        print(f"report: {write_report(Path(folder))}")


def verify(options: Namespace) -> None:
    """Say which files of a run folder are as the run wrote them.

    Raises
    ------
    CheckpointError
        Some are not.
    """
    found = verify_run(options.folder, accept=options.get("accept", False))
    output().print(verification_table(found))
    print(found.text())
    if found.failed:
        raise CheckpointError(
            f"{len(found.failed)} of {len(found.files)} files of {found.folder} are not what the "
            f"run wrote, the first {found.failed[0].name}. Restore them, or delete them and repeat "
            "the command that made the run, which repeats their stages. If the changes are meant: "
            f"topospike verify {found.folder} --accept."
        )


def settings_among(options: Namespace, others: tuple[str, ...]) -> dict[str, Any]:
    """Return the typed settings without the options that are not settings."""
    return {key: value for key, value in to_plain(options).items() if key not in others}


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with some settings replaced, checked like any other."""
    return recipe_from(merged(to_plain(recipe), changes), source="the command line")


TABLE: dict[str, Callable[[Namespace], None]] = {
    "demo": demo,
    "run": run,
    "train": train,
    "prune": prune,
    "convert": convert,
    "simulate": simulate,
    "analyse": analyse,
    "report": report,
    "verify": verify,
    "export": export,
    "chip": chip,
    "sweep": sweep,
    "reproduce": reproduce,
}
