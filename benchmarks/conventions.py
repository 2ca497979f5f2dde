"""What a run's converted networks cost under every counting convention, and what saves it.

    python benchmarks/conventions.py runs/cifar10-vgg-medium --images 500

Reads the saved networks and the test images of a run folder, simulates each network once, and
prints energy an image for every convention and the split of the saving into links and events.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import topospike as ts
from topospike.data import load_data
from topospike.measure import evaluate_conventions, saving_text
from topospike.pipeline.folder.record import hardware, recorded_recipe


def main() -> None:
    """Print one table a network, then both beside each other."""
    parser = argparse.ArgumentParser(description="Energy under every counting convention.")
    parser.add_argument("run", type=Path, nargs="?", help="a run folder with saved networks")
    parser.add_argument("--quick", action="store_true", help="100 images")
    parser.add_argument("--method", default="dcgs")
    parser.add_argument("--timesteps", type=int, default=8)
    parser.add_argument("--images", type=int, default=500)
    options = parser.parse_args()
    if options.run is None:
        print("no run folder named, so there is no trained network to price")
        return
    images = 100 if options.quick else options.images
    recipe = recorded_recipe(options.run)
    settings = dataclasses.replace(recipe.data, limit_test=images)
    data = load_data(settings, seed=recipe.seed)
    runs = {}
    print(hardware())
    for name, folder in (("dense", options.run / "dense"), ("sparse", options.run)):
        snn = ts.load(folder / "conversions" / options.method / "network")
        results = list(evaluate_conventions(snn, data.test, options.timesteps))
        runs[name] = results[0]
        for result in results:
            told = {k: v for k, v in result.conventions.items() if not k.endswith("joule")}
            energy = 1e6 * result.energy_joule[-1]
            print(f"{name:7} {energy:8.2f} uJ  {', '.join(map(str, told.values()))}")
    print(saving_text(runs, options.timesteps))


if __name__ == "__main__":
    main()
