"""What a stream of frames costs a sigma-delta network that keeps its state from frame to frame.

Scenes are made from the test images of the network's own dataset: CIFAR-10 where the environment
variable TOPOSPIKE_DATA names it, otherwise digits. Each image is one sequence (seed 0):

- ``static``: the image, again and again.
- ``object``: a piece of another image, 2 to 4 % of the picture, moves over the image by a pixel a
  frame, from the left edge to the right and back.
- ``camera``: the camera turns by a pixel a frame; beyond its edge the picture goes on mirrored.
- ``noise``: the image with sensor noise, normal with a standard deviation of 2.5 / 255, new in
  every frame.

Energies are shares of the ANN's, which computes every frame anew, mean over the sequences; those
of later frames also over the frames. An independent frame is simulated alone, from nothing, for the
same number of steps. Agreement is the share of frames whose answer is the ANN's on that frame.

    python benchmarks/streams.py [--run FOLDER] [--network dense sparse] [--plot FILE.svg] [--quick]
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from timing import options, table
from timing.plots import picture
from torch import Tensor

import topospike as ts
from topospike.data import DataBundle, load_data
from topospike.measure.stream import FrameRecord, stream
from topospike.pipeline.folder.record import recorded_recipe
from topospike.pipeline.networks import calibration_images, measured_images, trained_model
from topospike.pipeline.run import Run
from topospike.recipe.files import resolve

CALIBRATION_IMAGES = 1024
OBJECT = 0.03
NOISE = 2.5 / 255
NETWORKS = ("dense", "sparse")
PIXELS = {"off": False, "on": True}
# Trained where no run folder is given: good enough to have answers, in about a minute.
TRAINED_HERE: Mapping[bool, tuple[str, Mapping[str, Any]]] = {
    False: ("demo", {"train": {"epochs": 10}, "sparsity": {"keep_every": 0}}),
    True: ("cifar10-vgg-small", {"train": {"epochs": 1}, "data": {"limit_train": 10_000}}),
}
Scene = Callable[[Tensor, int, Tensor], list[Tensor]]


def static(images: Tensor, frames: int, _: Tensor) -> list[Tensor]:
    """Repeat the images."""
    return [images] * frames


def moving_object(images: Tensor, frames: int, _: Tensor) -> list[Tensor]:
    """Move a piece of the next image over each image."""
    height, width = images.shape[-2:]
    high = max(1, int((OBJECT * height * width) ** 0.5))
    wide = max(1, round(OBJECT * height * width / high))
    top = (height - high) // 2
    others = images.roll(1, 0)
    left = (width - wide) // 2
    piece = others[..., top : top + high, left : left + wide]
    way = width - wide
    shown = []
    for frame in range(frames):
        place = way - abs(frame % (2 * way) - way)
        picture = images.clone()
        picture[..., top : top + high, place : place + wide] = piece
        shown.append(picture)
    return shown


def moved_camera(images: Tensor, frames: int, _: Tensor) -> list[Tensor]:
    """Turn the camera to the right by a pixel a frame."""
    width = images.shape[-1]
    panorama = torch.cat([images, images.flip(-1)], -1)
    return [panorama.roll(-frame, -1)[..., :width] for frame in range(frames)]


def sensor_noise(images: Tensor, frames: int, std: Tensor) -> list[Tensor]:
    """Add new noise in every frame; ``std`` is what the pixels were divided by, per channel."""
    generator = torch.Generator().manual_seed(0)
    scale = NOISE / std.view(-1, 1, 1)
    return [images + scale * torch.randn(images.shape, generator=generator) for _ in range(frames)]


SCENES: Mapping[str, Scene] = {
    "static": static,
    "object": moving_object,
    "camera": moved_camera,
    "noise": sensor_noise,
}


@dataclass(frozen=True)
class Shown:
    """What came of one scene: for every frame, in the stream and alone."""

    network: str
    scene: str
    pixels: str
    energy: list[float]
    alone: list[float]
    agreement: list[float]
    agreement_alone: list[float]

    def line(self) -> list[str]:
        """Return the cells of the table."""
        later, alone = statistics.fmean(self.energy[1:]), statistics.fmean(self.alone[1:])
        agreement = statistics.fmean(self.agreement[1:])
        return [
            f"{self.network} {self.scene}",
            self.pixels,
            f"{self.energy[0]:.3f}",
            f"{later:.3f}",
            f"{alone:.3f}",
            f"{100 * self.agreement[0]:.1f}",
            f"{100 * agreement:.1f}",
            f"{100 * min(self.agreement[1:]):.1f}",
            f"{100 * statistics.fmean(self.agreement_alone[1:]):.1f}",
        ]


def main() -> None:
    """Print one row for each network, scene and kind of input."""
    values = {"run": "", "images": 64, "frames": 10, "steps": 2, "first": 8, "plot": ""}
    given = options(__doc__, values=values, network=NETWORKS, pixels=tuple(PIXELS))
    images, frames = (16, 5) if given.quick else (given.images, given.frames)
    with tempfile.TemporaryDirectory() as folder:
        run = run_of(Path(given.run)) if given.run else train_here(Path(folder), given.network)
        data = load_data(run.recipe.data, seed=run.recipe.seed, device=run.device)
        print(f"{data.name}; {images} sequences of {frames} frames; ", end="")
        print(f"{given.first} steps for the first frame, {given.steps} for each later one")
        found = []
        for network, pixels in product(given.network, given.pixels):
            snn = converted(run, data, network, pixels=PIXELS[pixels])
            x = torch.cat([x for x, _ in measured_images(data.test, images)])
            for name, scene in SCENES.items():
                shown = scene(x, frames, torch.tensor(data.std))
                found.append(show(snn, shown, (network, name, pixels), given.steps, given.first))
    heading = ["scene", "pixels", "first", "later", "alone"]
    heading += ["agree first, %", "later", "worst", "alone"]
    table(heading, [shown.line() for shown in found])
    if given.plot:
        print(picture(Path(given.plot), lambda axes: draw(found, axes)))


def run_of(folder: Path) -> Run:
    """Return the run of a folder with trained networks."""
    return Run(recorded_recipe(folder), folder)


def train_here(folder: Path, networks: list[str]) -> Run:
    """Train a network for the occasion."""
    name, changes = TRAINED_HERE["TOPOSPIKE_DATA" in os.environ]
    twins = {"dense_twin": "dense" in networks, "sparse_twin": "sparse" in networks}
    ts.run_recipe(resolve(name, {**changes, **twins}), folder, train_only=True)
    return run_of(folder)


def converted(run: Run, data: DataBundle, network: str, *, pixels: bool) -> ts.SpikingNetwork:
    """Convert the dense or the sparse network of a run."""
    chosen = next(n for n in run.networks if n.is_sparse == (network == "sparse"))
    images = calibration_images(data, CALIBRATION_IMAGES)
    return ts.convert(trained_model(run, chosen), "sigma-delta", images, pixels=pixels)


def show(
    snn: ts.SpikingNetwork,
    frames: list[Tensor],
    names: tuple[str, str, str],
    steps: int,
    first: int,
) -> Shown:
    """Show the frames as a stream, and each of them alone."""
    kept: tuple[list[float], ...] = ([], [], [], [])
    energy, alone, agreement, agreement_alone = kept
    for frame, record in zip(frames, stream(snn, frames, steps, first=first), strict=True):
        (single,) = stream(snn, [frame], steps, first=steps)
        answers = snn.analog(frame).argmax(1)
        for into, share, part in ((energy, agreement, record), (alone, agreement_alone, single)):
            into.append(cost(part))
            share.append(float((part.logits.argmax(1) == answers).float().mean()))
    return Shown(*names, *kept)


def cost(record: FrameRecord) -> float:
    """Return a frame's energy as a share of the ANN's."""
    return record.energy_joule / record.ann_energy_joule


def draw(found: list[Shown], axes: Any) -> bool:
    """Draw energy over frames for the first network: a colour a scene, dashed without pixels."""
    lines = [shown for shown in found if shown.network == found[0].network]
    colours = {name: f"C{place}" for place, name in enumerate(SCENES)}
    for shown in lines:
        dash = "-" if shown.pixels == "on" else "--"
        label = f"{shown.scene}, pixels {shown.pixels}"
        axes.plot(shown.energy, dash, color=colours[shown.scene], label=label)
        if shown.scene == "static":
            axes.plot(shown.alone, dash, color="0.6", label=f"alone, pixels {shown.pixels}")
    axes.set_yscale("symlog", linthresh=1e-2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("frame")
    axes.set_ylabel(f"energy, share of the ANN's ({found[0].network})")
    axes.legend(fontsize=6, frameon=False, ncols=2)
    return bool(lines)


if __name__ == "__main__":
    main()
