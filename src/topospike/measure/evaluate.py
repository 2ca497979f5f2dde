"""Accuracy and energy of a spiking network at every time step, in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from topospike.contracts import Evaluation, SiteActivity
from topospike.errors import ConfigError, MissingDataError, ShapeError
from topospike.measure.conventions import CHOICES, Conventions
from topospike.measure.energy import EnergyModel
from topospike.measure.energy import energy_model as energy_model_of
from topospike.measure.operations import OperationCounter, images_firing
from topospike.measure.saturation import saturation_time
from topospike.snn.network import SpikingNetwork


def evaluate(
    snn: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    timesteps: int = 32,
    *,
    conventions: Conventions | None = None,
    energy_model: str | EnergyModel = "45nm",
) -> Evaluation:
    """Measure accuracy, synaptic operations and energy for t = 1..timesteps.

    Parameters
    ----------
    snn
        A converted network.
    batches
        Pairs (images, labels): float (batch, ...), int64 (batch,).
    timesteps
        Longest simulation; every shorter one is read off the same run.
    conventions
        What to count; default: first layer as MACs once an image, average pools folded, existing
        links only.
    energy_model
        Name in ``ENERGY_MODELS`` or a model of your own.

    Returns
    -------
    Evaluation
        Cumulative, per image; ``accuracy[t - 1]`` as a fraction, ``energy_joule[t - 1]`` in joules.

    Raises
    ------
    ConfigError
        If ``timesteps`` is below 1 or the energy model is unknown.
    ShapeError
        If a label is not one of the network's classes, or labels and images differ in number.
    MissingDataError
        If there is no batch.

    Notes
    -----
    ``E(t) = N_MAC(t) E_MAC + N_SOP(t) E_AC`` (Bao et al. 2026, equation 2). The ANN beside it is
    the same network run once with a MAC for each link.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x, y = torch.rand(32, 4), torch.arange(32) % 3
    >>> result = ts.evaluate(ts.convert(model, calibration=[x]), [(x, y)], timesteps=4)
    >>> len(result.accuracy), result.macs
    (4, 64.0)
    """
    tally = tallied(snn, batches, timesteps, (conventions or Conventions(),), energy_model)
    return tally[0]


EVERY_CONVENTION = (
    Conventions(),
    *(
        Conventions(**{name: value})
        for name, choices in CHOICES.items()
        for value in choices
        if value != getattr(Conventions(), name)
    ),
)
"""The defaults, then each other choice with the rest at their defaults."""


def evaluate_conventions(
    snn: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    timesteps: int = 32,
    *,
    conventions: Sequence[Conventions] = EVERY_CONVENTION,
    energy_model: str | EnergyModel = "45nm",
) -> tuple[Evaluation, ...]:
    """Measure once and count under several conventions.

    Parameters
    ----------
    snn, batches, timesteps, energy_model
        As in `evaluate`.
    conventions
        What to count; default: the default conventions, then every single departure from them.

    Returns
    -------
    tuple of Evaluation
        One for each of ``conventions``; they differ in operations and energy only.

    Raises
    ------
    ConfigError, ShapeError, MissingDataError
        As `evaluate`; also `ConfigError` if there is no convention.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x, y = torch.rand(32, 4), torch.arange(32) % 3
    >>> runs = evaluate_conventions(ts.convert(model, calibration=[x]), [(x, y)], timesteps=4)
    >>> [run.macs for run in runs[:3]]
    [64.0, 256.0, 0.0]
    """
    if not conventions:
        raise ConfigError("there is no convention to count by; give at least one.")
    return tallied(snn, batches, timesteps, tuple(conventions), energy_model)


def tallied(
    snn: SpikingNetwork,
    batches: Iterable[tuple[Tensor, Tensor]],
    timesteps: int,
    conventions: tuple[Conventions, ...],
    model: str | EnergyModel,
) -> tuple[Evaluation, ...]:
    """Run all batches once, and return one evaluation for each of the conventions."""
    prices = energy_model_of(model)
    if timesteps < 1:
        raise ConfigError(f"timesteps is {timesteps}; at least 1 is required.")
    tally: Tally | None = None
    for images, labels in batches:
        if tally is None:
            tally = Tally(snn, timesteps, conventions)
        tally.add_batch(images, labels)
    if tally is None:
        raise MissingDataError("there is no batch to evaluate on; at least one is required.")
    return tuple(tally.result(prices, counter) for counter in tally.counters)


class Tally:
    """Running totals of one evaluation."""

    def __init__(
        self,
        snn: SpikingNetwork,
        timesteps: int,
        conventions: tuple[Conventions, ...],
    ) -> None:
        self.snn = snn
        self.timesteps = timesteps
        self.counters = [OperationCounter(snn, timesteps, c) for c in conventions]
        self.watched = list(dict.fromkeys(n for c in self.counters for n in c.watched))
        self.correct = [0] * timesteps
        self.ann_correct = 0
        self.sites = snn.sites
        self.spikes = {name: [0.0] * timesteps for name in self.sites}
        self.populations = snn.populations
        self.neurons = dict.fromkeys(self.sites, 0)

    def add_batch(self, images: Tensor, labels: Tensor) -> None:
        """Simulate one batch and add what it did."""
        analog = self.snn.analog(images)
        check_labels(labels, analog)
        self.ann_correct += int((analog.argmax(1) == labels).sum())
        for counter in self.counters:
            counter.begin_batch(len(images))
        for step in self.snn.watch(images, self.timesteps, self.watched):
            t, held = step.t, step.sites
            self.correct[t - 1] += int((step.logits.argmax(1) == labels).sum())
            values = dict(zip(self.watched, step.values, strict=True))
            fired = {
                site: images_firing(spikes, self.populations[name].images)
                for name, site in self.sites.items()
                if (spikes := held[name].spikes) is not None
            }
            for counter in self.counters:
                counter.observe(t, tuple(values[node] for node in counter.watched), held, fired)
            for name, site in self.sites.items():
                if site in fired:
                    self.spikes[name][t - 1] += float(fired[site].sum(dtype=torch.float64))
                    self.neurons[name] = fired[site].numel()

    def result(self, model: EnergyModel, counter: OperationCounter) -> Evaluation:
        """Turn the totals, as one counter has them, into the record."""
        images = counter.images
        layers = counter.per_image()
        macs = counter.macs_per_image()
        sops = [sum(layer.sops[t] for layer in layers) for t in range(self.timesteps)]
        accuracy = tuple(count / images for count in self.correct)
        conventions = counter.conventions
        return Evaluation(
            timesteps=tuple(range(1, self.timesteps + 1)),
            accuracy=accuracy,
            energy_joule=tuple(
                model.joule(macs=m, sops=s) for m, s in zip(macs, sops, strict=True)
            ),
            sops=tuple(sops),
            macs_per_step=tuple(macs),
            ann_accuracy=self.ann_correct / images,
            ann_energy_joule=model.joule(macs=sum(layer.macs for layer in layers), sops=0),
            ann_dense_energy_joule=model.joule(
                macs=sum(layer.macs_dense for layer in layers), sops=0
            ),
            macs=macs[-1],
            images=images,
            saturation_time=saturation_time(accuracy),
            conventions={
                "first_layer": conventions.first_layer,
                "pooled": conventions.pooled,
                "products": conventions.products,
                "links": conventions.links,
                "energy_model": model.name,
                "mac_joule": model.mac_joule,
                "ac_joule": model.ac_joule,
            },
            layers=layers,
            sites=tuple(
                SiteActivity(
                    name,
                    self.neurons[name],
                    tuple(count / (images * self.neurons[name]) for count in counts),
                )
                for name, counts in self.spikes.items()
                if self.neurons[name]
            ),
        )


def check_labels(labels: Tensor, logits: Tensor) -> None:
    """Refuse labels that the network cannot answer."""
    classes = logits.shape[1]
    if len(labels) != len(logits):
        raise ShapeError(
            f"{len(labels)} labels came with {len(logits)} images; one label per image is required."
        )
    highest, lowest = int(labels.max()), int(labels.min())
    if highest >= classes or lowest < 0:
        wrong = highest if highest >= classes else lowest
        raise ShapeError(
            f"a label is {wrong}, but the network has {classes} classes (0 to {classes - 1}). "
            "Check the label column, or convert a network with as many outputs as classes."
        )
