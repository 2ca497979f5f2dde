"""What one topology update costs, layer by layer and for the whole network.

CHTss (density falls, removal by magnitude, percolation, growth by CH scores) in the middle of the
evolution, where the convolutions are half full and most links are replaced, and late, where they
are sparse. The whole update is given as a share of an epoch of 50 000 images, extrapolated from
training steps of the same process.

    python benchmarks/updates.py [--quick] [--threads 1] [--networks VGG-16 ResNet-18 ViT-B]
"""

from __future__ import annotations

import time
from collections import defaultdict

import torch
from timing import alternate, measured, options, seconds, table
from timing.networks import Network, networks, train_step
from torch import nn

from topospike import Sparsifier
from topospike.evolve.update import Moment, evolve_masks

NAMES = ("VGG-16", "ResNet-18", "ViT-B")
EPOCHS = 40
# Updates in the middle and late in the evolution of EPOCHS epochs (it ends after 30).
MOMENTS = {"middle": 14, "late": 27}
EPOCH_IMAGES = 50_000


def scatter_weights(sparsifier: Sparsifier) -> None:
    """Give every link a weight of its own, as training would."""
    with torch.no_grad():
        for plan in sparsifier.layers.values():
            nn.init.normal_(plan.layer.weight, std=0.05).mul_(plan.layer.mask)  # pyright: ignore[reportArgumentType]


def layer_table(sparsifier: Sparsifier, epoch: int) -> None:
    """Print the time of every layer by itself, equal shapes together."""
    times: dict[tuple[int, ...], list[tuple[str, float, float]]] = defaultdict(list)
    moment = Moment(epoch, sparsifier.update_index)
    for state in sparsifier.layer_states():
        cpu, wall = measured(lambda: evolve_masks([state], [], sparsifier.evolution, moment))  # noqa: B023
        times[tuple(state.mask.shape)].append((state.name, cpu, wall))
    rows = [
        (
            " x ".join(map(str, shape)),
            found[0][0],
            str(len(found)),
            seconds(sum(cpu for _, cpu, _ in found) / len(found)),
            seconds(sum(wall for _, _, wall in found) / len(found)),
        )
        for shape, found in times.items()
    ]
    table(("weights", "first such layer", "layers", "cpu each", "wall each"), rows)


def step_seconds(network: Network, model: nn.Module, *, repetitions: int) -> tuple[float, float]:
    """Return CPU and clock seconds of one training step in bf16, channels last."""
    optimizer = network.optimizer(model)
    model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    x, y = network.images()
    x = x.to(memory_format=torch.channels_last)
    step = {"step": lambda: train_step(model, optimizer, x, y, bf16=True)}
    duration = alternate(step, repetitions)["step"]
    return duration.cpu, duration.wall


def measure(network: Network, *, repetitions: int) -> None:
    """Print the tables of one network."""
    model = network.build()
    step_cpu, step_wall = step_seconds(network, model, repetitions=repetitions)
    steps = EPOCH_IMAGES / network.batch
    model = network.build()
    sparsifier = network.sparsify(model, EPOCHS)
    begin = time.process_time()
    relations = sparsifier.relations.get()
    reading = time.process_time() - begin
    print(
        f"{network.name}: {len(sparsifier.layers)} sparse layers, {len(relations)} relations found "
        f"in {seconds(reading)} (once); step of {network.batch} images in bf16 "
        f"{seconds(step_cpu)} cpu, {seconds(step_wall)} wall"
    )
    rows = []
    for moment, epoch in MOMENTS.items():
        found = []
        # The first update brings the density to this moment of the schedule.
        for _ in range(repetitions + 1):
            scatter_weights(sparsifier)
            found.append(measured(lambda: sparsifier.update_topology(epoch)))  # noqa: B023
        cpu, wall = (sorted(column)[repetitions // 2] for column in zip(*found[1:], strict=True))
        rows.append(
            (
                moment,
                seconds(cpu),
                seconds(wall),
                f"{cpu / (step_cpu * steps):.2%}",
                f"{wall / (step_wall * steps):.2%}",
                f"{cpu / step_cpu:.1f}",
            )
        )
        if moment == "middle":
            layer_table(sparsifier, epoch)
    table(("whole update", "cpu", "wall", "of an epoch, cpu", "wall", "in steps, cpu"), rows)


def main() -> None:
    """Print the tables of all chosen networks."""
    given = options(__doc__, networks=NAMES)
    found = networks(vit_blocks=1 if given.quick else 12)
    for name in given.networks:
        measure(found[name], repetitions=1 if given.quick else min(given.repetitions, 3))


if __name__ == "__main__":
    main()
