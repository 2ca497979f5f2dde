"""What training on the links alone saves: the step of an MLP dense, masked, and compact.

The network is the published one of Cannistraci-Hebb training (784-1568-1568-1568-10, classifier
dense), SGD with momentum, random links of the given density. The three take turns in one process.
`memory` is by how much ten steps raise the resident memory beyond model and optimizer slots.
Last comes the density at which the compact step becomes the slower one, between two of those
measured.

    python benchmarks/compact.py [--quick] [--threads 1] [--batches 32 128]
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise

import torch
from timing import alternate, options, peak_mib, seconds, table
from torch import Tensor, nn
from torch.nn import functional

import topospike as ts
from topospike.train.compact import CompactLayers, on_links

BATCHES = ("32", "128")
SPARSITIES = (0.99, 0.95, 0.9, 0.8, 0.6)
STEPS = 10


def network() -> nn.Sequential:
    """Return the MLP with three hidden layers."""
    torch.manual_seed(0)
    sizes = (784, 1568, 1568, 1568)
    hidden = [
        layer for n_in, n_out in pairwise(sizes) for layer in (nn.Linear(n_in, n_out), nn.ReLU())
    ]
    return nn.Sequential(*hidden, nn.Linear(1568, 10))


def training(
    kind: str, sparsity: float, x: Tensor, y: Tensor, stack: ExitStack
) -> Callable[[], None]:
    """Return a function that takes `STEPS` steps; compact layers stay so until the stack closes."""
    model = network()
    sparsifier = None
    if kind != "dense":
        sparsifier = ts.sparsify(model, "set", sparsity=sparsity, epochs=4, percolation=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    if sparsifier is not None:
        sparsifier.attach(optimizer)
    layers: CompactLayers | None = None
    if kind == "compact":
        layers = stack.enter_context(on_links(model, optimizer, density_bound=1.0))

    def steps() -> None:
        for _ in range(STEPS):
            optimizer.zero_grad()
            functional.cross_entropy(model(x), y).backward()
            if layers is not None:
                layers.check_step()
            optimizer.step()

    return steps


def measure(batch: int, sparsity: float, repetitions: int) -> tuple[list[list[str]], float]:
    """Return the rows of one density, and compact CPU time over masked."""
    x, y = torch.randn(batch, 784), torch.arange(batch) % 10
    with ExitStack() as stack:
        actions = {
            kind: training(kind, sparsity, x, y, stack) for kind in ("dense", "masked", "compact")
        }
        memory = {kind: peak_mib(action) for kind, action in actions.items()}
        times = alternate(actions, repetitions)
    masked = times["masked"]
    rows = [
        [
            f"batch {batch}, {sparsity:.0%} sparse",
            kind,
            seconds(found.cpu / STEPS),
            seconds(found.wall / STEPS),
            f"{masked.cpu / found.cpu:.2f}",
            f"{masked.wall / found.wall:.2f}",
            f"{memory[kind]:.0f} MiB",
        ]
        for kind, found in times.items()
    ]
    return rows, times["compact"].cpu / masked.cpu


def crossover(ratios: dict[float, float]) -> str:
    """Say between which densities (falling sparsity) compact stops being the faster one."""
    faster = [1 - sparsity for sparsity, ratio in ratios.items() if ratio < 1]
    slower = [1 - sparsity for sparsity, ratio in ratios.items() if ratio >= 1]
    if not slower:
        return f"above {max(faster):.0%}"
    return f"between {max(faster):.0%} and {min(slower):.0%}" if faster else "below all measured"


def main() -> None:
    """Print the table and the crossovers."""
    given = options(__doc__, batches=BATCHES)
    sparsities = SPARSITIES[::2] if given.quick else SPARSITIES
    rows, ends = [], []
    for batch in map(int, given.batches):
        ratios = {}
        for sparsity in sparsities:
            found, ratios[sparsity] = measure(batch, sparsity, 3 if given.quick else 7)
            rows += found
        ends.append((f"batch {batch}", crossover(ratios)))
    heading = ("step", "execution", "cpu", "wall", "masked / it, cpu", "wall", "memory")
    table(heading, rows)
    table(("compact is faster up to", "density"), ends)


if __name__ == "__main__":
    main()
