"""Reproduce: conversion methods side by side, on the same networks, images and counts.

Not a published table. Every trained network of the given run folders is converted by every method
with the method's own defaults, calibrated on the same training images, and measured on the same
test images in one pass. Run folders are read and not written to. A method that cannot convert a
network, or needs one trained for it, has a line that says why.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from topospike.contracts import Evaluation, to_json, write_atomically
from topospike.conversion import METHODS, Method, convert
from topospike.conversion.methods.waiting import TimedMethod
from topospike.data import DataBundle, SplitBatches, load_data
from topospike.errors import ConfigError, ConversionError
from topospike.measure import evaluate
from topospike.pipeline.api import run_recipe
from topospike.pipeline.direct import refuse_conversion
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.networks import (
    EvenlySpread,
    calibration_images,
    measured_images,
    run_folder,
    trained_model,
)
from topospike.pipeline.run import Network, Run
from topospike.progress import say, watched
from topospike.recipe import ConversionSettings
from topospike.recipe.files import resolve
from topospike.report.units import NO_VALUE, energy
from topospike.snn import SpikingNetwork
from topospike.snn.site import Site

TARGET = "methods"
EXAMPLE = "demo"
COMPARED = (
    "dcgs",
    "cs-qcfs",
    "sigma-delta",
    "ltb",
    "parallel",
    "phase",
    "one-spike",
    "graded",
)
"""What is compared where nothing else is asked for."""

SHOWN = (1, 2, 4, 8, 16, 32)
NEAR = 0.01
"""From how far below the ANN's accuracy an answer counts as the ANN's: a point."""


@dataclass(frozen=True)
class MethodRow:
    """One network converted by one method; per image, energies in joules, accuracies fractions.

    Attributes
    ----------
    folder, network, method
        Which run folder, which network of it, and how it was converted.
    skipped
        Why there is nothing to show, or ``None``.
    levels
        Most positive values of a spike, or of a neuron whose layer waits for the one before.
    bits
        What an event carries at most.
    images
        Test images it was measured on.
    ann_accuracy, ann_energy_joule
        Of the ANN, on its existing links.
    accuracy, energy_joule
        After each step; an event costs one accumulate for each link it crosses. Of a method that
        spreads an answer over T steps, converted anew for each T; ``None`` for the T between.
        Before the first answer of a delayed readout there is no accuracy: ``None``.
    chip_steps
        Steps that a chip takes until that step's answer.
    bit_energy_joule
        The same with an event that costs as many accumulates as it has bits.
    steps_until_silence, last_step_until_silence
        After which step nothing fires, mean and most; ``None`` where neurons never fall silent.
    silent
        Share of the images for which that happened.
    seconds
        What converting and measuring took.
    """

    folder: str
    network: str
    method: str
    skipped: str | None = None
    levels: int = 0
    bits: float = 0.0
    images: int = 0
    ann_accuracy: float = 0.0
    ann_energy_joule: float = 0.0
    accuracy: tuple[float | None, ...] = ()
    energy_joule: tuple[float | None, ...] = ()
    bit_energy_joule: tuple[float | None, ...] = ()
    chip_steps: tuple[int | None, ...] = ()
    steps_until_silence: float | None = None
    last_step_until_silence: int | None = None
    silent: float | None = None
    seconds: float = 0.0

    @property
    def near(self) -> int | None:
        """The first step whose accuracy is within a point of the ANN's.

        Examples
        --------
        >>> MethodRow("run", "dense", "dcgs", ann_accuracy=0.9, accuracy=(0.7, 0.89, 0.9)).near
        2
        """
        least = self.ann_accuracy - NEAR - 1e-9
        known = ((t, share) for t, share in enumerate(self.accuracy, start=1) if share is not None)
        return next((t for t, share in known if share >= least), None)


def compare_methods(
    folders: Sequence[Path],
    methods: Sequence[str] = COMPARED,
    *,
    timesteps: int = SHOWN[-1],
    images: int | None = None,
    device: str | None = None,
) -> tuple[MethodRow, ...]:
    """Convert every network of some run folders by every method, and measure what comes out.

    Parameters
    ----------
    folders
        Run folders with trained networks.
    methods
        Names in `topospike.conversion.METHODS`, each used with its defaults.
    timesteps
        Longest simulation.
    images
        Test images, evenly spread over the split; ``None``: all.
    device
        As in `topospike.run_recipe`.

    Raises
    ------
    ConfigError
        If a method is unknown, a number is below 1, or a folder's networks were trained through
        time.
    MissingDataError
        If a folder has no trained networks.
    """
    for method in methods:
        _ = METHODS[method]
    if images is not None and images < 1:
        raise ConfigError(f"images is {images}; 1 or more are required.")
    runs = []
    for folder in folders:
        recipe = recorded_recipe(folder)
        refuse_conversion(recipe, folder, "converted")
        runs.append(Run(recipe, folder, device=device))
    rows = []
    for run in runs:
        # not `run.data`, which would write to the record of a run that was finished
        data = load_data(run.recipe.data, seed=run.recipe.seed, device=run.device)
        for network in run.networks:
            for method in methods:
                label = f"{run.folder.name}, {network.name}, {method}"
                rows.append(one_row(run, network, data, method, (timesteps, images), label))
    return tuple(rows)


def one_row(
    run: Run,
    network: Network,
    data: DataBundle,
    method: str,
    size: tuple[int, int | None],
    label: str,
) -> MethodRow:
    """Convert one network by one method and measure it, or say why that cannot be."""
    row = MethodRow(str(run.folder), network.name, method)
    (timesteps, wanted), settings = size, ConversionSettings(method=method)
    images = measured_images(data.test, wanted)
    model = trained_model(run, network)

    def measured(length: int, chosen: Method) -> MethodRow:
        calibration = calibration_images(data, settings.calibration_images)
        snn = convert(model, chosen, calibration, settings.timesteps)
        result = evaluate(snn, watched(images, label), length)
        return replace(
            with_silence(row, snn, images),
            levels=max(site.neuron.levels for site in snn.sites.values()),
            bits=max(site.bits for site in snn.sites.values()),
            images=result.images,
            ann_accuracy=result.ann_accuracy,
            ann_energy_joule=result.ann_energy_joule,
            accuracy=answered(result),
            energy_joule=result.energy_joule,
            bit_energy_joule=bit_energy(snn, result),
            chip_steps=() if result.wider is None else result.wider.chip_steps,
        )

    started = time.perf_counter()
    try:
        chosen = METHODS[method]()
        if not isinstance(chosen, TimedMethod):
            row = measured(timesteps, chosen)
        else:
            lengths = [t for t in SHOWN if t <= min(timesteps, chosen.longest)]
            rows = [measured(t, replace(chosen, steps=t)) for t in lengths]
            row = last_of_each(rows, timesteps)
    except (ConversionError, ConfigError) as error:
        say(f"{label}: skipped")
        return replace(row, skipped=" ".join(str(error).split()))
    return replace(row, seconds=time.perf_counter() - started)


def answered(result: Evaluation) -> tuple[float | None, ...]:
    """Return the accuracy after each step, ``None`` before the first answer."""
    first = 1 if result.wider is None else result.wider.first_answer
    return tuple(share if t >= first else None for t, share in enumerate(result.accuracy, start=1))


def last_of_each(rows: Sequence[MethodRow], timesteps: int) -> MethodRow:
    """Put together the last steps of runs of several lengths; ``None`` for those between.

    Examples
    --------
    >>> rows = [MethodRow("run", "dense", "phase", accuracy=a) for a in ((0.1,), (0.1, 0.1, 0.9))]
    >>> last_of_each(rows, 4).accuracy
    (0.1, None, 0.9, None)
    """
    found = {len(row.accuracy): row for row in rows}

    def curve(name: str) -> tuple[Any, ...]:
        steps = (getattr(found.get(t), name, None) for t in range(1, timesteps + 1))
        return tuple(values[-1] if values else None for values in steps)

    names = ("accuracy", "energy_joule", "bit_energy_joule", "chip_steps")
    return replace(rows[-1], **{name: curve(name) for name in names})


def with_silence(
    row: MethodRow, snn: SpikingNetwork, images: SplitBatches | EvenlySpread
) -> MethodRow:
    """Add after how many steps nothing fires, where that happens."""
    if not snn.settles:
        return row
    settled = [snn.settle(x) for x, _ in images]
    steps = torch.cat([part.steps for part in settled])
    silent = torch.cat([part.silent for part in settled])
    return replace(
        row,
        steps_until_silence=float(steps.double().mean()),
        last_step_until_silence=int(steps.max()),
        silent=float(silent.double().mean()),
    )


def bit_energy(snn: SpikingNetwork, result: Evaluation) -> tuple[float, ...]:
    """Return the energy where an event costs as many accumulates a link as it has bits.

    Bits are those of all the levels a neuron has, also at steps that use fewer; of a layer that
    several sites feed, those of the finest.
    """
    bits = []
    for layer in snn.wiring:
        feeding = (snn.ann.get_submodule(str(node.target)) for node in layer.sites)
        bits.append(max((site.bits for site in feeding if isinstance(site, Site)), default=1.0))
    price = float(result.conventions["ac_joule"])
    more = [
        price * sum((b - 1.0) * layer.sops[t] for b, layer in zip(bits, result.layers, strict=True))
        for t in range(len(result.timesteps))
    ]
    return tuple(plain + extra for plain, extra in zip(result.energy_joule, more, strict=True))


def example_run(folder: Path, device: str | None) -> Path:
    """Return the run folder of the packaged example, trained if it is not."""
    recipe = resolve(EXAMPLE)
    return run_recipe(recipe, run_folder(folder, recipe), train_only=True, device=device).folder


def table_of_methods(rows: Sequence[MethodRow]) -> tuple[list[str], list[list[str]]]:
    """Return headings and lines as text: accuracies, and energies in per cent of the ANN's."""
    headings = ["run", "network", "method", "levels", "bits", "ANN, %"]
    headings += [f"accuracy, %: T = {t}" if t == 1 else str(t) for t in SHOWN]
    headings += [f"energy, % of ANN: T = {t}" if t == 1 else str(t) for t in SHOWN]
    headings += ["within a point: t", "on a chip", "energy", "by bits"]
    headings += ["steps until silence", "seconds"]
    return headings, [line_of(row, len(headings)) for row in rows]


