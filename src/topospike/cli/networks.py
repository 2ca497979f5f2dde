"""Command line: the trained networks of a run folder, how they are made and what they depend on.

Every stage reads the networks from their files, never from an earlier stage's memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from topospike.cli.recipes import to_plain
from topospike.cli.run import Network, Run
from topospike.cli.weights import load_weights
from topospike.data import Batches, DataBundle
from topospike.models import build_model
from topospike.topology import Topology

# Settings that change how fast or how safely a network is trained, not what comes out.
FREE = {"train": ("checkpoint_every",), "data": ("workers", "eval_batch_size")}
# Settings that change what is written beside the weights, which no later stage depends on.
BESIDE = {"sparsity": ("keep_every",)}


def training_settings(run: Run, network: Network) -> dict[str, Any]:
    """Return everything the weights of a network depend on."""
    recipe = run.recipe
    names = ["data", "model", "train"]
    names += ["sparsity"] if network.is_sparse else []
    names += ["prune"] if network.is_pruned else []
    names += ["direct"] if recipe.direct.rule is not None else []
    settings = {name: to_plain(getattr(recipe, name)) for name in names}
    for name, free in FREE.items():
        settings[name] = {k: v for k, v in settings[name].items() if k not in free}
    return {"seed": recipe.seed, **settings}


def digest(settings: dict[str, Any]) -> str:
    """Return a short name of settings, for the stages that build on them."""
    needed = {
        name: {k: v for k, v in value.items() if k not in BESIDE[name]} if name in BESIDE else value
        for name, value in settings.items()
    }
    return hashlib.sha256(json.dumps(needed, sort_keys=True).encode()).hexdigest()[:16]


def fresh_model(run: Run) -> nn.Module:
    """Build the recipe's network with the initial weights of its seed."""
    return build_model(run.recipe.model, **run.image_format, seed=run.recipe.seed)


def trained_model(run: Run, network: Network) -> nn.Module:
    """Read a trained network; a sparse one must have exactly its saved topology."""
    model = fresh_model(run)
    load_weights(model, network.folder / "model.safetensors")
    if network.is_sparse:
        Topology.load(network.folder / "topology.npz").verify(model)
    return model.to(run.device).eval()


def calibration_images(data: DataBundle, images: int) -> Iterator[Tensor]:
    """Yield batches of training images as they are, without augmentation, in a seeded order."""
    data.calibration.set_epoch(0)
    left = images
    for x, _ in data.calibration:
        if left <= 0:
            return
        yield x[:left]
        left -= len(x)


@dataclass(frozen=True)
class EvenlySpread:
    """Some of the images of a split, in its order and evenly spread over it.

    A split may be ordered by class, so its first images would not do.
    """

    split: Batches
    images: int

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        done, total = 0, self.split.images
        for x, y in self.split:
            # image i is taken where i * wanted / total passes an integer
            place = torch.arange(done, done + len(x), device=x.device)
            taken = (place + 1) * self.images // total > place * self.images // total
            if bool(taken.any()):
                yield x[taken], y[taken]
            done += len(x)


def measured_images(data: DataBundle, images: int | None) -> Batches | EvenlySpread:
    """Return the test split, or so many of its images."""
    if images is None or images >= data.test.images:
        return data.test
    return EvenlySpread(data.test, images)
