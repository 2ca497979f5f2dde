"""A realistic run folder, written through the records of the library, value by value."""

import functools
import json
import math
from pathlib import Path

import numpy as np
import pytest

from topospike.analysis import HistoryPoint, TopologyReport, analyse, save_history
from topospike.contracts import (
    ActivationComparison,
    ConversionReport,
    Evaluation,
    LayerChange,
    LayerInput,
    LayerOperations,
    SiteActivity,
    SiteComparison,
    SiteReport,
    TopologyUpdate,
    to_json,
)
from topospike.report import write_report

MAC, AC = 4.6e-12, 0.9e-12
LAST = 32
# name, kind, input, MACs with every link, density of the sparse twin
LAYERS = (
    ("features.0", "conv", "image", 18_432.0, 1.0),
    ("features.3", "conv", "spikes", 294_912.0, 1.0),
    ("features.7", "conv", "spikes", 147_456.0, 1.0),
    ("classifier.0", "linear", "maxpool", 524_288.0, 0.01),
    ("classifier.2", "linear", "spikes", 5_120.0, 1.0),
)
SITES = (("features.1", 2048), ("features.4", 2048), ("features.8", 1024), ("classifier.1", 512))


def make_evaluation(*, sparse: bool, method: str) -> Evaluation:
    rate_coded = method == "qcfs"
    t = np.arange(1, LAST + 1)
    level = 0.9722 if sparse else 0.9778
    slow = 6.0 if rate_coded else 1.1
    accuracy = level - (level - 0.1) * np.exp(-t / slow)
    accuracy = tuple(float(round(a * 360) / 360) for a in accuracy)
    per_step = np.full(LAST, 0.09) if rate_coded else 0.3 * np.exp(-t / 5.0) + 0.01
    layers = []
    for name, kind, source, dense, density in LAYERS:
        density = density if sparse else 1.0
        sops = np.cumsum(per_step) * dense * density * (0 if source == "image" else 1)
        macs = dense * density
        paid = (macs if source == "image" else 0.0,) * LAST
        layers.append(LayerOperations(name, kind, source, macs, dense, density, tuple(sops), paid))
    sops = np.sum([layer.sops for layer in layers], axis=0)
    macs = layers[0].macs
    sites = tuple(
        SiteActivity(name, neurons, tuple(float(r) / (1 + 0.4 * k) for r in per_step))
        for k, (name, neurons) in enumerate(SITES)
    )
    return Evaluation(
        timesteps=tuple(range(1, LAST + 1)),
        accuracy=accuracy,
        energy_joule=tuple(float(macs * MAC + s * AC) for s in sops),
        sops=tuple(float(s) for s in sops),
        macs_per_step=(macs,) * LAST,
        ann_accuracy=0.9750 if sparse else 0.9806,
        ann_energy_joule=sum(layer.macs for layer in layers) * MAC,
        ann_dense_energy_joule=sum(layer.macs_dense for layer in layers) * MAC,
        macs=macs,
        images=360,
        saturation_time=17 if rate_coded else 7,
        conventions={
            "first_layer": "mac_once",
            "pooled": "fold",
            "links": "existing",
            "energy_model": "45nm",
            "mac_joule": MAC,
            "ac_joule": AC,
        },
        layers=tuple(layers),
        sites=sites,
    )


def make_conversion(method: str) -> ConversionReport:
    sites = tuple(
        SiteReport(
            name=name,
            op="relu",
            module=name,
            sources=(source,),
            channels=channels,
            threshold_min=0.21 + place,
            threshold_mean=1.734 + place,
            threshold_max=4.02 + place,
            dead_share=0.61 if place == 3 else 0.03 * place,
            saturated_share=0.004,
        )
        for place, ((name, channels), (source, *_)) in enumerate(
            zip(SITES, LAYERS[:4], strict=True)
        )
    )
    reason = "depends on the image alone"
    return ConversionReport(
        method=method,
        coding="rate" if method == "qcfs" else "differential",
        neuron="integrate-and-fire" if method == "qcfs" else "multi-threshold",
        levels=1 if method == "qcfs" else 4,
        solver="iterations",
        granularity="channel",
        calibration_images=1024,
        batch_norms_folded=("features.1", "features.4"),
        sites=sites,
        layers=tuple(
            LayerInput(name, kind, source, reason if source == "image" else "fed by spikes")
            for name, kind, source, *_ in LAYERS
        ),
        advice=("Site classifier.1: 61 % of the channels never fired; calibrate on more images.",),
    )