def line_of(row: MethodRow, columns: int) -> list[str]:
    """Return one line of the table."""
    names = [Path(row.folder).name, row.network, row.method]
    if row.skipped is not None:
        return [*names, f"skipped: {row.skipped}", *[""] * (columns - len(names) - 1)]

    def share(values: Sequence[float | None], t: int | None, whole: float, digits: int) -> str:
        value = None if t is None or t > len(values) else values[t - 1]
        return NO_VALUE if value is None else f"{100 * value / whole:.{digits}f}"

    ann, near = row.ann_energy_joule, row.near
    latency = row.chip_steps[near - 1] if near and near <= len(row.chip_steps) else None
    return [
        *names,
        str(row.levels),
        f"{row.bits:.3g}",
        f"{100 * row.ann_accuracy:.2f}",
        *(share(row.accuracy, t, 1.0, 2) for t in SHOWN),
        *(share(row.energy_joule, t, ann, 1) for t in SHOWN),
        NO_VALUE if near is None else str(near),
        NO_VALUE if latency is None else str(latency),
        share(row.energy_joule, near, ann, 1),
        share(row.bit_energy_joule, near, ann, 1),
        silence_of(row),
        f"{row.seconds:.0f}",
    ]


def silence_of(row: MethodRow) -> str:
    """Say after which step nothing fires any more."""
    if row.steps_until_silence is None:
        return NO_VALUE
    text = f"{row.steps_until_silence:.1f}, at most {row.last_step_until_silence}"
    return text if row.silent == 1.0 else f"{text} ({100 * (row.silent or 0.0):.1f} % silent)"


