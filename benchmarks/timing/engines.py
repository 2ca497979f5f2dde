"""Time every engine on one network: ours, the plain forward beside them, and other simulators."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

import topospike as ts
from timing import alternate, peak_mib, table
from timing.against import METHODS
from timing.figures import ENGINE_COLUMNS, Figures, engine_rows
from timing.peers import Simulation
from topospike.snn import SpikingNetwork
from topospike.snn.executors import EXECUTORS
from topospike.snn.executors.events import EventForm
from topospike.snn.executors.forms import LayerSize

WITHOUT_RELU = ("vit-s",)
"""Networks that only differential coding converts."""

FORWARDS = 4
"""Plain forwards a turn; one alone is too short to be compared with."""

SITE_BYTES_NS = 0.12
"""Nanoseconds for a byte that a site reads or writes, from cache."""


@dataclass(frozen=True)
class Subject:
    """What is simulated, and the words that tell it from others in the figures."""

    network: str
    weights: str
    links: str
    model: nn.Module
    calibration: Tensor
    images: Tensor

    def words(self) -> dict[str, str | int]:
        """Return the part of a figure's identity that does not depend on the engine."""
        return {
            "part": "engine",
            "network": self.network,
            "weights": self.weights,
            "links": self.links,
            "batch": len(self.images),
        }


def compare(
    subject: Subject,
    figures: Figures,
    *,
    horizons: Sequence[int],
    engines: Sequence[str],
    others: Mapping[str, Simulation],
    others_horizons: Sequence[int],
    repetitions: int,
) -> None:
    """Time each engine at each number of steps; keep the figures and print a table of them."""
    print(f"{subject.network}, {subject.links}, {subject.weights} weights", end=", ")
    print(f"batch {len(subject.images)}", flush=True)
    added = []
    for neuron, method in METHODS.items():
        if method == "qcfs" and subject.network in WITHOUT_RELU:
            continue
        # one network for all: the other engines take whole weights like any
        converted, _ = ts.quantise_weights(
            ts.convert(subject.model, method, subject.calibration, timesteps=8)
        )
        expected, fired = prediction(converted, subject.images, max(horizons))
        for timesteps in horizons:
            snn = copy.deepcopy(converted)  # nothing laid out yet: memory counts it each time
            simulations: dict[str, Simulation] = {
                name: partial(snn.forward, executor=name) for name in engines
            }
            if neuron == "rate IF" and timesteps in others_horizons:
                simulations |= others
            measured = timed(snn, simulations, subject.images, timesteps, repetitions)
            for name, figure in measured.items():
                figure["expected"] = expected.get((name, timesteps))
                figure["fired"] = fired[:timesteps]
                figure |= {"neuron": neuron, "engine": name, "timesteps": timesteps}
                added.append({**subject.words(), **figure})
                figures.add(added[-1])
    wanted = {(f["neuron"], f["engine"], f["timesteps"]) for f in added}
    kept = figures.of(**subject.words())  # pyright: ignore[reportArgumentType]
    rows = [f for f in kept if (f["neuron"], f["engine"], f["timesteps"]) in wanted]
    table(ENGINE_COLUMNS, engine_rows(rows))


def timed(
    snn: SpikingNetwork,
    simulations: Mapping[str, Simulation],
    x: Tensor,
    timesteps: int,
    repetitions: int,
) -> dict[str, dict]:
    """Return processor and clock time in plain forwards, and peak memory, of each simulation."""

    def forwards() -> None:
        for _ in range(FORWARDS):
            snn.analog(x)

    actions: dict[str, Callable[[], object]] = {
        name: lambda run=run: run(x, timesteps) for name, run in simulations.items()
    }
    with torch.inference_mode():
        for run in simulations.values():  # loads and compiles
            run(x, 1)
        memory = {name: peak_mib(action) for name, action in actions.items()}
        times = alternate({"ann": forwards, **actions}, repetitions, warm_up=0)
        ann = times.pop("ann")
        return {
            name: {
                "forwards": FORWARDS * duration.cpu / ann.cpu,
                "forwards_on_the_clock": FORWARDS * duration.wall / ann.wall,
                "seconds": duration.cpu,
                "ann_seconds": ann.cpu / FORWARDS,
                "mib": memory[name],
            }
            for name, duration in times.items()
        }


def prediction(
    snn: SpikingNetwork, x: Tensor, timesteps: int
) -> tuple[dict[tuple[str, int], float], list[float]]:
    """Return the plain forwards that the cost model expects, and the share that fires at each step.

    By executor and number of steps. Layers of their own and sites only; a site reads and writes 16
    bytes a neuron and step. Layers that do not follow events cost a dense evaluation at each step.
    """
    program = snn.program(EXECUTORS["event"])
    layers = [form for form in program.forms if isinstance(form, EventForm)]
    costs, images = snn.costs, len(x)
    dense = sum(costs.dense(layer.size, images) for layer in layers)
    spent = {"decoded": 0.0, "event": 0.0}
    expected, shares = {}, []
    for step in snn.watch(x, timesteps, executor="decoded"):
        t, held = step.t, list(step.sites.values())
        neurons = sum(site.spikes.numel() for site in held if site.spikes is not None)
        shares.append(sum(site.events for site in held) / max(neurons, 1))
        counts = [sum(held[program.calls[site]].events for site in layer.sites) for layer in layers]
        sizes = [layer.size for layer in layers]
        spent["decoded"] += dense + neurons * 16 * SITE_BYTES_NS
        spent["event"] += neurons * 16 * SITE_BYTES_NS
        spent["event"] += sum(
            cheaper(snn, size, images, n) for size, n in zip(sizes, counts, strict=True)
        )
        expected |= {(name, t): cost / max(dense, 1.0) for name, cost in spent.items()}
    return expected if dense else {}, shares


def cheaper(snn: SpikingNetwork, size: LayerSize, images: int, events: int) -> float:
    """Return what the cheaper form of a layer is expected to cost."""
    return min(snn.costs.dense(size, images), snn.costs.events(size, images, events))
