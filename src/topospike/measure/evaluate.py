"""Accuracy (or another metric) and energy of a spiking network at every time step, in one pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from topospike.contracts import Evaluation, SiteActivity
from topospike.errors import ConfigError, MissingDataError
from topospike.measure.conventions import CHOICES, Conventions
from topospike.measure.energy import EnergyModel, cost_advice
from topospike.measure.energy import energy_model as energy_model_of
from topospike.measure.firing import images_firing, site_firing
from topospike.measure.metrics import Metric, MetricSums, metrics_of
from topospike.measure.operations import OperationCounter
from topospike.measure.padding import require_idle_padding
from topospike.measure.saturation import saturation_time
from topospike.measure.wider import wider_cost
from topospike.models.inputs import Batch, rows_of
from topospike.snn.batches import division
from topospike.snn.coding import SiteState
from topospike.snn.executors.choice import executor_for
from topospike.snn.executors.steps import blocks
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import Block
from topospike.snn.readout import answer_stays, first_answer
from topospike.snn.site import decoded_of

Metrics: TypeAlias = (
    str | Metric | Callable[..., Any] | Sequence["str | Metric | Callable[..., Any]"]
)


def evaluate(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: int = 32,
    *,
    metric: Metrics = "accuracy",
    hold: int | None = None,
    conventions: Conventions | None = None,
    energy_model: str | EnergyModel = "45nm",
    executor: str | None = None,
    ann: bool = True,
) -> Evaluation:
    """Measure accuracy, synaptic operations and energy for t = 1..timesteps.

    Parameters
    ----------
    snn
        A converted network.
    batches
        Pairs (inputs, target): images and the index of each one's class, int64 (batch,), or what
        the metric takes. Inputs are a tensor, or a tuple or dictionary of them; a dictionary's
        ``labels`` are its target.
    timesteps
        Longest simulation; every shorter one is read off the same run.
    hold
        Of frames: steps each is shown for.
    metric
        What is measured of the outputs: ``accuracy``, ``top5``, ``perplexity``, ``mse``,
        ``mean_iou``, ``agreement`` (the share of answers that are the ANN's; needs no labels), a
        function ``(outputs, targets) -> (sum, count)``, a `Metric`, or several in a list. The
        first is the one T0 is taken of.
    conventions
        What to count; default: first layer as MACs once an image, average pools folded, existing
        links only.
    energy_model
        Name in ``ENERGY_MODELS`` or a model of your own.
    executor
        How layers are evaluated, as in `SpikingNetwork.forward`; what is counted does not depend
        on it, but for spikes that rounding moves.
    ann
        Whether the ANN answers as well, which costs one forward; ``agreement`` has it answer in
        any case. Else ``ann_accuracy`` is not a number and ``ann_metrics`` empty.

    Returns
    -------
    Evaluation
        Cumulative, per image; ``metrics[name][t - 1]`` and, where it was measured,
        ``accuracy[t - 1]`` as fractions, ``energy_joule[t - 1]`` in joules.

    Raises
    ------
    ConfigError
        If ``timesteps`` is below 1, the energy model or a metric is unknown, or a batch has no
        labels and the metric needs them; if padding is to be left out and real tokens hear of it.
    ShapeError
        If labels do not fit the outputs, or one is not among the network's classes; if a token is
        not in the vocabulary, or a batch is all padding.
    MissingDataError
        If there is no batch.

    Notes
    -----
    ``E(t) = N_MAC(t) E_MAC + N_SOP(t) E_AC`` (Bao et al. 2026, equation 2). The ANN beside it is
    the same network run once with a MAC for each link.

    Classes are along the axis that the labels lack: outputs (batch, classes, height, width) go with
    labels (batch, height, width), outputs (batch, tokens, classes) with (batch, tokens). Labels of
    -100 are not counted. ``perplexity`` is ``exp`` of the mean cross entropy, ``mean_iou`` the
    mean over the classes that occur of intersection over union. A causal language model's targets
    are the next tokens: nothing is shifted here.

    At steps without an answer (`topospike.snn.readout`) shares of right answers are 0 and other
    metrics not a number; T0 begins with the first answer (``wider.first_answer``). Where layers
    wait for one another that is the last one as well, and so T0.

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
    chosen = (conventions or Conventions(),)
    metrics = metrics_of(metric)
    return tallied(snn, batches, timesteps, chosen, energy_model, metrics, hold, executor, ann)[0]


NOTHING = 1e-5
"""Share of a threshold below which a decoded value is 0."""

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
    batches: Iterable[Batch],
    timesteps: int = 32,
    *,
    metric: Metrics = "accuracy",
    hold: int | None = None,
    conventions: Sequence[Conventions] = EVERY_CONVENTION,
    energy_model: str | EnergyModel = "45nm",
) -> tuple[Evaluation, ...]:
    """Measure once and count under several conventions.

    Parameters
    ----------
    snn, batches, timesteps, metric, hold, energy_model
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
    chosen = tuple(conventions)
    return tallied(snn, batches, timesteps, chosen, energy_model, metrics_of(metric), hold)


def tallied(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: int,
    conventions: tuple[Conventions, ...],
    model: str | EnergyModel,
    metrics: tuple[Metric, ...],
    hold: int | None,
    executor: str | None = None,
    ann: bool = True,
) -> tuple[Evaluation, ...]:
    """Run all batches once, and return one evaluation for each of the conventions."""
    prices = energy_model_of(model)
    if timesteps < 1:
        raise ConfigError(f"timesteps is {timesteps}; at least 1 is required.")
    tally: Tally | None = None
    for number, batch in enumerate(batches):
        x, targets = snn.split(batch, f"batch {number}")
        if tally is None:
            tally = Tally(snn, timesteps, conventions, metrics, hold, executor, ann)
        tally.add_batch(x, targets, f"batch {number}")
    if tally is None:
        raise MissingDataError("there is no batch to evaluate on; at least one is required.")
    return tuple(tally.result(prices, counter) for counter in tally.counters)


def in_rows(targets: Any, images: int) -> bool:
    """Tell whether targets can be divided like their images."""
    return targets is None or (
        isinstance(targets, Tensor) and targets.ndim > 0 and len(targets) == images
    )


def divided(rows: Any, parts: int) -> Sequence[Any]:
    """Divide rows into parts."""
    return rows.tensor_split(parts) if isinstance(rows, Tensor) and parts > 1 else (rows,) * parts


class Tally:
    """Running totals of one evaluation."""

    def __init__(
        self,
        snn: SpikingNetwork,
        timesteps: int,
        conventions: tuple[Conventions, ...],
        metrics: tuple[Metric, ...],
        hold: int | None = None,
        executor: str | None = None,
        ann: bool = True,
    ) -> None:
        self.snn, self.executor = snn, executor
        self.ann = ann or any(metric.against_ann for metric in metrics)
        self.timesteps, self.hold = timesteps, hold
        self.counters = [OperationCounter(snn, timesteps, c) for c in conventions]
        self.watched = tuple(dict.fromkeys(n for c in self.counters for n in c.watched))
        self.sent = tuple(dict.fromkeys(n for c in self.counters for n in c.sent))
        self.metrics = [MetricSums(metric, timesteps) for metric in metrics]
        arriving = metrics if snn.sees_mean else ()
        self.of_ann = [MetricSums(metric, timesteps) for metric in arriving]
        self.sites = snn.sites
        self.spikes = torch.zeros(len(self.sites), timesteps, dtype=torch.float64)
        self.populations = snn.populations
        self.neurons = dict.fromkeys(self.sites, 0)
        self.active: dict[str, Tensor] = {}
        self.idle = False
        self.first_answer = first_answer(snn)

    @torch.no_grad()
    def add_batch(self, x: tuple[Tensor, ...], targets: Any, batch: str) -> None:
        """Simulate one batch, divided as a run divides it, and add what it did."""
        snn, shown = self.snn, self.snn.shown(x, self.timesteps, hold=self.hold)
        self.hold = None if snn.report.input == "image" else shown.hold
        analog = snn.analog(x) if self.ann else None
        executor = executor_for(snn, self.executor, x, self.timesteps)
        program = snn.program(executor, self.watched, self.sent)
        images, together = division(snn, shown, self.timesteps, executor, program)
        parts = list(shown.divided(images))
        if len(parts) > 1 and not in_rows(targets, rows_of(shown.first)):
            parts, together = [shown], 1
        answers, wanted = (divided(rows, len(parts)) for rows in (analog, targets))
        layers = program.first_layers()
        for part, of_ann, target in zip(parts, answers, wanted, strict=True):
            run = blocks(snn, program, part, self.timesteps, together=together, layers=layers)
            for number, block in enumerate(run):
                if number == 0:
                    answer = block.logits[0] if of_ann is None else of_ann
                    self.begin(part.first, answer, target, batch)
                self.add(block)

    def begin(self, x: tuple[Tensor, ...], answer: Tensor, targets: Any, batch: str) -> None:
        """Begin with one part of a batch, given what the ANN answers, or else the network."""
        for sums in (*self.metrics, *self.of_ann):
            sums.begin_batch(answer, targets, batch, of_ann=self.ann)
        for counter in self.counters:
            counter.begin_batch(len(x[0]), x)
        if not self.idle and any(counter.real is not None for counter in self.counters):
            require_idle_padding(self.snn, x, answer if self.ann else self.snn.ann(*x), batch)
            self.idle = True

    def add(self, block: Block) -> None:
        """Add some steps of it."""
        for step in block.steps:
            for sums in self.metrics if step.t >= self.first_answer else ():
                sums.add(step.t, step.logits)
            if self.of_ann and step.moment is not None and step.moment.shown is not None:
                answer = self.snn.ann(*step.moment.inputs)
                for sums in self.of_ann:
                    sums.add(step.t, answer)
        first, last = block.steps[0].t, block.steps[-1]
        counted, fired = self.counters[0].counted, {}
        for place, (name, site) in enumerate(self.sites.items()):
            lying = self.populations[name]
            places = counted(lying.places)
            found = site_firing(block.kept[name], lying.images, places, steps=len(block.steps))
            if found is not None:
                fired[site] = found
                events = found.sum(tuple(range(1, found.ndim)), dtype=torch.float64)
                self.spikes[place, first - 1 : last.t] += events.cpu()
                self.neurons[name] = found[0].numel()
        if last.t == self.timesteps:
            self.add_active(last.sites)
        for counter in self.counters:
            same = (counter.real is None) == (self.counters[0].real is None)
            counter.observe(block, fired if same else {}, self.watched)

    def add_active(self, held: Mapping[str, SiteState]) -> None:
        """Count for how many images each neuron has decoded something at the last step."""
        for name, state in held.items():
            # what is taken back leaves no more than rounding
            theta = self.sites[name].threshold
            decoded = decoded_of(state) if self.sites[name].gated else decoded_of(state).abs()
            active = decoded > (NOTHING * theta if theta.numel() else 0.0)
            lying = self.populations[name]
            found = images_firing(active, lying.images, self.counters[0].counted(lying.places))
            self.active[name] = self.active.get(name, 0.0) + found[0].double()

    def result(self, model: EnergyModel, counter: OperationCounter) -> Evaluation:
        """Turn the totals, as one counter has them, into the record."""
        images = counter.images
        layers = counter.per_image()
        macs = counter.macs_per_image()
        sops = [sum(layer.sops[t] for layer in layers) for t in range(self.timesteps)]
        measured = {sums.metric.name: sums.values() for sums in self.metrics}
        curves = {name: tuple(values[1:]) for name, values in measured.items()}
        of_ann = {name: values[0] for name, values in measured.items()} if self.ann else {}
        arriving = {
            sums.metric.name: tuple(sums.values()[1 : sums.answered + 1]) for sums in self.of_ann
        }
        first = self.metrics[0].metric
        conventions = counter.conventions
        energy = tuple(model.joule(macs=m, sops=s) for m, s in zip(macs, sops, strict=True))
        ann_energy = model.joule(macs=sum(layer.macs for layer in layers), sops=0)
        run = Evaluation(
            timesteps=tuple(range(1, self.timesteps + 1)),
            accuracy=curves.get("accuracy", ()),
            energy_joule=energy,
            sops=tuple(sops),
            macs_per_step=tuple(macs),
            ann_accuracy=of_ann.get("accuracy", math.nan),
            ann_energy_joule=ann_energy,
            ann_dense_energy_joule=model.joule(
                macs=sum(layer.macs_dense for layer in layers), sops=0
            ),
            macs=macs[-1],
            images=images,
            saturation_time=self.saturation_time(curves[first.name], first),
            conventions={
                **self.of_input(conventions),
                "first_layer": conventions.first_layer,
                "pooled": conventions.pooled,
                "products": conventions.products,
                **self.of_tokens(conventions),
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
                for name, counts in zip(self.sites, self.spikes.tolist(), strict=True)
                if self.neurons[name]
            ),
            metrics=curves,
            ann_metrics=of_ann,
            lower_is_better=tuple(
                sums.metric.name for sums in self.metrics if sums.metric.lower_is_better
            ),
            advice=cost_advice(energy, ann_energy),
            ann_metrics_per_step=arriving,
            input_events=counter.events_per_image(),
            tokens=counter.real_tokens / images,
        )
        return replace(run, wider=wider_cost(self.snn, run, model, self.active))

    def saturation_time(self, curve: Sequence[float], metric: Metric) -> int | None:
        """Return T0 from the first answer on; that answer's step if nothing comes after it."""
        first, falls = self.first_answer, metric.lower_is_better
        if answer_stays(self.snn):
            return first if first <= self.timesteps else None
        return saturation_time(curve, lower_is_better=falls, first=first)

    def of_tokens(self, conventions: Conventions) -> dict[str, str]:
        """Return what is to be known of padding, of networks that are told where it is."""
        tokens = self.snn.tokens
        told = tokens is not None and tokens.mask is not None
        return {"padding": conventions.padding} if told else {}

    def of_input(self, conventions: Conventions) -> dict[str, str | float]:
        """Return what is to be known of frames beside the other conventions; nothing of images."""
        kind = self.snn.report.input
        if kind == "image":
            return {}
        known: dict[str, str | float] = {"input": kind, "hold": self.hold or 1}
        return known | ({"input_events": conventions.input_events} if kind == "events" else {})
