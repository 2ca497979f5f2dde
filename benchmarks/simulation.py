"""How long T time steps take, in plain forwards of the same network, and how memory grows with T.

One process, one thread, batch 64 of 3x32x32 noise; ANN and SNN alternate, the median of the
repetitions counts. Networks: ``small`` (conv 64-64-A-128-128-A-256-256-A, fc 512-512) and
``vgg16`` (512-wide head), average pools, batch norms folded in both. The figure is the ratio of
process CPU times, so a busy machine does not change it much.

    python benchmarks/simulation.py [--net small|vgg16] [--repetitions 3] [--quick]
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import topospike as ts
from topospike.cli.record import hardware
from topospike.models import vgg16

NETWORKS = {
    "small": {"widths": (64, 128, 256), "blocks": (2, 2, 2), "hidden": (512, 512)},
    "vgg16": {"widths": (64, 128, 256, 512, 512), "blocks": (2, 2, 3, 3, 3), "hidden": (512, 512)},
}


def network(name: str) -> nn.Module:
    """Build one benchmark network whose batch norms have seen four batches."""
    torch.manual_seed(0)
    model = vgg16(10, channels=3, image_size=(32, 32), pool="avg", **NETWORKS[name])
    model.train()
    for _ in range(4):
        model(torch.randn(64, 3, 32, 32))
    return model.eval()


def cpu_seconds(action: Callable[[], object]) -> float:
    """Return the CPU time of this process that one call takes."""
    begin = time.process_time()
    action()
    return time.process_time() - begin


def ratio(snn: ts.SpikingNetwork, x: Tensor, timesteps: int, repetitions: int) -> float:
    """Return SNN time over ANN time, both medians of alternating runs."""
    ann, spiking = [], []
    snn.analog(x)
    snn(x, timesteps=1)
    for _ in range(repetitions):
        ann.append(cpu_seconds(lambda: snn.analog(x)))
        spiking.append(cpu_seconds(lambda: snn(x, timesteps=timesteps)))
    return statistics.median(spiking) / statistics.median(ann)


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--net", choices=sorted(NETWORKS), default="small")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repetition, T up to 8")
    options = parser.parse_args()
    repetitions, horizons = (1, (4, 8)) if options.quick else (options.repetitions, (4, 8, 16))
    torch.set_num_threads(1)
    torch.manual_seed(1)
    print("; ".join(f"{key} {value}" for key, value in hardware().items()))
    model, x = network(options.net), torch.randn(64, 3, 32, 32)
    print(f"{options.net}, batch 64, torch {torch.__version__}, 1 thread, fp32")
    for method in ("qcfs", "dcgs"):
        begin = time.process_time()
        snn = ts.convert(model, method, [x, torch.randn(64, 3, 32, 32)], timesteps=8)
        seconds = time.process_time() - begin
        forward = cpu_seconds(lambda: snn.analog(x))  # noqa: B023
        print(
            f"{method}: conversion and calibration cost {seconds / (2 * forward):.1f} forwards "
            "of the calibration data"
        )
        for timesteps in horizons:
            value = ratio(snn, x, timesteps, repetitions)
            per_step = value / timesteps
            print(
                f"{method}: T={timesteps:<3d} {value:6.1f} forwards ({per_step:.2f} x T), "
                f"peak {peak_mib():.0f} MiB"
            )


if __name__ == "__main__":
    main()
