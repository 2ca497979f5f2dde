"""The frozen records that cross from one stage to the next.

They hold plain numbers, strings and tuples, and know how to become JSON; a number's range is in its
annotation, and is checked where a record is read (`topospike.files.reading`).
Conventions: time step t counts from 1, so ``accuracy[t - 1]`` is the value at t; energies are in
joules; counts and energies are per image and cumulative over 1..t; shares are fractions in [0, 1].
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from topospike.costs import WiderCost
from topospike.errors import CheckpointError, ShapeError
from topospike.files.ranges import Amount, Count, Order, Share
from topospike.files.reading import read_record


def to_json(record: Any) -> Any:
    """Turn a (nested) frozen record into dictionaries, lists, numbers and strings."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Write ``content`` beside ``path``, flush it to disk, then rename it over ``path``.

    A reader sees the old file or the new one, never a half-written one. Where it cannot be written
    a `CheckpointError` says why.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")
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
    except OSError as error:
        why = error.strerror or error
        raise CheckpointError(
            f"{path} cannot be written here ({why}). Free space, remove what is in the way, or "
            "choose another folder."
        ) from error


def write_json(path: str | Path, content: Any) -> None:
    """Write plain values as JSON, atomically."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


@dataclass(frozen=True, slots=True)
class LayerChange:
    """What one topology update did to one layer, in links.

    ``active_before - removed - percolated + grown == active_after``. ``removed`` counts the links
    taken by density decay as well. ``overlap`` is the share of grown links that had just been
    removed (0 when nothing grew). ``score_nonzero`` is the share of absent links with a positive
    growth score, ``None`` for rules without scores.
    """

    active_before: Count
    removed: Count
    percolated: Count
    grown: Count
    active_after: Count
    target: Count
    shortfall: int
    overlap: Share
    score_nonzero: Share | None = None


@dataclass(frozen=True, slots=True)
class TopologyUpdate:
    """The record returned by ``Sparsifier.update_topology``.

    ``update_index`` counts the updates made so far, this one included.
    ``anp`` is the share of active neurons after percolation as the reference counts it (input
    columns of every layer plus the rows of the last), ``anp_hidden`` the strict form (hidden
    neurons with links on both sides); ``itop_rate`` the share of positions ever active.
    """

    update_index: Count
    epoch: Count
    layers: Mapping[str, LayerChange]
    sparsity: Share
    anp: Share
    anp_hidden: Share
    itop_rate: Share


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
    channels: Count
    threshold_min: float
    threshold_mean: float
    threshold_max: float
    dead_share: Share
    saturated_share: Share


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
    ``input`` says what the network is shown: an ``image``, or ``frames`` or ``events`` over time.
    ``uncounted`` names what is evaluated on decoded values and is in no count, by module;
    ``readout_delay`` is how many steps the answer leaves out.
    """

    method: str
    coding: str
    neuron: str
    levels: Count
    solver: str
    granularity: str
    calibration_images: Count
    batch_norms_folded: tuple[str, ...]
    sites: tuple[SiteReport, ...]
    layers: tuple[LayerInput, ...]
    advice: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    input: str = "image"
    uncounted: tuple[str, ...] = ()
    readout_delay: Count = 0

    @property
    def settings(self) -> str:
        """Every option of the method as text; ``auto`` where the kind of site decides."""
        given = {name: "auto" if value is None else value for name, value in self.options.items()}
        return ", ".join(f"{name}={value}" for name, value in given.items())


@dataclass(frozen=True, slots=True)
class SiteComparison:
    """How far the decoded output of one site is from the ANN's activation, after t steps.

    ``relative_error`` is the norm of the difference over the norm of the activation,
    ``mean_bias`` the mean difference in units of the activation. ``dead_share``: neurons that some
    image drives in the ANN and that have emitted nothing so far; ``saturated_share``: activations
    above what the site can decode to by then. ``None`` where a ratio has no meaning.
    """

    site: str
    t: Order
    relative_error: Amount | None
    correlation: float | None
    mean_bias: float
    dead_share: Share
    saturated_share: Share


@dataclass(frozen=True, slots=True)
class ActivationComparison:
    """Spiking against ANN activations, site by site in execution order (``activations.json``).

    The last entry of each step is the network's output. ``jump`` names the site where the error
    jumps, if one does; ``advice`` says what to do about it.
    """

    timesteps: tuple[Order, ...]
    images: Count
    sites: tuple[SiteComparison, ...]
    jump: str | None = None
    advice: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len({tuple(site.site for site in self.at(t)) for t in self.timesteps}) != 1:
            raise ShapeError("the sites compared are not the same at every time step")

    def at(self, t: int) -> tuple[SiteComparison, ...]:
        """Return the sites in execution order after t steps."""
        return tuple(site for site in self.sites if site.t == t)

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        write_json(path, to_json(self))

    @classmethod
    def load(cls, path: str | Path) -> ActivationComparison:
        """Read what `save` wrote; `CheckpointError` if it is something else."""
        return read_record(path, cls)


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
    macs: Amount
    macs_dense: Amount
    density: Share
    sops: tuple[Amount, ...]
    snn_macs: tuple[Amount, ...]


@dataclass(frozen=True, slots=True)
class SiteActivity:
    """Spikes per neuron at each single time step (not cumulative) of one site."""

    name: str
    neurons: Count
    firing_rate: tuple[Amount, ...]


