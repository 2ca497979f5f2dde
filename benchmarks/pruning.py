"""How long pruning takes, what it needs, and what it costs: every method on a transformer.

Time and peak memory are those of ViT-B/16 with random weights (transformers); they grow in
proportion to the number of blocks and, the walk apart from reconstruction, of images. Errors of
layer outputs and, given a run folder, accuracy and energy are worth reading on trained weights
only: --run prunes the dense network of a run folder by every method, converts each and measures it.

Most of the time is that of the images: once to the layers of a block, once through the pruned
block to the next (sequential inputs), and the products from which errors are measured. So methods
that need no images are timed without them as well, and --errors 0 measures none.

    python benchmarks/pruning.py [--quick] [--blocks 12] [--images 128] [--errors 0]
    python benchmarks/pruning.py --run runs/NAME [--sparsity 70] [--images 128] [--test 1000]
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

import torch
from timing import options, peak_mib, seconds, table
from timing.networks import vision_transformer
from torch import Tensor, nn

import topospike as ts
from topospike.data import DataBundle, load_data
from topospike.models import build_model
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.networks import load_weights
from topospike.pipeline.stages import calibration_images
from topospike.pruning import PRUNING_METHODS, PruneReport

METHODS = [name for name, method in PRUNING_METHODS.items() if method.comparison != "group"]
TIMESTEPS = 8


def time_and_memory(given: argparse.Namespace) -> None:
    """Print the first table."""
    blocks, images = (1, 16) if given.quick else (given.blocks, given.images)
    model = vision_transformer(blocks).eval()
    x = torch.randn(images, 3, 224, 224)
    rows = []
    with torch.inference_mode():
        started = time.process_time()
        for few in x.split(16):
            model(few)
        forward = time.process_time() - started
    print(f"the images pass the network once in {seconds(forward)} of processor time\n", flush=True)
    without = [name for name in given.methods if not PRUNING_METHODS[name].needs_inputs]
    cases = [(name, x) for name in given.methods] + [(name, None) for name in without]
    for method, seen in cases:
        reports: list[PruneReport] = []
        call = keep(reports, copy.deepcopy(model), method, given, seen)
        cpu = time.process_time()
        peak = peak_mib(call)
        cpu = time.process_time() - cpu
        report = reports[0]
        ranking = sum(layer.seconds for layer in report.layers)
        rows.append(
            (
                method if seen is not None else f"{method}, without images",
                seconds(report.seconds),
                seconds(cpu),
                f"{cpu / forward:.2f}",
                seconds(ranking),
                f"{peak:.0f}",
                f"{report.sparsity():.4f}",
            )
        )
    title = f"ViT-B, {blocks} of 12 blocks, {images} images"
    heading = (title, "wall", "cpu", "forwards", "of it ranking", "peak MiB", "sparsity")
    table(heading, rows)


def keep(
    reports: list[PruneReport],
    model: nn.Module,
    method: str,
    given: argparse.Namespace,
    x: Tensor | None,
) -> Callable[[], None]:
    """Return the call that is measured; its report goes to a list."""
    errors, sparsity = bool(given.errors), given.sparsity / 100
    return lambda: reports.append(ts.prune(model, method, sparsity, x, measure_errors=errors))


def accuracy_and_energy(given: argparse.Namespace) -> None:
    """Print the second table: one trained network, pruned by every method."""
    recipe = recorded_recipe(Path(given.run))
    settings = dataclasses.replace(recipe.data, limit_test=given.test)
    data = load_data(settings, seed=recipe.seed)
    size = {"channels": data.channels, "image_size": data.image_size}
    model = build_model(recipe.model, classes=data.classes, **size).eval()
    load_weights(model, Path(given.run) / "dense" / "model.safetensors")
    images = list(calibration_images(data, given.images))
    rows = [("dense", "-", "-", *measured(model, data, images))]
    for method in given.methods:
        pruned = copy.deepcopy(model)
        report = ts.prune(pruned, method, given.sparsity / 100, images)
        errors = [layer.error_after for layer in report.layers if layer.error_after is not None]
        row = (f"{fmean(errors):.4f}", seconds(report.seconds))
        rows.append((f"{method} ({report.comparison})", *row, *measured(pruned, data, images)))
        print(f"  {method} done", flush=True)
    title = f"{recipe.name}, {given.sparsity} % of linear layers, {given.test} test images"
    heading = ("mean layer error", "time", "ANN", f"SNN T={TIMESTEPS}", "ANN energy", "SNN energy")
    table((title, *heading), rows)


def measured(model: nn.Module, data: DataBundle, images: list[Tensor]) -> tuple[str, str, str, str]:
    """Return accuracy and energy as an ANN and, converted, as a spiking network."""
    snn = ts.convert(model, calibration=images, timesteps=TIMESTEPS)
    result = ts.evaluate(snn, data.test, TIMESTEPS)
    return (
        f"{result.ann_accuracy:.2%}",
        f"{result.accuracy[-1]:.2%}",
        f"{result.ann_energy_joule * 1e6:.3f} uJ",
        f"{result.energy_joule[-1] * 1e6:.3f} uJ",
    )


def main() -> None:
    """Print one of the tables."""
    values = {"blocks": 2, "images": 32, "sparsity": 70, "test": 1000, "run": "", "errors": 1}
    given = options(__doc__, values=values, methods=METHODS)
    if given.run:
        accuracy_and_energy(given)
    else:
        time_and_memory(given)


if __name__ == "__main__":
    main()
