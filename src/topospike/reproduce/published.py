"""Reproduce: the published numbers, read from one data file that comes with the package.

``published.json`` holds every table and every quantified figure of Bao, Gu, Lyu, Cannistraci (2026)
as printed: accuracies in per cent, energies in micro- or millijoules per image, sparse rows as
differences from their dense row; and, with sources of their own, the results of CH-SNN and the
perplexities of Zhang et al. (2025) for LLaMA-60M. `read_rows` adds what follows from the
print, so that each row can be compared in absolute values too. Nothing measured by us is in that
file.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from topospike.registry import Registry

ENERGY_UNITS = {"energy_uJ": 1e-6, "energy_mJ": 1e-3}
DENSE = "dense"
PAPER = "Bao, Gu, Lyu, Cannistraci (2026)"


@dataclass(frozen=True)
class PublishedRow:
    """One line of a published table or figure.

    Attributes
    ----------
    labels
        What the line is about, in the order of the table's columns: dataset, network, method, ...
    values
        Numbers as printed, by quantity (`QUANTITIES`), and what follows from them:
        ``energy_joule``, and for lines given relative to a dense one ``snn_accuracy``.
    timesteps
        The time step at which the spiking network is judged; ``None`` where there is none.
    """

    labels: Mapping[str, str]
    values: Mapping[str, Any]
    timesteps: int | None = None

    @property
    def key(self) -> str:
        """The labels as one name, such as ``cifar10/vgg16/cht/dcgs``."""
        return "/".join(slug(label) for label in self.labels.values())


@dataclass(frozen=True)
class PublishedTable:
    """A published table or figure: its name, title, label columns, lines, and their source."""

    name: str
    title: str
    labels: tuple[str, ...]
    rows: tuple[PublishedRow, ...] = field(repr=False)
    source: str = PAPER


def slug(label: str) -> str:
    """Return a label as it is written in keys and file names.

    Examples
    --------
    >>> slug("CIFAR-10"), slug("ImageNet-1K"), slug("90.62 %"), slug("cs-qcfs")
    ('cifar10', 'imagenet', '90.62', 'cs-qcfs')
    """
    known = {"CIFAR-10": "cifar10", "CIFAR-100": "cifar100", "ImageNet-1K": "imagenet"}
    known |= {"N-MNIST": "nmnist", "DVS128 Gesture": "dvs-gesture"}
    networks = {
        "VGG-16": "vgg16",
        "ResNet-18": "resnet18",
        "ViT-B": "vit-b",
        "6Conv2FC": "conv6fc2",
    }
    return {**known, **networks}.get(label, label.removesuffix(" %").lower())


@functools.cache
def content() -> Mapping[str, Any]:
    """Read the data file."""
    text = (files("topospike.reproduce") / "published.json").read_text()
    return MappingProxyType(json.loads(text))


def published(name: str) -> PublishedTable:
    """Return a published table (``table1`` ... ``table4``, ``tableA1`` ...) or figure (``fig3``).

    Figures that plot a table have the lines of that table for their dataset.

    Raises
    ------
    ConfigError
        Unknown name; the nearest one is suggested.

    Examples
    --------
    >>> row = published("table1").rows[4]
    >>> row.key, row.timesteps, row.values["ann_accuracy"]
    ('cifar10/vgg16/cht/dcgs', 8, 93.98)
    >>> round(row.values["snn_accuracy"], 2), round(row.values["energy_joule"] * 1e6, 2)
    (93.95, 46.27)
    """
    everything: dict[str, Any] = {**content()["tables"], **content()["figures"]}
    raw = Registry("published table or figure", everything)[name]
    if "table" not in raw:
        rows, source = read_rows(raw["rows"]), raw.get("source", PAPER)
        return PublishedTable(name, raw["title"], tuple(raw["labels"]), rows, source)
    plotted = published(raw["table"])
    rows = tuple(row for row in plotted.rows if row.labels["dataset"] == raw["dataset"])
    return PublishedTable(name, raw["title"], plotted.labels, rows)


def read_rows(raw: list[dict[str, Any]]) -> tuple[PublishedRow, ...]:
    """Turn the lines of the data file into rows, with the values that follow from the print."""
    rows = [
        PublishedRow(row["labels"], in_joule(row["values"]), row.get("timesteps")) for row in raw
    ]
    dense = {without_method(row): row for row in rows if row.labels.get("method") == DENSE}
    return tuple(
        PublishedRow(
            row.labels, absolute(row.values, dense.get(without_method(row))), row.timesteps
        )
        for row in rows
    )


def without_method(row: PublishedRow) -> tuple[str, ...]:
    """Return the labels that a row shares with its dense row."""
    return tuple(value for name, value in row.labels.items() if name != "method")


def in_joule(values: Mapping[str, Any]) -> dict[str, Any]:
    """Add the energy in joules to the printed one."""
    for quantity, unit in ENERGY_UNITS.items():
        if quantity in values:
            return {**values, "energy_joule": values[quantity] * unit}
    return dict(values)


def absolute(values: Mapping[str, Any], dense: PublishedRow | None) -> Mapping[str, Any]:
    """Add accuracy and energy to values that are printed relative to a dense row."""
    result = dict(values)
    if dense is not None and "snn_accuracy_delta" in values:
        result["snn_accuracy"] = dense.values["snn_accuracy"] + values["snn_accuracy_delta"]
    if dense is not None and "energy_reduction_percent" in values:
        kept = 1 - values["energy_reduction_percent"] / 100
        result["energy_joule"] = dense.values["energy_joule"] * kept
    return MappingProxyType(result)


def setting(name: str) -> Any:
    """Return one of the settings that hold for the whole paper, such as ``saturation``.

    Examples
    --------
    >>> setting("saturation")
    {'window': 5, 'epsilon': 0.01}
    """
    return Registry("published setting", content()["settings"])[name]


def hyperparameters(table: str, label: str) -> Mapping[str, Any]:
    """Return one column of tables A1 or A3: ``hyperparameters("tableA1", "VGG-16")``."""
    columns = {next(iter(row.labels.values())): row.values for row in published(table).rows}
    return Registry(f"column of {table}", columns)[label]


QUANTITIES: Mapping[str, str] = MappingProxyType(dict(content()["quantities"]))
