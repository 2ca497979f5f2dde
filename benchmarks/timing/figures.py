"""The figures of a benchmark: kept in a file from the first one on, and shown as tables."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from topospike.pipeline.folder.record import hardware

Figure = dict[str, Any]

IDENTITY = ("part", "network", "weights", "links", "batch", "neuron", "engine", "timesteps", "at")
"""What tells one figure from another; a figure measured again replaces the earlier one."""


class Figures:
    """All figures of a folder. Each one is on disk as soon as it is known.

    Parameters
    ----------
    folder
        Where ``figures.json`` is or will be; figures already there are kept.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "figures.json"
        stored = json.loads(self.path.read_text()) if self.path.is_file() else {"figures": []}
        self._known: dict[tuple[Any, ...], Figure] = {identity(f): f for f in stored["figures"]}

    def add(self, figure: Figure) -> None:
        """Keep a figure, with the time and the load of the machine."""
        now = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "load": round(os.getloadavg()[0], 1),
            "threads": torch.get_num_threads(),
        }
        self._known[identity(figure)] = {**figure, **now}
        machine = {**hardware(), "torch": torch.__version__}
        text = json.dumps({"machine": machine, "figures": list(self._known.values())}, indent=1)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(text + "\n")
        unfinished.replace(self.path)

    def of(self, part: str, **wanted: Any) -> list[Figure]:
        """Return the figures of one part that agree with what is wanted."""
        return [
            figure
            for figure in self._known.values()
            if figure["part"] == part and all(figure.get(k) == v for k, v in wanted.items())
        ]


def identity(figure: Figure) -> tuple[Any, ...]:
    """Return what tells a figure from all others."""
    return tuple(figure.get(key) for key in IDENTITY)


ENGINE_COLUMNS = ("neuron", "engine", "T", "forwards", "a step", "expected", "MiB more", "load")


def engine_rows(figures: Iterable[Figure]) -> list[list[str]]:
    """Return the rows of a table of engines."""
    return [
        [
            f["neuron"],
            f["engine"],
            str(f["timesteps"]),
            f"{f['forwards']:.1f}",
            f"{f['forwards'] / f['timesteps']:.2f}",
            f"{f['expected']:.1f}" if f.get("expected") else "-",
            f"{f['mib']:.0f}",
            f"{f['load']:.1f}",
        ]
        for f in figures
    ]


def markdown(figures: Figures) -> str:
    """Return all figures as Markdown tables."""
    engines = figures.of("engine")
    groups = dict.fromkeys((f["network"], f["weights"], f["links"], f["batch"]) for f in engines)
    lines = ["# How long T steps take, in plain forwards of the same network", ""]
    for network, weights, links, batch in groups:
        found = figures.of("engine", network=network, weights=weights, links=links, batch=batch)
        plain = sum(f["ann_seconds"] for f in found) / len(found)
        lines += [f"## {network}, {links}, {weights} weights, batch {batch}", ""]
        lines += [f"A plain forward took {plain * 1e3:.1f} ms of processor time.", ""]
        lines += [*markdown_table(ENGINE_COLUMNS, engine_rows(found)), ""]
        lines += firing_lines(found)
    for part, title in (("firing", "share of neurons that fire"), ("density", "share of links")):
        found = figures.of(part)
        if found:
            rows = [[f["network"], f["engine"], f"{f['at']:g}", f"{f['ratio']:.2f}"] for f in found]
            lines += [f"## Cost against the {title}", ""]
            lines += [*markdown_table(("what", "engine", "share", "over dense"), rows), ""]
    return "\n".join(lines)


def firing_lines(found: Sequence[Figure]) -> list[str]:
    """Return a line for each neuron model: how many neurons fire at each step."""
    lines = []
    for neuron in dict.fromkeys(f["neuron"] for f in found):
        longest = max((f for f in found if f["neuron"] == neuron), key=lambda f: len(f["fired"]))
        if longest["fired"]:
            shares = " ".join(f"{100 * share:.0f}" for share in longest["fired"])
            lines += [f"{neuron}: % of the neurons that fire at t = 1, 2, ...: {shares}", ""]
    return lines


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    ruler = ["---", *("---:" for _ in heading[1:])]
    return ["| " + " | ".join(row) + " |" for row in (heading, ruler, *rows)]
