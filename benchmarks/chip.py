"""How far counted operations and a simulated chip agree as a network gets sparser.

A multilayer perceptron (64-600-600-10) is trained on the digits at four sparsities of its hidden
layer and its first one, with links drawn once (seed 0) and kept; converted by ``qcfs``, it runs
some test images on SANA-FE's Loihi. Beside the chip's energy stand the operations counted here,
priced at Loihi's 23.6 pJ, and those with an update of every neuron at every step.

    python benchmarks/chip.py [--quick]
"""

from __future__ import annotations

import torch
from timing import options, table
from torch import nn

import topospike as ts
from topospike.data import DataBundle, load_data
from topospike.measure import reprice
from topospike.recipe import DataSettings
from topospike.topology import register_mask

SPARSITIES = (0.0, 0.5, 0.9, 0.99)
TIMESTEPS = 16


def trained(sparsity: float, data: DataBundle, epochs: int) -> nn.Sequential:
    """Train a perceptron whose first two layers have so many links."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 600), nn.ReLU(), nn.Linear(600, 600), nn.ReLU(),
        nn.Linear(600, data.classes),
    )  # fmt: skip
    hidden = [layer for layer in (model[1], model[3]) if isinstance(layer, nn.Linear)]
    for layer in hidden:
        mask = torch.rand_like(layer.weight) >= sparsity
        register_mask(layer, mask)
        with torch.no_grad():
            layer.weight.mul_(max(1 - sparsity, 1e-9) ** -0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(epochs):
        for images, labels in data.train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            with torch.no_grad():
                for layer in hidden:
                    layer.weight.mul_(layer.get_buffer("weight_mask"))
    return model.eval()


def main() -> None:
    """Train, convert, simulate, and print the table."""
    chosen = options(__doc__)
    data = load_data(DataSettings("digits"), seed=0)
    images, labels = (torch.cat(parts) for parts in zip(*data.test, strict=True))
    rows = []
    for sparsity in SPARSITIES:
        model = trained(sparsity, data, 2 if chosen.quick else 15)
        snn = ts.convert(model, "qcfs", data.calibration, TIMESTEPS)
        shown = images[: 2 if chosen.quick else 5]
        run = ts.simulate_chip(snn, shown, TIMESTEPS)
        counted = reprice(ts.evaluate(snn, [(shown, labels[: len(shown)])], TIMESTEPS), "loihi")
        accuracy = (snn(images, TIMESTEPS)[-1].argmax(1) == labels).double().mean()
        operations = counted.sops[-1] * 23.6e-12
        assert counted.wider is not None, "an evaluation counts updates"
        updates = counted.wider.update_joule[-1]
        rows.append(
            (
                f"{sparsity:.0%}", f"{accuracy:.1%}", f"{run.synaptic_events:.0f}",
                f"{run.energy_joule['total'] * 1e6:.3g}", f"{operations * 1e6:.3g}",
                f"{(operations + updates) * 1e6:.3g}",
                *(f"{run.energy_joule[part] / run.energy_joule['total']:.0%}"
                  for part in ("synapse", "soma", "network")),
                f"{run.seconds * 1e6:.0f}",
            )
        )  # fmt: skip
    header = ("sparsity", "accuracy", "events", "chip uJ", "operations uJ", "with updates uJ",
              "synapses", "neurons", "messages", "us")  # fmt: skip
    table(header, rows)


if __name__ == "__main__":
    main()
