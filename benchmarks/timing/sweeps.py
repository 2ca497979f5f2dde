"""One layer or one small network while a single thing varies: who fires, or which links exist."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import topospike as ts
from timing import alternate, table
from timing.figures import Figures
from timing.spiking import untrained
from topospike.snn.executors.forms import CostModel
from topospike.snn.executors.scatter import (
    POINT,
    CompressedLinear,
    Geometry,
    PackedWeight,
    event_form,
)

SHARES = (0.2, 0.06, 0.02, 0.005)
DENSITIES = (1.0, 0.5, 0.22, 0.1, 0.05, 0.01)
SHAPES = ((64, 32), (128, 16), (256, 8), (512, 4))
"""Channels and side of the maps of a convolution."""

SAME: Geometry = (1, 1, 1, 1, 1, 1)


def convolution(channels: int, side: int, batch: int) -> tuple[Tensor, Tensor]:
    """Return a 3 x 3 weight and an operand."""
    x = torch.randn(batch, channels, side, side).to(memory_format=torch.channels_last)
    return torch.randn(channels, channels, 3, 3), x


def event_action(
    weight: Tensor, x: Tensor, share: float, geometry: Geometry
) -> Callable[[], object]:
    """Return the event form of a layer whose neurons fire at random with this share."""
    links = int(weight.count_nonzero()) / weight.numel() < CostModel().links_below
    packed = PackedWeight.of(weight, groups=1, links=links)
    events = torch.where(torch.rand_like(x) < share, x, 0.0)
    y = torch.zeros_like(x)
    count = int(events.count_nonzero())
    return lambda: event_form(events, y, packed, geometry, count, 1.0)


def against_firing(figures: Figures, batch: int, repetitions: int) -> None:
    """Time one layer in its event form and its dense one, by the share of neurons that fired."""
    rows = []
    layers = [(f"conv {c}-{c}, {s} x {s}", *convolution(c, s, batch), SAME) for c, s in SHAPES]
    weight = torch.randn(1568, 1568) * (torch.rand(1568, 1568) < 0.01)
    layers.append(("linear 1568-1568, 1 % links", weight, torch.randn(batch, 1568), POINT))
    for name, weight, x, geometry in layers:
        dense = dense_action(weight, x)
        cells = []
        for share in SHARES:
            actions = {"dense": dense, "event": event_action(weight, x, share, geometry)}
            times = alternate(actions, repetitions)
            ratio = times["event"].cpu / times["dense"].cpu
            figures.add(
                {"part": "firing", "network": name, "engine": "event", "at": share, "ratio": ratio}
            )
            cells.append(f"{ratio:.2f}")
        rows.append([name, *cells])
    print(f"one layer, event form over dense form, by share of neurons that fired (batch {batch})")
    table(("layer", *(f"{100 * share:g} %" for share in SHARES)), rows)


def dense_action(weight: Tensor, x: Tensor) -> Callable[[], object]:
    """Return the dense form of a layer."""
    if weight.ndim == 2:
        return lambda: torch.nn.functional.linear(x, weight)
    return lambda: torch.conv2d(x, weight, padding=1)


def against_density(figures: Figures, batch: int, repetitions: int) -> None:
    """Time layers and the small network by the share of links that exist."""
    rows = []
    conv, maps = convolution(256, 8, batch)
    linear, vectors = torch.randn(1568, 1568), torch.randn(batch, 1568)
    names = ("conv 256-256, 6 % fire", "linear 1568, 6 % fire", "linear 1568, links alone")
    for density in DENSITIES:
        some_conv, some_linear = (w * (torch.rand_like(w) < density) for w in (conv, linear))
        compressed = CompressedLinear.of(some_linear)
        actions = {
            "dense conv": dense_action(some_conv, maps),
            "dense linear": dense_action(some_linear, vectors),
            names[0]: event_action(some_conv, maps, 0.06, SAME),
            names[1]: event_action(some_linear, vectors, 0.06, POINT),
            names[2]: lambda c=compressed: c(vectors, None),
        }
        times = {name: duration.cpu for name, duration in alternate(actions, repetitions).items()}
        ratios = {
            name: times[name] / times["dense conv" if "conv" in name else "dense linear"]
            for name in names
        } | network_ratios(density, batch, repetitions)
        for name, ratio in ratios.items():
            engine = "event" if "event" in name or "fire" in name else "decoded"
            figures.add(
                {"part": "density", "network": name, "engine": engine, "at": density}
                | {"ratio": ratio}
            )
        rows.append([f"{100 * density:g} %", *(f"{ratio:.2f}" for ratio in ratios.values())])
    print(
        f"cost over the dense form, by share of links; networks: 8 steps over 8 forwards ({batch=})"
    )
    table(("links", *names, "small decoded", "small event"), rows)


def network_ratios(density: float, batch: int, repetitions: int) -> dict[str, float]:
    """Return 8 steps of the small network over 8 forwards, with this share of all links."""
    model = untrained("small", sparse=True, density={"conv": density, "linear": density})
    x = torch.randn(batch, 3, 32, 32)
    snn = ts.convert(model, calibration=[x], timesteps=8)
    actions = {
        "ann": lambda: [snn.analog(x) for _ in range(8)],
        "small VGG, decoded": lambda: snn(x, 8),
        "small VGG, event": lambda: snn(x, 8, executor="event"),
    }
    with torch.inference_mode():
        times = alternate(actions, repetitions)
    ann = times.pop("ann").cpu
    return {name: duration.cpu / ann for name, duration in times.items()}
