"""Reproduce: what came out of one row, read from its run folder.

Nothing is computed here but the step from shares and joules to a row's quantities. A row without
a folder, or whose run failed, has an outcome that says so and holds no number.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from topospike.analysis.report import TopologyReport
from topospike.contracts import Evaluation
from topospike.errors import MissingDataError
from topospike.files.reading import read_optional
from topospike.report.folder import Run, read_run
from topospike.reproduce.experiments import Experiment
from topospike.reproduce.published import DENSE

DONE, FAILED, NOT_RUN = "done", "failed", "not run"
PLAIN = "dcgs"  # converts the trained network as it is
INITIAL_REPORT = "initial_topology_report.json"
FAILURES = "failures.json"
WITHOUT_DATA = f"{MissingDataError.__name__}:"


@dataclass(frozen=True)
class Outcome:
    """One row with one seed.

    Attributes
    ----------
    state
        ``done``, ``failed`` or ``not run``.
    reason
        Why it is not done; empty for what is.
    values
        Measured quantities: shares in per cent, energies in joules, as in the published rows.
    circumstances
        Dataset, images, epochs, seed, hardware and seconds of the run.
    evaluation, topology
        The whole curve, and the topology's analysis, where there are any.
    """

    state: str
    reason: str = ""
    values: Mapping[str, float] = field(default_factory=dict)
    circumstances: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Evaluation | None = None
    topology: TopologyReport | None = None


def read_outcome(folder: Path, experiment: Experiment, *, timesteps: int | None) -> Outcome:
    """Read the outcome of one row from the folder of its run.

    Parameters
    ----------
    folder
        Where the run was, or was to be.
    experiment
        Which network and conversion of it.
    timesteps
        Time step of the row.
    """
    failures = read_optional(folder / FAILURES, dict[str, str]) or {}
    if experiment.part in failures:
        reason = failures[experiment.part]
        return Outcome(NOT_RUN if reason.startswith(WITHOUT_DATA) else FAILED, reason)
    if not (folder / "record.json").is_file():
        return Outcome(NOT_RUN)
    run = read_run(folder)
    evaluation, topology = evaluation_of(run, experiment), topology_of(run, experiment)
    if (topology if experiment.conversion is None else evaluation) is None:
        return Outcome(NOT_RUN, "the run has not come to its end")
    values: dict[str, Any] = {}
    if evaluation is not None:
        values |= values_of(evaluation, timesteps)
        values |= sparsity_of(run, experiment)
        values |= ann_accuracy_of(run, experiment)
        values |= mean_accuracy_of(run, experiment)
        values = {name: value for name, value in values.items() if value is not None}
    if topology is not None and topology.gamma is not None:
        values["gamma"] = topology.gamma
    return Outcome(DONE, "", values, circumstances_of(run, evaluation), evaluation, topology)


def evaluation_of(run: Run, experiment: Experiment) -> Evaluation | None:
    """Return the evaluation of the row's network by the row's conversion."""
    for network in run.networks:
        if network.is_dense == (experiment.network == DENSE) and experiment.conversion is not None:
            return network.evaluations.get(experiment.conversion)
    return None


def topology_of(run: Run, experiment: Experiment) -> TopologyReport | None:
    """Return the analysis of the row's topology: the trained one, or that before training."""
    if experiment.network == "initial":
        path = run.folder / INITIAL_REPORT
        return read_optional(path, TopologyReport)
    return run.topology if experiment.network == "sparse" else None


def values_of(evaluation: Evaluation, timesteps: int | None) -> dict[str, float]:
    """Return accuracy, perplexity and energy at the row's time step, and the saturation time."""
    values = {"ann_accuracy": 100 * evaluation.ann_accuracy}
    perplexities = evaluation.metrics.get("perplexity", ())
    if perplexities:
        values["ann_perplexity"] = evaluation.ann_metrics["perplexity"]
    if evaluation.saturation_time is not None:
        values["saturation_time"] = evaluation.saturation_time
    if timesteps in evaluation.timesteps:
        place = evaluation.timesteps.index(timesteps)
        values["snn_accuracy"] = 100 * evaluation.accuracy[place]
        values["energy_joule"] = evaluation.energy_joule[place]
        if perplexities:
            values["snn_perplexity"] = perplexities[place]
    return values


def ann_accuracy_of(run: Run, experiment: Experiment) -> dict[str, float | None]:
    """Return the accuracy of the trained ANN itself, which quantised activations are not.

    Where thresholds were trained, the evaluation's own ANN is the quantised one, and the accuracy
    before that is known only from another conversion of the same run.
    """
    if not run.recipe.get("quantise", {}).get("epochs") or experiment.conversion == PLAIN:
        return {}
    other = evaluation_of(run, replace(experiment, conversion=PLAIN))
    return {"ann_accuracy": None if other is None else 100 * other.ann_accuracy}


def mean_accuracy_of(run: Run, experiment: Experiment) -> dict[str, float]:
    """Return the mean validation accuracy over the epochs (AAE of Zhang et al. 2024)."""
    for network in run.networks:
        if network.is_dense == (experiment.network == DENSE):
            found = (epoch.validation_accuracy for epoch in network.epochs)
            seen = [accuracy for accuracy in found if accuracy is not None]
            return {"mean_epoch_accuracy": 100 * statistics.fmean(seen)} if seen else {}
    return {}


def sparsity_of(run: Run, experiment: Experiment) -> dict[str, float]:
    """Return the share of absent links among all weights, from the run's summary."""
    dense = experiment.network == DENSE
    found = [row.sparsity for row in run.rows if (row.network == DENSE) == dense]
    return {"network_sparsity": 100 * found[0]} if found else {}


def circumstances_of(run: Run, evaluation: Evaluation | None) -> dict[str, Any]:
    """Return what must stand beside every number: data, length, seed, machine."""
    record, data = run.record, run.record.get("data") or {}
    hardware = record.get("hardware", {})
    machine = ", ".join(hardware.get("gpu") or [hardware.get("cpu", "unknown processor")])
    return {
        "data": data.get("name", "unknown"),
        "training images": data.get("train"),
        "test images": evaluation.images if evaluation is not None else data.get("test"),
        "epochs": run.recipe.get("train", {}).get("epochs"),
        "seed": record.get("seed"),
        "hardware": machine,
        "threads": hardware.get("threads"),
        "seconds": round(sum(record.get("seconds", {}).values()), 1),
        "commit": record.get("commit"),
    }
