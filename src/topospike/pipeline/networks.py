"""The trained networks of a run folder: how they are made, what they depend on, their files.

Every stage reads the networks from their files, never from an earlier stage's memory.
``model.safetensors`` holds a model's state under its own names, masks as bool; the network is built
from the recipe first, and the file must fit it exactly. Nothing is pickled.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from topospike.contracts import write_atomically
from topospike.data import DataBundle, SplitBatches
from topospike.errors import MissingDataError
from topospike.files.archives import check_tensors, reading
from topospike.files.reading import shortened
from topospike.files.seal import require_intact
from topospike.models import build_model, fit_whitening
from topospike.pipeline.run import Network, Run
from topospike.recipe import Recipe
from topospike.recipe.files import to_plain
from topospike.topology import check_masks, register_mask

MASK = "_mask"
# Settings that change how fast or how safely a network is trained, not what comes out.
FREE = {"train": ("checkpoint_every",), "data": ("workers", "eval_batch_size")}
# What a run is called, how fast it goes, and what is done with the networks it trains.
NOT_TRAINED = ("name", "threads", "convert", "measure", "analyse")
LENGTH = 10
WHITENED_IMAGES = 5000
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
    """Return a short name of the settings that differ from their defaults, as in `run_folder`."""
    needed = {
        name: {k: v for k, v in value.items() if k not in BESIDE[name]} if name in BESIDE else value
        for name, value in settings.items()
    }
    changed = differing(needed, to_plain(Recipe()))
    return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:16]


def fresh_model(run: Run) -> nn.Module:
    """Build the recipe's network with the initial weights of its seed."""
    _ = run.shapes  # refuses what would not fit into memory
    return build_model(run.recipe.model, **run.data_format, seed=run.recipe.seed)


def starting_model(run: Run) -> nn.Module:
    """Build the recipe's network as its training starts, whitening layers fitted to the images."""
    model = fresh_model(run)
    fit_whitening(model, calibration_images(run.data, WHITENED_IMAGES))
    return model


def trained_model(run: Run, network: Network) -> nn.Module:
    """Read a trained network; a sparse one must have exactly its saved topology."""
    model = fresh_model(run)
    load_weights(model, network.folder / "model.safetensors")
    if network.is_sparse:
        run.topology(network).verify(model)
    return model.to(run.device).eval()


def calibration_images(data: DataBundle, images: int) -> Iterator[Tensor]:
    """Yield batches of training images as they are, without augmentation, in a seeded order."""
    data.calibration.set_epoch(0)
    left = images
    for x, y in data.calibration:
        if left <= 0:
            return
        yield x.narrow(data.calibration.axis, 0, min(left, len(y)))
        left -= len(y)


@dataclass(frozen=True)
class EvenlySpread:
    """Some of the images (or contexts) of a split, in its order and evenly spread over it.

    A split may be ordered by class, so its first images would not do.
    """

    split: SplitBatches
    images: int

    def __len__(self) -> int:
        return len(self.split)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        done, total = 0, self.split.images
        for x, y in self.split:
            # image i is taken where i * wanted / total passes an integer
            place = torch.arange(done, done + len(y), device=x.device)
            taken = (place + 1) * self.images // total > place * self.images // total
            if bool(taken.any()):
                yield x.index_select(self.split.axis, taken.nonzero()[:, 0]), y[taken]
            done += len(y)


def measured_images(split: SplitBatches, images: int | None) -> SplitBatches | EvenlySpread:
    """Return a split, or so many of its images."""
    if images is None or images >= split.images:
        return split
    return EvenlySpread(split, images)


def save_weights(model: nn.Module, path: Path) -> None:
    """Write weights, buffers and masks, atomically."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(state, metadata={"format": "topospike model"}))


REMEDY = "Restore the file, or delete it and repeat the command that made the run."


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a freshly built network from a file, its masks included.

    Raises
    ------
    MissingDataError
        There is no such file.
    CheckpointError
        The file is damaged or belongs to another network.
    TopologyViolation
        A weight without a link is not zero.
    """
    if not os.path.lexists(path):
        raise MissingDataError(f"no trained network {str(path)!r}; run `topospike train` first.")
    require_intact(path)
    known = model.state_dict()
    found = f"does not hold the weights of this {type(model).__name__}"
    check_tensors(path, functools.partial(unfitting, known), found=found)
    with reading(path, REMEDY, found):
        state = safetensors.torch.load_file(path)
        for name, value in state.items():
            if name not in known:
                owner, _, parameter = name.removesuffix(MASK).rpartition(".")
                register_mask(model.get_submodule(owner), value, name=parameter)
        model.load_state_dict(state)
    check_masks(model)


def unfitting(
    known: Mapping[str, Tensor], name: str, shape: tuple[int, ...], dtype: str
) -> str | None:
    """Say why a stored tensor is none of a model's, nor the mask of one; ``None`` if it is."""
    own = known.get(name)
    is_mask = own is None and name.endswith(MASK) and dtype == "BOOL"
    wanted = known.get(name.removesuffix(MASK)) if is_mask else own
    if wanted is None:
        return f"it holds {shortened(name)!r}, which the model does not have"
    if tuple(wanted.shape) != shape:
        return f"{name} has shape {shape}; in the model it has {tuple(wanted.shape)}"
    return None


def run_folder(root: Path, recipe: Recipe) -> Path:
    """Return the folder of a recipe's networks, such as ``root/name-seed0-1f0c...``.

    The digest covers every setting that changes a trained network and differs from its default. So
    the same network is found again whatever it is called and however it is converted, and a setting
    that a later version adds leaves the names of old folders as they are.

    Examples
    --------
    >>> first = run_folder(Path("runs"), Recipe(name="a", threads=1))
    >>> second = run_folder(Path("runs"), Recipe(name="a", threads=2))
    >>> first == second, first == run_folder(Path("runs"), Recipe(name="a", seed=1))
    (True, False)
    """
    return root / f"{recipe.name}-seed{recipe.seed}-{settings_digest(recipe)}"


def settings_digest(recipe: Recipe) -> str:
    """Return a short name of the settings that the networks of a recipe depend on."""
    settings = differing(to_plain(recipe), to_plain(Recipe()))
    settings = {name: value for name, value in settings.items() if name not in NOT_TRAINED}
    for group, free in FREE.items():
        if group in settings:
            settings[group] = {k: v for k, v in settings[group].items() if k not in free}
    for group, is_used in (
        ("sparsity", recipe.sparse_twin),
        ("prune", recipe.prune.method is not None),
        ("direct", recipe.direct.rule is not None),
    ):
        if not is_used:
            settings.pop(group, None)
    kept = {name: value for name, value in settings.items() if value != {}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:LENGTH]


def differing(settings: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that differ from their defaults, group by group.

    Examples
    --------
    >>> differing({"a": 1, "b": {"c": 2, "d": 3}}, {"a": 1, "b": {"c": 2, "d": 4}})
    {'b': {'d': 3}}
    """
    result: dict[str, Any] = {}
    for name, value in settings.items():
        default = defaults.get(name)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = differing(value, default)
            if value:
                result[name] = value
        elif value != default:
            result[name] = value
    return result