def methods_text(rows: Sequence[MethodRow]) -> str:
    """Return the comparison as a Markdown table with its introduction."""
    headings, lines = table_of_methods(rows)
    cells = [[cell.replace("|", "\\|") for cell in line] for line in (headings, *lines)]
    whole = [line for line in cells if not any(text.startswith("skipped: ") for text in line)]
    widths = [max(map(len, column)) for column in zip(*whole, strict=True)]
    padded = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    measured = [row for row in rows if row.skipped is None]
    counts = ", ".join(dict.fromkeys(str(row.images) for row in measured)) or "no"
    ann = dict.fromkeys((row.folder, row.network, row.ann_energy_joule) for row in measured)
    costs = "; ".join(f"{Path(folder).name}, {name} {energy(j)}" for folder, name, j in ann)
    introduction = (
        f"Conversion methods on the same networks, {counts} test images and counts; each method "
        "with its defaults, nothing trained. Accuracy in per cent; energy as a share of the ANN's "
        f"on its existing links ({costs}). An event costs one accumulate for each link it crosses; "
        "by bits: as many accumulates as it has bits. Within a point: the first step less than a "
        "point below the ANN, the steps a chip takes until then, and the energy. Methods whose "
        "layers wait for one another are converted for each T. Steps until silence: after which "
        "nothing fires, mean and most over the images. Seconds: converting and measuring, one "
        "thread."
    )
    return "\n".join(["# Conversion methods", "", introduction, "", padded[0], ruler, *padded[1:]])


def write_methods(rows: Sequence[MethodRow], folder: Path) -> list[Path]:
    """Write ``methods.md`` and, with every step and digit, ``methods.json``; return the paths."""
    paths = [folder / f"{TARGET}.md", folder / f"{TARGET}.json"]
    content = [
        {**to_json(row), "first_within_a_point": None if row.skipped else row.near} for row in rows
    ]
    write_atomically(paths[0], methods_text(rows) + "\n")
    write_atomically(paths[1], json.dumps(content, indent=1) + "\n")
    return paths
