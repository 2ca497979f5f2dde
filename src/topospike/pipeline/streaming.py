"""Run: frames from a file through the converted networks of a run folder, one after the other."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.contracts import to_json, write_json
from topospike.errors import ConfigError, MissingDataError, require
from topospike.export import load
from topospike.files.archives import read_array
from topospike.files.reading import require_regular
from topospike.measure.stream import stream
from topospike.pipeline.run import Run
from topospike.pipeline.stages import conversion_folder

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")


@dataclass(frozen=True)
class ShownFrame:
    """One line of a stream's table; energy is of this frame alone.

    ``answer`` is the class of the first sequence, ``agreement`` the share of sequences whose
    answer is the ANN's on the same frame.
    """

    frame: int
    steps: int
    events: float
    energy_joule: float
    ann_energy_joule: float
    answer: int
    agreement: float


def stream_networks(
    run: Run, source: Path, only: str | None, *, steps: int, first: int | None
) -> Iterator[tuple[str, tuple[ShownFrame, ...]]]:
    """Show frames to every network that keeps its state; write ``stream.json`` beside each.

    Raises
    ------
    ConfigError
        If no conversion of the folder can take a stream.
    MissingDataError
        If the frames cannot be read, or are not of the networks' shape.
    """
    if run.recipe.data.text.context:
        raise ConfigError(
            f"{run.folder} holds language models, whose contexts are no frames; streams are of "
            "images."
        )
    known = run.record.data or {"mean": run.data.mean, "std": run.data.std}
    size = run.data_format["image_size"]
    frames = read_frames(source, (list(known["mean"]), list(known["std"])), size)
    done = 0
    for network in run.networks:
        for settings in run.recipe.convert:
            folder = conversion_folder(network, settings)
            if (only is not None and settings.label != only) or not (folder / "network").is_dir():
                continue
            snn = load(folder / "network", device=run.device)
            if not snn.settles:
                if only is not None:
                    snn.require_settling("a stream")
                continue
            shown = []
            on_device = (frame.to(run.device) for frame in frames)
            for frame, record in zip(
                frames, stream(snn, on_device, steps, first=first), strict=True
            ):
                same = record.logits.argmax(1) == snn.analog(frame.to(run.device)).argmax(1)
                shown.append(
                    ShownFrame(
                        record.frame,
                        record.steps,
                        record.events,
                        record.energy_joule,
                        record.ann_energy_joule,
                        int(record.logits[0].argmax()),
                        float(same.float().mean()),
                    )
                )
            path, content = folder / "stream.json", [to_json(line) for line in shown]
            run.always(
                f"stream {network.name} {settings.label}", lambda p=path, c=content: written(p, c)
            )
            done += 1
            yield f"{network.name}, {settings.label}", tuple(shown)
    if not done:
        raise ConfigError(
            f"{run.folder} has no conversion that takes a stream of frames; one by 'sigma-delta' "
            f"does. Convert first: topospike convert {run.folder} --method sigma-delta."
        )


def written(path: Path, content: list[Any]) -> list[Path]:
    """Write plain values, and return where."""
    write_json(path, content)
    return [path]


def read_frames(
    source: Path, normalisation: tuple[list[float], list[float]], size: tuple[int, int]
) -> list[Tensor]:
    """Read frames as batches (sequences, channels, height, width), in order.

    An array (.npy) is (frames, channels, height, width) or (frames, sequences, channels, height,
    width): bytes are pixels, which are normalised as in training, other numbers are taken as they
    are. A folder's pictures are one sequence, in the order of their names.
    """
    if source.suffix == ".npy" and os.path.lexists(source):
        array = read_array(source, remedy="Save the frames again with numpy.save.")
    elif source.is_dir():
        array = read_pictures(source, channels=len(normalisation[0]), size=size)
    else:
        raise MissingDataError(
            f"{source} is neither an array (.npy) nor a folder of pictures; give frames as one of "
            "these."
        )
    if array.ndim not in (4, 5) or len(array) == 0:
        raise MissingDataError(
            f"{source} holds an array of shape {array.shape}; (frames, channels, height, width), "
            "or with sequences behind frames, and at least one frame are required."
        )
    frames = torch.from_numpy(array if array.ndim == 5 else array[:, None])
    if array.dtype == np.uint8:
        mean, std = (torch.tensor(part).reshape(-1, 1, 1) for part in normalisation)
        frames = (frames.float() / 255 - mean) / std
    return list(frames.float())


def read_pictures(folder: Path, *, channels: int, size: tuple[int, int]) -> np.ndarray:
    """Read a folder's pictures, all of one size, as bytes (frames, channels, height, width)."""
    require("PIL", purpose="pictures as frames")
    from PIL import Image

    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURES)
    if not files:
        raise MissingDataError(
            f"{folder} has no pictures ({', '.join(PICTURES)}); put the frames there, named in "
            "their order."
        )
    frames = []
    for path in files:
        require_regular(path)
        try:
            with Image.open(path) as picture:
                if picture.size != size[::-1]:
                    raise MissingDataError(
                        f"{path} has {picture.width} x {picture.height} pixels; the networks are "
                        f"shown {size[1]} x {size[0]}. Resize the pictures."
                    )
                pixels = np.asarray(picture.convert("L" if channels == 1 else "RGB"))
        except MissingDataError:
            raise
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise MissingDataError(f"{path} cannot be read ({error}); repair or remove it.") from (
                error
            )
        frames.append(pixels[None] if channels == 1 else pixels.transpose(2, 0, 1))
    return np.stack(frames)
