"""How long Cannistraci-Hebb scores take: every method, and the printed formula in nested loops.

The methods give the same scores; `auto` is what `ch_scores` chooses. Times are medians of
alternating repetitions; memory is what a call adds to the process at its peak.

    python benchmarks/scores.py [--quick] [--threads 1]
"""

from __future__ import annotations

from functools import partial

import torch
from timing import alternate, options, peak_mib, seconds, table
from torch import Tensor

from topospike.evolve import ch_scores

# Rows, columns, density.
LAYERS = [
    (512, 512, 0.01),
    (1568, 1568, 0.01),
    (1568, 1568, 0.05),
    (512, 4608, 0.22),
    (3072, 768, 0.30),
]
SMALL = (40, 60, 0.1)
# Beyond this density a method takes minutes; nobody would choose it.
TOO_DENSE = {"sparse": 0.04, "gather": 0.3}


def random_mask(n_out: int, n_in: int, density: float) -> Tensor:
    """Return a uniform random mask."""
    return torch.rand(n_out, n_in) < density


def literal_scores(mask: Tensor) -> Tensor:
    """Compute CH3-L3n as printed: for every absent link, visit every common neighbour."""
    rows, columns = mask.shape
    present = mask.tolist()
    scores = torch.zeros(rows, columns)
    for u in range(rows):
        for v in range(columns):
            if present[u][v]:
                continue
            total = 0.0
            for z in range(rows):
                if present[z][v]:
                    shared = sum(present[u][c] and present[z][c] for c in range(columns))
                    total += 1 / (sum(present[z]) - shared) if shared else 0.0
            for c in range(columns):
                if present[u][c]:
                    shared = sum(present[z][v] and present[z][c] for z in range(rows))
                    degree = sum(present[z][c] for z in range(rows))
                    total += 1 / (degree - shared) if shared else 0.0
            scores[u, v] = total
    return scores


def methods_for(density: float) -> list[str]:
    """Return the methods worth running at this density."""
    return [
        name for name in ("auto", "dense", "gather", "sparse") if density < TOO_DENSE.get(name, 1.0)
    ]


def main() -> None:
    """Print two tables."""
    given = options(__doc__)
    repetitions = 3 if given.quick else given.repetitions
    rows = []
    for n_out, n_in, density in LAYERS:
        mask = random_mask(n_out, n_in, density)
        calls = {
            method: partial(ch_scores, mask, "CH3-L3n", method=method)
            for method in methods_for(density)
        }
        found = alternate(calls, repetitions)
        for method, duration in found.items():
            rows.append(
                (
                    f"{n_out} x {n_in}, {density:.0%}",
                    method,
                    seconds(duration.cpu),
                    seconds(duration.wall),
                    f"{duration.cpu / found['auto'].cpu:.2f}",
                    f"{peak_mib(calls[method]):.0f}",
                )
            )
    table(("CH3-L3n of a layer", "method", "cpu", "wall", "x auto", "peak MiB"), rows)

    mask = random_mask(*SMALL)
    difference = float((literal_scores(mask) - ch_scores(mask, "CH3-L3n")).abs().max())
    found = alternate(
        {
            "auto": partial(ch_scores, mask, "CH3-L3n"),
            "nested loops": partial(literal_scores, mask),
        },
        repetitions,
    )
    table(
        (f"{SMALL[0]} x {SMALL[1]}, {SMALL[2]:.0%}", "cpu", "x auto"),
        [(n, seconds(d.cpu), f"{d.cpu / found['auto'].cpu:.0f}") for n, d in found.items()],
    )
    print(f"largest difference between the two: {difference:.1e}")


if __name__ == "__main__":
    main()
