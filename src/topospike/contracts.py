"""The frozen records that cross from one stage to the next.

They hold plain numbers, strings and tuples, import nothing of ours, and know how to become JSON.
Conventions: time step t counts from 1, so ``accuracy[t - 1]`` is the value at t; energies are in
joules; counts and energies are per image and cumulative over 1..t; shares are fractions in [0, 1].
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


def to_json(record: Any) -> Any:
    """Turn a (nested) frozen record into dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write ``content`` beside ``path``, flush it to disk, then rename it over ``path``.

    A reader sees the old file or the new one, never a half-written one.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@dataclass(frozen=True, slots=True)
class LayerChange:
    """What one topology update did to one layer, in links.

    ``active_before - removed - percolated + grown == active_after``. ``removed`` counts the links
    taken by density decay as well. ``overlap`` is the share of grown links that had just been
    removed (0 when nothing grew). ``score_nonzero`` is the share of absent links with a positive
    growth score, ``None`` for rules without scores.
    """

    active_before: int
    removed: int
    percolated: int
    grown: int
    active_after: int
    target: int
    shortfall: int
    overlap: float
    score_nonzero: float | None = None


@dataclass(frozen=True, slots=True)
class TopologyUpdate:
    """The record returned by ``Sparsifier.update_topology``.

    ``update_index`` counts the updates made so far, this one included.
    ``anp`` is the share of active neurons after percolation as the reference counts it (input
    columns of every layer plus the rows of the last), ``anp_hidden`` the strict form (hidden
    neurons with links on both sides); ``itop_rate`` the share of positions ever active.
    """

    update_index: int
    epoch: int
    layers: Mapping[str, LayerChange]
    sparsity: float
    anp: float
    anp_hidden: float
    itop_rate: float


# Shares from which on a site is worth a look; the converter's advice and the report page agree.
DEAD_LIMIT = 0.6
SATURATED_LIMIT = 0.02


@dataclass(frozen=True, slots=True)
class SiteReport:
    """One spiking site of a converted network and the health of its thresholds."""

    name: str
    op: str
    module: str
    sources: tuple[str, ...]
    channels: int
    threshold_min: float
    threshold_mean: float
    threshold_max: float
    dead_share: float
    saturated_share: float


