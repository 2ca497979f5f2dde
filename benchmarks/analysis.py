"""What a whole network analysis costs, measure by measure: seconds and memory.

The graphs are random ones of real shapes: time hardly depends on which links exist. VGG-16's two
sparse linear layers with and without its classifier, the published MLP of Cannistraci-Hebb
training, the MLP of one ViT-B block. Each analysis is the default one: 20 graphs per null model
(3 for the small world above 200 000 links), all measures, the disk.

Bounds to hold on two cores: VGG 10 s, ViT 2 minutes, and no more memory than a few matrices of
N x N float64 for up to 4000 neurons.

    python benchmarks/analysis.py [--quick] [--threads 1] [--graphs VGG VGG-classifier MLP ViT]
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from timing import options, peak_mib, seconds, table

from topospike.analysis import analyse

GRAPHS = {
    "VGG": ((512, 512, 512), 0.01),
    "VGG-classifier": ((512, 512, 10), 0.01),
    "MLP": ((784, 1568, 1568, 1568), 0.01),
    "ViT": ((768, 3072, 768), 0.3),
}
"""Neurons of each layer, and density."""
QUICK = ("VGG", "VGG-classifier")


@dataclass
class Laps:
    """CPU and clock time at the start of every measure; called with its name."""

    names: list[str] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)

    def __call__(self, name: str) -> None:
        """Close the lap before and begin one."""
        self.names.append(name)
        self.cpu.append(time.process_time())
        self.wall.append(time.perf_counter())

    def rows(self) -> list[tuple[str, str, str]]:
        """Return name, CPU and clock time of every lap, and of all together."""
        laps = zip(self.names, pairwise(self.cpu), pairwise(self.wall), strict=False)
        rows = [(name, seconds(c[1] - c[0]), seconds(w[1] - w[0])) for name, c, w in laps]
        whole = ("all", seconds(self.cpu[-1] - self.cpu[0]), seconds(self.wall[-1] - self.wall[0]))
        return [*rows, whole]


def random_masks(sizes: tuple[int, ...], density: float) -> list[np.ndarray]:
    """Return masks with exactly this density, links at random."""
    generator = np.random.default_rng(0)
    masks = []
    for n_in, n_out in pairwise(sizes):
        mask = np.zeros(n_out * n_in, dtype=bool)
        links = round(density * mask.size)
        mask[generator.choice(mask.size, size=links, replace=False)] = True
        masks.append(mask.reshape(n_out, n_in))
    return masks


def measure(name: str) -> None:
    """Print what one graph costs."""
    sizes, density = GRAPHS[name]
    masks = random_masks(sizes, density)
    laps = Laps()

    def whole() -> None:
        laps("reading the masks")
        analyse(masks, progress=laps)
        laps("end")

    memory = peak_mib(whole)
    nodes, links = sum(sizes), sum(int(mask.sum()) for mask in masks)
    shape = "-".join(map(str, sizes))
    print(
        f"{name}: {shape}, {nodes} neurons, {links} links; peak {memory:.0f} MiB "
        f"(N x N float64: {nodes**2 * 8 / 2**20:.0f} MiB)"
    )
    table(("measure", "cpu", "wall"), laps.rows())


def main() -> None:
    """Print the tables of all chosen graphs."""
    given = options(__doc__, graphs=tuple(GRAPHS))
    # The first analysis imports the graph libraries.
    analyse(random_masks((40, 30), 0.1), nulls=1)
    for name in given.graphs:
        if name in QUICK or not given.quick:
            measure(name)


if __name__ == "__main__":
    main()