@dataclass(frozen=True, slots=True)
class Settling:
    """Single images run until no neuron fires; one entry an image, but for ``spikes``.

    ``steps`` is the last step at which a neuron fired, ``energy_joule`` that of the whole run.
    Where ``silent`` is false the run was cut off after ``at_most`` steps. ``spikes`` is how many
    neurons fired at each step, mean over the images, down to the first step of silence in all.
    """

    steps: tuple[Count, ...]
    silent: tuple[bool, ...]
    energy_joule: tuple[Amount, ...]
    spikes: tuple[Amount, ...]
    at_most: Order

    def __post_init__(self) -> None:
        if not len(self.steps) == len(self.silent) == len(self.energy_joule):
            raise ShapeError("steps, silence and energy are of different numbers of images")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Accuracy and energy of a spiking network at every time step (``evaluation.json``).

    ``metrics`` holds every metric that was measured, by name and step, ``ann_metrics`` the ANN's
    values; ``accuracy`` repeats the one of that name and is empty, ``ann_accuracy`` nan (null in
    the file), where another was measured. ``saturation_time`` is that of the first metric.
    ``settling`` says when single images fell silent and what each cost. Of input over time,
    ``ann_metrics_per_step`` holds what the ANN says of what has arrived by t (up to the last
    frame), and ``input_events``, where frames are counts, the events that have entered by t.

    ``macs`` is what the spiking network spends in multiply-accumulates per image over the run,
    ``macs_per_step`` its course; ``ann_energy_joule`` prices it run once as an ANN on its existing
    links, ``ann_dense_energy_joule`` on all. ``tokens``: real tokens of an image (sentence), or 0.
    """

    timesteps: tuple[Order, ...]
    accuracy: tuple[Share, ...]
    energy_joule: tuple[Amount, ...]
    sops: tuple[Amount, ...]
    macs_per_step: tuple[Amount, ...]
    ann_accuracy: float
    ann_energy_joule: Amount
    ann_dense_energy_joule: Amount
    macs: Amount
    images: Count
    saturation_time: Order | None
    conventions: Mapping[str, str | float]
    layers: tuple[LayerOperations, ...]
    sites: tuple[SiteActivity, ...] = field(default=())
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    ann_metrics: Mapping[str, float] = field(default_factory=dict)
    lower_is_better: tuple[str, ...] = ()
    advice: tuple[str, ...] = ()
    settling: Settling | None = None
    ann_metrics_per_step: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    input_events: tuple[float, ...] = ()
    wider: WiderCost | None = None
    tokens: Amount = 0.0

    @property
    def energy_per_token_joule(self) -> tuple[float, ...]:
        """Energy up to each step for one real token; empty where the input holds no tokens."""
        return tuple(joule / self.tokens for joule in self.energy_joule) if self.tokens else ()

    @property
    def ann_accuracy_per_step(self) -> tuple[float, ...]:
        """The ANN's accuracy on the mean of the frames so far; empty for images."""
        return self.ann_metrics_per_step.get("accuracy", ())

    def __post_init__(self) -> None:
        """Know the accuracy as a metric too, in records that have no other (earlier files)."""
        if self.accuracy and not self.metrics:
            object.__setattr__(self, "metrics", {"accuracy": self.accuracy})
            object.__setattr__(self, "ann_metrics", {"accuracy": self.ann_accuracy})
        self._check_lengths()

    def _check_lengths(self) -> None:
        steps = len(self.timesteps)
        if not steps or self.timesteps != tuple(range(1, steps + 1)):
            raise ShapeError("timesteps do not count from 1, one by one")
        curves = {name: getattr(self, name) for name in ("energy_joule", "sops", "macs_per_step")}
        curves |= {"accuracy": self.accuracy} if self.accuracy else {}
        curves |= dict(self.metrics)
        for layer in self.layers:
            curves |= {f"sops of {layer.name}": layer.sops, f"MACs of {layer.name}": layer.snn_macs}
        curves |= {f"firing rate of {site.name}": site.firing_rate for site in self.sites}
        for name, curve in curves.items():
            if len(curve) != steps:
                raise ShapeError(f"{name} has {len(curve)} values for {steps} time steps")

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        plain = to_json(self)
        for key in UNDEFINED:
            plain[key] = replaced(plain[key], lambda x: None if not math.isfinite(x) else x)
        write_json(path, plain)

    @classmethod
    def load(cls, path: str | Path) -> Evaluation:
        """Read what `save` wrote; `CheckpointError` if it is something else."""
        return read_record(path, cls, prepare=nan_for_null)


# What may be undefined, which JSON writes as null: a metric of nothing, or one out of range.
UNDEFINED = ("ann_accuracy", "metrics", "ann_metrics")


def nan_for_null(plain: Any) -> Any:
    """Give the undefined figures of an evaluation, which are null in its file, their NaN."""
    if not isinstance(plain, dict):
        return plain
    undefined = {key: plain[key] for key in UNDEFINED if key in plain}
    return plain | replaced(undefined, lambda x: math.nan if x is None else x)


def replaced(plain: Any, change: Callable[[Any], Any]) -> Any:
    """Apply ``change`` to every number and null inside plain values."""
    if isinstance(plain, dict):
        return {key: replaced(value, change) for key, value in plain.items()}
    if isinstance(plain, list):
        return [replaced(value, change) for value in plain]
    return plain if isinstance(plain, str) else change(plain)


@dataclass(frozen=True, slots=True)
class RasterRow:
    """Events of a population: ``neuron[i]`` at ``t[i]``; ``shown`` of all ``neurons`` are seen."""

    name: str
    neurons: int
    shown: int
    t: tuple[int, ...]
    neuron: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Raster:
    """The input and every site of one run, in the order in which they run (``raster.json``)."""

    timesteps: int
    rows: tuple[RasterRow, ...]

    def save(self, path: str | Path) -> None:
        """Write the record as JSON, atomically."""
        write_atomically(path, json.dumps(to_json(self)) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Raster:
        """Read what `save` wrote; `CheckpointError` if it is something else."""
        return read_record(path, cls)