def make_comparison() -> ActivationComparison:
    errors = {1: (0.3, 0.31, 0.33, 0.7), 8: (0.004, 0.005, 0.005, 0.412)}
    records = tuple(
        SiteComparison(
            site=name,
            t=t,
            relative_error=error,
            correlation=1 - error / 2,
            mean_bias=-error / 10,
            dead_share=error / 4,
            saturated_share=0.0,
        )
        for t, row in errors.items()
        for (name, _), error in zip(SITES, row, strict=True)
    )
    advice = "classifier.1: the relative error jumps from 0.5% to 41.2% at t = 8; raise levels."
    return ActivationComparison((1, 8), 128, records, SITES[3][0], (advice,))


def metrics_lines(*, sparse: bool, epochs: int = 24) -> list[str]:
    lines = []
    for epoch in range(epochs):
        share = 1 - math.exp(-(epoch + 1) / 4)
        lines.append(
            {
                "kind": "epoch",
                "epoch": epoch,
                "train_loss": 2.3 * (1 - share) + 0.05,
                "train_accuracy": 0.1 + 0.89 * share,
                "validation_accuracy": 0.1 + (0.865 if sparse else 0.88) * share,
                "learning_rate": 0.1 * 0.5 * (1 + math.cos(math.pi * epoch / epochs)),
                "seconds": 0.8,
            }
        )
        if sparse and epoch < 18:
            lines.append({"kind": "topology_update", **to_json(make_update(epoch))})
    return [json.dumps(line) for line in lines]


def make_update(epoch: int) -> TopologyUpdate:
    share = 1 - math.exp(-epoch / 5)
    removed = int(1600 * math.exp(-epoch / 9))
    percolated, grown = int(0.06 * removed), int(0.8 * removed)
    before = 9000 - 190 * epoch
    change = LayerChange(
        active_before=before,
        removed=removed,
        percolated=percolated,
        grown=grown,
        active_after=before - removed - percolated + grown,
        target=before - removed - percolated + grown,
        shortfall=0,
        overlap=0.12,
        score_nonzero=0.7,
    )
    return TopologyUpdate(
        update_index=epoch,
        epoch=epoch,
        layers={"classifier.0": change, "classifier.2": change},
        sparsity=0.95 + 0.04 * share,
        anp=1 - 0.45 * share,
        anp_hidden=1 - 0.52 * share,
        itop_rate=0.05 + 0.2 * share,
    )


def summary_row(network: str, method: str, result: Evaluation, dense: Evaluation) -> dict:
    return {
        "network": network,
        "method": method,
        "ann_accuracy": result.ann_accuracy,
        "snn_accuracy": result.accuracy[7],
        "timesteps": 8,
        "energy_joule": result.energy_joule[7],
        "energy_ratio": result.energy_joule[7] / dense.energy_joule[7],
        "ann_energy_joule": result.ann_energy_joule,
        "saturation_time": result.saturation_time,
        "sparsity": 0.0 if network == "dense" else 0.99,
    }


RECORD = {
    "recipe": {
        "name": "demo",
        "seed": 3,
        "data": {"source": "digits", "batch_size": 64, "mean": None},
        "model": {"name": "small_cnn", "widths": [16, 32, 32]},
        "train": {"epochs": 24, "learning_rate": 0.1},
        "sparsity": {"rule": "chts", "linear": 0.99, "conv": 0.0},
        "dense_twin": True,
        "convert": [{"method": "dcgs", "timesteps": 8}, {"method": "qcfs", "timesteps": 8}],
    },
    "commit": "0a1b2c3",
    "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
    "hardware": {"processor": "2 cores", "memory_gib": 8},
    "seed": 3,
    "started": "2026-11-22T10:15:00+00:00",
    "seconds": {"train": 41.2, "convert": 3.1, "evaluate": 12.4},
    "data": {
        "name": "digits",
        "train": 1293,
        "validation": 144,
        "test": 360,
        "classes": 10,
        "channels": 1,
        "image_size": [8, 8],
    },
    "device": "cpu",
    "warnings": [],
}


