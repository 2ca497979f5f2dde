"""The running totals of an evaluation: a batch is simulated as a run divides it, and counted."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from topospike.contracts import Evaluation, SiteActivity
from topospike.measure.counting.conventions import Conventions
from topospike.measure.counting.firing import Active
from topospike.measure.counting.operations import OperationCounter
from topospike.measure.counting.products import require_idle_padding
from topospike.measure.energy import EnergyModel, cost_advice
from topospike.measure.metrics import Metric, MetricSums
from topospike.measure.saturation import saturation_time
from topospike.measure.wider import wider_cost
from topospike.models.inputs import rows_of
from topospike.snn.batches import division
from topospike.snn.coding import SiteState
from topospike.snn.executors.choice import executor_for
from topospike.snn.executors.program import Program
from topospike.snn.executors.steps import blocks
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import Block, answer_stays, first_answer


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
        self.populations = snn.populations
        self.active = {name: Active(site) for name, site in snn.sites.items()}
        self.idle = False
        self.first_answer = first_answer(snn)
        self.layers: dict[Program, tuple[Any, ...]] = {}

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
        if program not in self.layers:  # weights stay what they are for an evaluation
            self.layers[program] = program.first_layers()
        layers = self.layers[program]
        for part, of_ann, target in zip(parts, answers, wanted, strict=True):
            run = blocks(program, part, self.timesteps, together=together, layers=layers)
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
        for counter in self.counters:
            counter.observe(block, self.watched)
        if block.steps[-1].t == self.timesteps:
            self.add_active(block.steps[-1].sites)

    def add_active(self, held: Mapping[str, SiteState]) -> None:
        """Count for how many images each neuron has decoded something at the last step."""
        for name, state in held.items():
            lying = self.populations[name]
            self.active[name].add(state, lying.images, self.counters[0].counted(lying.places))

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
            sites=tuple(self.activity()),
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
        active = {name: site.counts for name, site in self.active.items()}
        return replace(run, wider=wider_cost(self.snn, run, model, active))

    def activity(self) -> Iterator[SiteActivity]:
        """Yield how often the neurons of each site that has run have fired."""
        counter = self.counters[0]
        for sums in counter.sums:
            if sums.neurons is not None and sums.ran:
                neurons = self.populations[sums.site].neurons
                rates = (sums.neurons / (counter.images * neurons)).tolist()
                yield SiteActivity(sums.site, neurons, tuple(rates))

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