@dataclass(frozen=True, slots=True)
class LayerInput:
    """How one weight layer of a converted network is fed: ``image``, ``spikes`` or ``graded``."""

    name: str
    kind: str
    input: str
    reason: str


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What the converter did: settings, sites, and how every weight layer is fed.

    ``options`` are those of the method, every one; ``None`` where the kind of site decides.
    """

    method: str
    coding: str
    neuron: str
    levels: int
    solver: str
    granularity: str
    calibration_images: int
    batch_norms_folded: tuple[str, ...]
    sites: tuple[SiteReport, ...]
    layers: tuple[LayerInput, ...]
    advice: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> str:
        """Every option of the method as text; ``auto`` where the kind of site decides."""
        given = {name: "auto" if value is None else value for name, value in self.options.items()}
        return ", ".join(f"{name}={value}" for name, value in given.items())

    @classmethod
    def from_plain(cls, raw: Mapping[str, Any]) -> ConversionReport:
        """Build it from what `to_json` made; `TypeError` if a field is missing or unknown."""
        parts = {
            "sites": tuple(
                SiteReport(**{**site, "sources": tuple(site["sources"])}) for site in raw["sites"]
            ),
            "layers": tuple(LayerInput(**layer) for layer in raw["layers"]),
            "batch_norms_folded": tuple(raw["batch_norms_folded"]),
            "advice": tuple(raw.get("advice", ())),
        }
        return cls(**{**raw, **parts})


@dataclass(frozen=True, slots=True)
class SiteComparison:
    """How far the decoded output of one site is from the ANN's activation, after t steps.

    ``relative_error`` is the norm of the difference over the norm of the activation,
    ``mean_bias`` the mean difference in units of the activation. ``dead_share``: neurons that some
    image drives in the ANN and that have emitted nothing so far; ``saturated_share``: activations
    above what the site can decode to by then. ``None`` where a ratio has no meaning.
    """

    site: str
    t: int
    relative_error: float | None
    correlation: float | None
    mean_bias: float
    dead_share: float
    saturated_share: float


@dataclass(frozen=True, slots=True)
class ActivationComparison:
    """Spiking against ANN activations, site by site in execution order (``activations.json``).

    The last entry of each step is the network's output. ``jump`` names the site where the error
    jumps, if one does; ``advice`` says what to do about it.
    """

    timesteps: tuple[int, ...]
    images: int
    sites: tuple[SiteComparison, ...]
    jump: str | None = None
    advice: tuple[str, ...] = ()

    def at(self, t: int) -> tuple[SiteComparison, ...]:
        """Return the sites in execution order after t steps."""
        return tuple(site for site in self.sites if site.t == t)

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        write_atomically(path, json.dumps(to_json(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> ActivationComparison:
        """Read what `save` wrote."""
        raw = json.loads(Path(path).read_text())
        sites = tuple(SiteComparison(**site) for site in raw["sites"])
        known = {"timesteps": tuple(raw["timesteps"]), "advice": tuple(raw["advice"])}
        return cls(**{**raw, **known, "sites": sites})


@dataclass(frozen=True, slots=True)
class LayerOperations:
    """Operations of one weight layer, per image.

    ``macs`` counts existing links with true borders, ``macs_dense`` the same layer with every
    link present. ``sops[t - 1]`` are the synaptic operations of steps 1..t on existing links,
    ``snn_macs[t - 1]`` what the spiking network spends in multiply-accumulates up to t.
    """

    name: str
    kind: str
    input: str
    macs: float
    macs_dense: float
    density: float
    sops: tuple[float, ...]
    snn_macs: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class SiteActivity:
    """Spikes per neuron at each single time step (not cumulative) of one site."""

    name: str
    neurons: int
    firing_rate: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Settling:
    """Single images run until no neuron fires; one entry an image, but for ``spikes``.

    ``steps`` is the last step at which a neuron fired, ``energy_joule`` that of the whole run.
    Where ``silent`` is false the run was cut off after ``at_most`` steps. ``spikes`` is how many
    neurons fired at each step, mean over the images, down to the first step of silence in all.
    """

    steps: tuple[int, ...]
    silent: tuple[bool, ...]
    energy_joule: tuple[float, ...]
    spikes: tuple[float, ...]
    at_most: int


@dataclass(frozen=True, slots=True)
class WiderCost:
    """What a count of synaptic operations leaves out; shown beside it, never added.

    Joules per image, cumulative over steps 1..t. ``update_joule`` prices an update of every neuron
    at every step, and is empty where the energy model has no price for one; ``memory_joule`` and
    ``ann_memory_joule`` are memory accesses. ``int8_ann_joule`` is the ANN with weights and
    activations of 8 bits on the same links, activations that are 0 left out; ``active_share`` is
    the share left of the links fed by spikes. ``event_rate`` is events per link and step over
    these layers; below ``break_even_rate`` they cost less than in that ANN. ``chip_steps`` is
    T + L - 1, as a chip takes.
    """

    update_joule: tuple[float, ...]
    memory_joule: tuple[float, ...]
    ann_memory_joule: float
    int8_ann_joule: float
    active_share: float
    event_rate: tuple[float, ...]
    break_even_rate: tuple[float, ...]
    chip_steps: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy and energy of a spiking network at every time step (``evaluation.json``).

    ``metrics`` holds every metric that was measured, by name and step, ``ann_metrics`` the ANN's
    values; ``accuracy`` repeats the one of that name and is empty, ``ann_accuracy`` nan (null in
    the file), where another was measured. ``saturation_time`` is that of the first metric.
    ``advice`` are sentences on what the figures mean. ``settling`` says when single images fell
    silent and what each cost, of networks that do.

    ``macs`` is what the spiking network spends in multiply-accumulates per image over the whole
    run, ``macs_per_step`` its cumulative course; ``ann_energy_joule`` prices the same network run
    once as an ANN on its existing links, ``ann_dense_energy_joule`` with every link present.
    """

    timesteps: tuple[int, ...]
    accuracy: tuple[float, ...]
    energy_joule: tuple[float, ...]
    sops: tuple[float, ...]
    macs_per_step: tuple[float, ...]
    ann_accuracy: float
    ann_energy_joule: float
    ann_dense_energy_joule: float
    macs: float
    images: int
    saturation_time: int | None
    conventions: Mapping[str, str | float]
    layers: tuple[LayerOperations, ...]
    sites: tuple[SiteActivity, ...] = field(default=())
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ann_metrics: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    settling: Settling | None = None
    wider: WiderCost | None = None

    def __post_init__(self) -> None:
        """Know the accuracy as a metric too, in records that have no other (earlier files)."""
        if self.accuracy and not self.metrics:
            object.__setattr__(self, "metrics", {"accuracy": self.accuracy})
            object.__setattr__(self, "ann_metrics", {"accuracy": self.ann_accuracy})

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        plain = to_json(self)
        if math.isnan(self.ann_accuracy):
            plain["ann_accuracy"] = None
        write_atomically(path, json.dumps(plain, indent=1) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote."""
        raw = json.loads(Path(path).read_text())
        raw["layers"] = tuple(
            LayerOperations(
                **{**row, "sops": tuple(row["sops"]), "snn_macs": tuple(row["snn_macs"])}
            )
            for row in raw["layers"]
        )
        raw["sites"] = tuple(
            SiteActivity(**{**row, "firing_rate": tuple(row["firing_rate"])})
            for row in raw["sites"]
        )
        for key in ("timesteps", "accuracy", "energy_joule", "sops", "macs_per_step"):
            raw[key] = tuple(raw[key])
        for key in ("lower_is_better", "advice"):
            raw[key] = tuple(raw.get(key, ()))
        raw["metrics"] = {name: tuple(curve) for name, curve in raw.get("metrics", {}).items()}
        if raw.get("settling") is not None:
            lists = {k: tuple(v) for k, v in raw["settling"].items() if isinstance(v, list)}
            raw["settling"] = Settling(**{**raw["settling"], **lists})
        if raw.get("wider") is not None:
            lists = {k: tuple(v) for k, v in raw["wider"].items() if isinstance(v, list)}
            raw["wider"] = WiderCost(**{**raw["wider"], **lists})
        if raw["ann_accuracy"] is None:
            raw["ann_accuracy"] = math.nan
        return cls(**raw)