@functools.cache
def make_topology_report() -> TopologyReport:
    """Analyse a hub-weighted chain 128-96-10, so that gamma and the disk look like something."""
    rng = np.random.default_rng(5)

    def hubs(n: int, slope: float) -> np.ndarray:
        return np.arange(1, n + 1) ** -slope

    masks = []
    for n_out, n_in, slopes, links in ((96, 128, (0.9, 0.4), 420), (10, 96, (0.1, 0.9), 120)):
        weight = np.outer(hubs(n_out, slopes[0]), hubs(n_in, slopes[1])).ravel()
        chosen = rng.choice(weight.size, links, replace=False, p=weight / weight.sum())
        mask = np.zeros(weight.size, dtype=bool)
        mask[chosen] = True
        masks.append(mask.reshape(n_out, n_in))
    return analyse({"classifier.0.weight": masks[0], "classifier.2.weight": masks[1]}, nulls=3)


def make_history() -> tuple[HistoryPoint, ...]:
    """Follow a topology from random links, which have no fit at first, to hubs."""
    points = []
    for update in range(0, 18, 2):
        share = 1 - math.exp(-update / 5)
        points.append(
            HistoryPoint(
                update=update,
                links=9000 - 450 * update,
                active=234 - 5 * update,
                gamma=10.0 - 7.2 * share if update else None,
                sigma=0.9 - 0.7 * share if update else None,
                at_bound=update == 2 if update else None,
                anp=1 - 0.45 * share,
                anp_hidden=1 - 0.52 * share,
                index=0.17 * share,
                gini_z=40 * share,
            )
        )
    return tuple(points)


def write_run(folder: Path, *, methods=("dcgs", "qcfs"), dense=True, topology=True) -> Path:
    """Write a complete run folder; the arguments leave parts of it out."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "record.json").write_text(json.dumps(RECORD))
    rows = {}
    for network in ("dense", "chts") if dense else ("chts",):
        place = folder / "dense" if network == "dense" else folder
        place.mkdir(exist_ok=True)
        lines = metrics_lines(sparse=network != "dense")
        (place / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        for method in methods:
            result = make_evaluation(sparse=network != "dense", method=method)
            twin = make_evaluation(sparse=False, method=method)
            row = summary_row(network, method, result, twin)
            rows[method, network] = row if dense else {**row, "energy_ratio": None}
            for target in (place / "conversions" / method, *([place] if method == "dcgs" else ())):
                target.mkdir(parents=True, exist_ok=True)
                result.save(target / "evaluation.json")
                report = to_json(make_conversion(method))
                (target / "conversion.json").write_text(json.dumps(report))
                make_comparison().save(target / "activations.json")
    if topology:
        make_topology_report().save(folder / "topology_report.json")
        save_history(make_history(), folder / "topology_history.json")
    (folder / "summary.json").write_text(
        json.dumps(
            {"rows": [rows[m, n] for m in methods for n in ("dense", "chts") if (m, n) in rows]}
        )
    )
    return folder


@pytest.fixture(scope="session")
def complete_run(tmp_path_factory) -> Path:
    """A complete run folder; do not write into it."""
    return write_run(tmp_path_factory.mktemp("run") / "demo")


@pytest.fixture
def run_writer(tmp_path):
    """Write a run folder of one's own, with parts left out: ``run_writer(dense=False)``."""
    return lambda **parts: write_run(tmp_path / "run", **parts)


@pytest.fixture(scope="session")
def evaluation_of():
    """Return the evaluation the fixture run holds for a network and a method."""
    return make_evaluation


@pytest.fixture(scope="session")
def complete_page(tmp_path_factory) -> Path:
    """The page of a complete run, rendered once; beside it lie the run's files."""
    return write_report(write_run(tmp_path_factory.mktemp("page") / "demo"))
