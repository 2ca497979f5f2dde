"""What can still be won, and lost, once a network is converted: fine-tuning and pruning.

Perceptrons trained on 1400 of scikit-learn's digits in whole batches; accuracies in per cent on the
other 397, at t = 1, 2, ... One (64-64-64-10, short of training) is converted by ``qcfs`` for T = 16
and fine-tuned through 1 or 2 of its steps; the other (64-256-256-10) is pruned to the same links by
``ts.prune_spiking`` after the conversion, or by SparseGPT or magnitude before it.

    python benchmarks/after_conversion.py [--quick]
"""

from __future__ import annotations

import copy

import torch
from sklearn.datasets import load_digits
from timing import options, table
from torch import Tensor, nn

import topospike as ts

TRAINING = 1400
SPARSITIES = (0.8, 0.9, 0.95)
TUNINGS = ((2, 2e-3), (2, 1e-3), (1, 1e-3))
"""Steps trained through, and learning rate."""

Labelled = tuple[Tensor, Tensor]


def perceptron(width: int, rate: float, epochs: int, data: Labelled) -> nn.Sequential:
    """Train two hidden layers with Adam."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
    optimizer = torch.optim.Adam(model.parameters(), rate)
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data[0]), data[1]).backward()
        optimizer.step()
    return model.eval()


def row(name: str, snn: ts.SpikingNetwork, test: Labelled, steps: tuple[int, ...]) -> list[str]:
    """Return a line of a table: accuracies, and the energy up to the last step."""
    found = ts.evaluate(snn, [test], max(steps))
    shown = [f"{100 * found.accuracy[t - 1]:.1f}" for t in steps]
    return [name, f"{100 * found.ann_accuracy:.1f}", *shown, f"{1e9 * found.energy_joule[-1]:.1f}"]


def fine_tuning(train: Labelled, test: Labelled, epochs: int) -> list[list[str]]:
    """Train a converted network on through its steps."""
    snn = ts.convert(perceptron(64, 3e-3, 150, train), "qcfs", [train[0]], 16)
    batches = list(zip(train[0].split(50), train[1].split(50), strict=True))
    rows = [row("converted", snn, test, (1, 2, 3, 4))]
    for steps, rate in TUNINGS:
        tuned = ts.fine_tune(snn, batches, steps, epochs=epochs, learning_rate=rate)
        rows.append(row(f"tuned, T = {steps}, {rate}", tuned, test, (1, 2, 3, 4)))
    return rows


def pruning(train: Labelled, test: Labelled, sparsities: tuple[float, ...]) -> list[list[str]]:
    """Remove links after the conversion, or before it."""
    model, calibration = perceptron(256, 1e-3, 80, train), [train[0]]
    snn = ts.convert(model, "qcfs", calibration, 8)
    rows = [row("dense", snn, test, (1, 2, 4, 8))]
    for share in sparsities:
        after, _ = ts.prune_spiking(snn, share, train[0], 8)
        rows.append(row(f"{share:.0%}, sbc", after, test, (1, 2, 4, 8)))
        for method in ("sparsegpt", "magnitude"):
            before = copy.deepcopy(model)
            ts.prune(before, method, share, train[0] if method == "sparsegpt" else None)
            pruned = ts.convert(before, "qcfs", calibration, 8)
            rows.append(row(f"{share:.0%}, {method}", pruned, test, (1, 2, 4, 8)))
    return rows


def main() -> None:
    """Print both tables."""
    given = options(__doc__)
    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images, dtype=torch.float32) / 16, torch.tensor(labels)
    train, test = (x[:TRAINING], y[:TRAINING]), (x[TRAINING:], y[TRAINING:])
    heading = ["network", "ANN", "t = 1"]
    table([*heading, "2", "3", "4", "nJ"], fine_tuning(train, test, 2 if given.quick else 8))
    sparsities = SPARSITIES[:1] if given.quick else SPARSITIES
    table([*heading, "2", "4", "8", "nJ"], pruning(train, test, sparsities))


if __name__ == "__main__":
    main()
