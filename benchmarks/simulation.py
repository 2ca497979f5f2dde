"""How long T time steps take, in plain forwards of the same network, for every way to take them.

One process, alternating repetitions, medians of processor time (the same run holds the plain
forward, so a busy machine changes the ratios little); batch of 3 x 32 x 32 noise. Neurons are
integrate-and-fire in rate coding (``rate IF``) or multi-threshold with n = 4 in differential
coding (``DCGS``). Beside each of our figures stands what the cost model expects: dense MACs, event
MACs and memory read and written by the sites.

    python benchmarks/simulation.py --quick
    python benchmarks/simulation.py --nets small vgg16 --peers FOLDER --run runs/vgg-cifar-sparse
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import torch
from timing import alternate, peak_mib, table
from timing.peers import peers
from timing.spiking import BUILDS, trained, untrained
from torch import Tensor, nn

import topospike as ts
from topospike.cli.record import hardware
from topospike.snn import SpikingNetwork

METHODS = {"rate IF": "qcfs", "DCGS": "dcgs"}
SITE_BYTES_NS = 0.12
"""Nanoseconds for a byte that a site reads or writes, from cache."""


def expected_ratio(snn: SpikingNetwork, x: Tensor, timesteps: int, executor: str) -> float:
    """Return the plain forwards that the cost model expects.

    Layers of their own and sites only; a site reads and writes 16 bytes a neuron and step. Layers
    that do not follow events cost a dense evaluation at each step.
    """
    plan = snn._program((), executor="event")
    costs, images = snn.costs, len(x)
    dense = sum(costs.dense(layer.size, images) for layer in plan.event_layers)
    spent = 0.0
    for _ in snn.steps(x, timesteps, executor="decoded"):
        for layer in plan.event_layers:
            fired = [int(s.spikes.count_nonzero()) for s in layer.sites if s.spikes is not None]
            fewest = costs.dense(layer.size, images)
            if executor == "event":
                fewest = min(fewest, costs.events(layer.size, images, sum(fired)))
            spent += fewest
        neurons = sum(s.spikes.numel() for s in snn.sites.values() if s.spikes is not None)
        spent += neurons * 16 * SITE_BYTES_NS
    return spent / max(dense, 1.0)


def compare(
    model: nn.Module,
    calibration: Tensor,
    x: Tensor,
    horizons: tuple[int, ...],
    repetitions: int,
    others: dict[str, Callable[[Tensor, int], Tensor]],
) -> None:
    """Print one table: each engine at each number of steps."""
    rows = []
    for label, method in METHODS.items():
        snn = ts.convert(model, method, calibration, timesteps=8)
        for timesteps in horizons:
            actions = {
                "ann": lambda s=snn: s.analog(x),
                "decoded": lambda s=snn, t=timesteps: s(x, t, executor="decoded"),
                "event": lambda s=snn, t=timesteps: s(x, t, executor="event"),
            }
            if label == "rate IF":
                actions |= {n: lambda f=f, t=timesteps: f(x, t) for n, f in others.items()}
            with torch.inference_mode():
                times = alternate(actions, repetitions)
                ann = times.pop("ann")
                for name, duration in times.items():
                    ours = name in ("decoded", "event")
                    expected = f"{expected_ratio(snn, x, timesteps, name):.1f}" if ours else "-"
                    rows.append(
                        [
                            f"{label} {name}",
                            str(timesteps),
                            f"{duration.cpu / ann.cpu:.1f}",
                            f"{duration.cpu / ann.cpu / timesteps:.2f}",
                            f"{duration.wall / ann.wall:.1f}",
                            expected,
                            f"{peak_mib(actions[name]):.0f}",
                        ]
                    )
    print(f"plain forward {ann.cpu * 1e3:.0f} ms of processor time, batch {len(x)}")
    table(("engine", "T", "forwards", "a step", "on the clock", "expected", "MiB more"), rows)


def firing(snn: SpikingNetwork, x: Tensor, timesteps: int) -> str:
    """Return the share of all neurons that fire at each step, in per cent."""
    shares = []
    for _ in snn.steps(x, timesteps):
        spikes = [site.spikes for site in snn.sites.values() if site.spikes is not None]
        fired = sum(int(s.count_nonzero()) for s in spikes)
        shares.append(f"{100 * fired / sum(s.numel() for s in spikes):.1f}")
    return " ".join(shares)


def against_firing_rate(repetitions: int) -> None:
    """Print one convolution and one linear layer: event form over dense form, by share fired."""
    from topospike.snn.scatter import POINT, PackedWeight, event_form

    rows = []
    shapes = ((64, 64, 32), (128, 128, 16), (256, 256, 8), (512, 512, 4))
    for inputs, outputs, side in shapes:
        weight = torch.randn(outputs, inputs, 3, 3)
        x = torch.randn(32, inputs, side, side).to(memory_format=torch.channels_last)
        y = torch.zeros_like(x)
        packed = PackedWeight.of(weight, groups=1, links=False)
        cells = []
        for share in (0.2, 0.06, 0.02, 0.005):
            events = torch.where(torch.rand_like(x) < share, x, 0.0)
            count = int(events.count_nonzero())
            times = alternate(
                {
                    "dense": lambda x=x, w=weight: torch.conv2d(x, w, padding=1),
                    "event": lambda e=events, y=y, p=packed, c=count: event_form(
                        e, y, p, (1, 1, 1, 1, 1, 1), c, 1.0
                    ),
                },
                repetitions,
            )
            cells.append(f"{times['event'].cpu / times['dense'].cpu:.2f}")
        rows.append([f"conv {inputs}-{outputs}, {side} x {side}", *cells])
    weight = torch.randn(1568, 1568) * (torch.rand(1568, 1568) < 0.01)
    x, y = torch.randn(32, 1568), torch.zeros(32, 1568)
    packed, cells = PackedWeight.of(weight, groups=1, links=True), []
    for share in (0.2, 0.06, 0.02, 0.005):
        events = torch.where(torch.rand_like(x) < share, x, 0.0)
        count = int(events.count_nonzero())
        times = alternate(
            {
                "dense": lambda: x @ weight.t(),
                "event": lambda e=events, c=count: event_form(e, y, packed, POINT, c, 1.0),
            },
            repetitions,
        )
        cells.append(f"{times['event'].cpu / times['dense'].cpu:.2f}")
    rows.append(["linear 1568-1568, 1 % links", *cells])
    print("one layer, event form over dense form, by share of neurons that fired (batch 32)")
    table(("layer", "20 %", "6 %", "2 %", "0.5 %"), rows)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="about a minute: small, T = 4 and 8")
    parser.add_argument("--nets", nargs="*", choices=sorted(BUILDS), default=list(BUILDS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[4, 8, 16, 32])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="folder with the other simulators")
    parser.add_argument("--run", type=Path, help="run folder with a trained network")
    options = parser.parse_args()
    if options.quick:
        options.nets, options.steps, options.batch, options.repetitions = ["small"], [4, 8], 32, 1
    torch.set_num_threads(options.threads)
    print("; ".join(f"{key} {value}" for key, value in hardware().items()))
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"torch {torch.__version__}, {options.threads} thread(s), load average {load}\n")
    for name in options.nets:
        batch = min(options.batch, 8) if name == "vit-s" else options.batch
        torch.manual_seed(1)
        x = torch.randn(batch, 3, 32, 32)
        for sparse in (False, True):
            print(f"{name}, {'few links' if sparse else 'dense'}, random weights")
            model = untrained(name, sparse=sparse)
            eligible = name in ("small", "vgg16") and not sparse
            others = peers(model, options.peers) if eligible else {}
            compare(model, x, x, tuple(options.steps), options.repetitions, others)
    if options.run is not None:
        model, calibration, x = trained(options.run, options.batch)
        print(f"{options.run.name}, trained, test images")
        for method in METHODS.values():
            snn = ts.convert(model, method, calibration, timesteps=8)
            print(f"{method}: % of neurons firing at t = 1..16: {firing(snn, x, 16)}")
        compare(model, calibration, x, tuple(options.steps), options.repetitions, {})
    against_firing_rate(options.repetitions)


if __name__ == "__main__":
    main()
