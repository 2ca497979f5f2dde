"""What counting operations adds to a simulation: evaluation with and without it.

``evaluate`` and a bare simulation of the same batches (accuracy at every step, nothing counted)
take turns; the median of the turns counts, in CPU time of the process. Networks: ``small`` (conv
64-64-A-128-128-A-256-256-A, fc 512-512) and ``vgg16``; batch 64 of 3 x 32 x 32 noise, T = 8.
Preparing the link counts (once an evaluation, whatever the number of batches) is given apart.

    python benchmarks/counting.py [--net small vgg16] [--quick]
"""

from __future__ import annotations

import torch
from timing import alternate, options, seconds, table
from torch import Tensor

import topospike as ts
from topospike.measure import Conventions
from topospike.measure.operations import OperationCounter
from topospike.models import vgg16

NETWORKS = {
    "small": {"widths": (64, 128, 256), "blocks": (2, 2, 2), "hidden": (512, 512)},
    "vgg16": {"widths": (64, 128, 256, 512, 512), "blocks": (2, 2, 3, 3, 3), "hidden": (512, 512)},
}
STEPS, BATCH = 8, 64


def simulate(snn: ts.SpikingNetwork, x: Tensor, labels: Tensor) -> list[int]:
    """Return the number of right answers at each step, as ``evaluate`` does, and no more."""
    snn.analog(x)
    return [int((logits.argmax(1) == labels).sum()) for _, logits in snn.steps(x, STEPS)]


def main() -> None:
    """Print one row for each network and method."""
    given = options(__doc__, net=tuple(NETWORKS))
    names = given.net[:1] if given.quick else given.net
    repetitions = 3 if given.quick else given.repetitions
    rows = []
    for name in names:
        model = vgg16(10, channels=3, image_size=(32, 32), pool="avg", **NETWORKS[name]).eval()
        x, labels = torch.randn(BATCH, 3, 32, 32), torch.arange(BATCH) % 10
        for method in ("dcgs", "qcfs"):
            snn = ts.convert(model, method, [x])

            def count(snn: ts.SpikingNetwork = snn, x: Tensor = x) -> object:
                return ts.evaluate(snn, [(x, labels)], STEPS)  # noqa: B023

            def bare(snn: ts.SpikingNetwork = snn, x: Tensor = x) -> object:
                return simulate(snn, x, labels)  # noqa: B023

            def prepare(snn: ts.SpikingNetwork = snn) -> object:
                return OperationCounter(snn, STEPS, Conventions())

            took = alternate({"count": count, "bare": bare, "prepare": prepare}, repetitions)
            counting = took["count"].cpu - took["bare"].cpu - took["prepare"].cpu
            rows.append(
                [
                    f"{name} {method}",
                    seconds(took["bare"].cpu),
                    seconds(took["count"].cpu),
                    seconds(took["prepare"].cpu),
                    f"{counting / took['bare'].cpu:.1%}",
                ]
            )
    table(["network", "simulation", "with counting", "preparing", "overhead"], rows)


if __name__ == "__main__":
    main()
