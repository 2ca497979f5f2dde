"""What a conversion costs, in passes of the plain ANN over the same calibration images.

The two take turns; the median of the turns counts, in CPU time of the process. A conversion looks
at the model's graph once, whatever the number of images, and runs them once; with more images the
cost tends to that of a pass with its statistics. VGG-16 and ``small`` (conv 64-64-A-128-128-A-
256-256-A, fc 512-512), 3 x 32 x 32 noise in batches of 128.

    python benchmarks/conversion.py [--net small vgg16] [--images 2048] [--quick]
"""

from __future__ import annotations

import torch
from timing import alternate, options, seconds, table
from timing.spiking import BUILDS

import topospike as ts

BATCH = 128


def main() -> None:
    """Print one row for each network, method and number of images."""
    given = options(__doc__, values={"images": 2048}, net=("small", "vgg16"))
    names = given.net[:1] if given.quick else given.net
    largest = 512 if given.quick else given.images
    sizes = [size for size in (512, 1024, 2048, 4096) if size <= largest]
    repetitions = 1 if given.quick else given.repetitions
    rows = []
    for name in names:
        model = BUILDS[name]().eval()
        for size in sizes:
            batches = torch.randn(size, 3, 32, 32).split(BATCH)

            def forward(model=model, batches=batches) -> None:
                with torch.no_grad():
                    for batch in batches:
                        model(batch)

            def convert(method: str, model=model, batches=batches) -> object:
                return ts.convert(model, method, batches, timesteps=8)

            took = alternate(
                {
                    "forward": forward,
                    "dcgs": lambda convert=convert: convert("dcgs"),
                    "qcfs": lambda convert=convert: convert("qcfs"),
                },
                repetitions,
            )
            plain = took.pop("forward").cpu
            for method, time in took.items():
                cells = (seconds(plain), seconds(time.cpu), f"{time.cpu / plain:.2f}")
                rows.append([f"{name} {method}", str(size), *cells])
    table(["network", "images", "a pass", "conversion", "passes"], rows)


if __name__ == "__main__":
    main()
