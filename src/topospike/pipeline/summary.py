"""Pipeline: ``summary.json``, one row for each network and conversion, from the run's files."""

from __future__ import annotations

import dataclasses
import math
import os
from pathlib import Path

import torch

from topospike.contracts import Evaluation, write_json
from topospike.measure import saving_text, wider_text
from topospike.models import build_model
from topospike.pipeline.run import Network, Run
from topospike.pipeline.stages import SUMMARY, conversion_folder, show_first_conversion
from topospike.recipe import ConversionSettings
from topospike.report.folder import SummaryRow, rows_beside
from topospike.report.labels import display_name
from topospike.topology import weight_layers


def write_summary(run: Run) -> tuple[SummaryRow, ...]:
    """Collect the rows of every evaluation that is there, and of a run beside, and write them.

    The files of the recipe's first conversion are copied to the top of each network's folder.

    Energies are those of the conversion's time step (``convert[i].timesteps``, or the last one
    simulated); the ratio is to the dense twin at the same step by the same method.
    """
    evaluations = evaluations_of(run)
    sparsity = {network.name: network_sparsity(run, network) for network in run.networks}
    rows = tuple(
        summary_row(
            evaluations[network.name, settings.label],
            evaluations.get(("dense", settings.label)),
            network=network,
            settings=settings,
            sparsity=sparsity[network.name],
        )
        for settings in run.recipe.convert
        for network in run.networks
        if (network.name, settings.label) in evaluations
    )
    rows += rows_beside(run.folder, [network.name for network in run.networks])

    def action() -> list[Path]:
        path = run.folder / "summary.json"
        write_json(path, {"rows": [dataclasses.asdict(row) for row in rows]})
        return [path, *(copy for n in run.networks for copy in show_first_conversion(run, n))]

    run.always(SUMMARY, action)
    return rows


def evaluations_of(run: Run) -> dict[tuple[str, str], Evaluation]:
    """Read every evaluation that is there, by network and conversion."""
    return {
        (network.name, settings.label): Evaluation.load(path)
        for network in run.networks
        for settings in run.recipe.convert
        if os.path.lexists(path := conversion_folder(network, settings) / "evaluation.json")
    }


def saving_texts(run: Run) -> list[str]:
    """Return, for each conversion, where the savings of its networks come from.

    At the conversion's time step; networks measured under other conventions than the first one's
    are left to the report, which does not put them side by side.
    """
    evaluations, texts = evaluations_of(run), []
    for settings in run.recipe.convert:
        found = {n: e for (n, label), e in evaluations.items() if label == settings.label}
        first = next(iter(found.values()), None)
        if first is None:
            continue
        alike = {
            display_name(name): result
            for name, result in found.items()
            if result.conventions == first.conventions
        }
        step = min(settings.timesteps, *(result.timesteps[-1] for result in alike.values()))
        parts = (saving_text(alike, step), wider_text(alike, step))
        texts.append(f"{display_name(settings.label)}: " + "\n\n".join(filter(None, parts)))
    return texts


def summary_row(
    result: Evaluation,
    dense: Evaluation | None,
    *,
    network: Network,
    settings: ConversionSettings,
    sparsity: float,
) -> SummaryRow:
    """Read one row off an evaluation at the conversion's time step."""
    step = min(settings.timesteps, result.timesteps[-1])
    energy, metric = result.energy_joule[step - 1], next(iter(result.metrics))
    compared = dense is not None and len(dense.energy_joule) >= step
    reference = dense.energy_joule[step - 1] if dense is not None and compared else None
    return SummaryRow(
        network=network.name,
        method=settings.label,
        ann_accuracy=result.ann_accuracy,
        snn_accuracy=result.accuracy[step - 1],
        timesteps=step,
        energy_joule=energy,
        energy_ratio=energy / reference if reference else None,
        ann_energy_joule=result.ann_energy_joule,
        saturation_time=result.saturation_time,
        sparsity=sparsity,
        metric=metric,
        ann_value=finite(result.ann_metrics[metric]),
        snn_value=finite(result.metrics[metric][step - 1]),
    )


def finite(value: float) -> float | None:
    """Return a number that JSON can hold; a perplexity may be none."""
    return value if math.isfinite(value) else None


def network_sparsity(run: Run, network: Network) -> float:
    """Return the share of absent links among all weights of convolutions and linear layers.

    Layers without a mask, the classifier among them, count as dense.
    """
    if not network.is_sparse:
        return 0.0
    known = run.data_format  # may load the data, which must not be on the meta device
    with torch.device("meta"):
        model = build_model(run.recipe.model, **known)
    possible = sum(layer.weight.numel() for layer in weight_layers(model))
    topology = run.topology(network)
    absent = sum(mask.numel() - int(mask.sum()) for mask in topology.masks.values())
    return absent / possible
