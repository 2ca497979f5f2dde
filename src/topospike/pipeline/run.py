"""Pipeline: one run folder, the recipe it follows, and what its stages share.

Data, networks and spiking networks are made when a stage first needs them, so a run whose stages
are all done loads nothing. The stages themselves are in `topospike.pipeline.stages`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypedDict

import torch

from topospike.data import DataBundle, load_data
from topospike.errors import ConfigError
from topospike.files.reading import reason
from topospike.models import build_model
from topospike.pipeline.folder.ledger import Ledger
from topospike.pipeline.folder.lock import locked
from topospike.pipeline.folder.record import RunRecord, collecting_warnings
from topospike.pipeline.names import check_names
from topospike.progress import say, warn
from topospike.recipe import ConversionSettings, Recipe
from topospike.recipe.files import to_plain
from topospike.snn import SpikingNetwork
from topospike.topology import Topology
from topospike.train import CLASSIFICATION, NEXT_TOKEN, TrainingMethod, current_processes
from topospike.train.distributed import local_device

# What a stage of an older version was begun with, for the settings it did not have.
DEFAULTS = {**to_plain(Recipe()), "conversion": to_plain(ConversionSettings())}


@dataclass(frozen=True)
class Network:
    """One of the two networks of a run: ``dense``, or the sparse one under its rule's name.

    A pruned network has the name of the method.
    """

    name: str
    folder: Path
    is_sparse: bool
    is_pruned: bool = False

    @property
    def stage(self) -> str:
        """Name of the stage that makes it."""
        return f"{'prune' if self.is_pruned else 'train'} {self.name}"


class DataFormat(TypedDict):
    """Number of classes and of channels, (height, width); of text, the length of contexts."""

    classes: int
    channels: int
    image_size: tuple[int, int]
    context: int


class Run:
    """A recipe at work in a folder, on one process or on each of several.

    Parameters
    ----------
    recipe
        What to do.
    folder
        Where everything is written; made if missing.
    device
        ``cpu``, ``cuda``, ...; ``None`` takes an accelerator where there is one.
    overwrite
        Train again where the folder holds networks trained with other settings.
    """

    def __init__(
        self, recipe: Recipe, folder: Path, *, device: str | None = None, overwrite: bool = False
    ) -> None:
        check_names(recipe)
        self.recipe = recipe
        self.folder = folder
        self.device = choose_device(device)
        self.overwrite = overwrite
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        folder.mkdir(parents=True, exist_ok=True)
        self.processes = current_processes()
        self.ledger = Ledger(folder, writes=self.processes.is_main, defaults=DEFAULTS)
        self.record = RunRecord(
            self.ledger, recipe, device=str(self.device), processes=self.processes.count
        )
        self.processes.wait()  # What the folder held is known to all before one writes to it.
        self.spiking: dict[tuple[str, str], SpikingNetwork] = {}

    @property
    def networks(self) -> tuple[Network, ...]:
        """The networks of the recipe, dense first."""
        dense = Network("dense", self.folder / "dense", is_sparse=False)
        method = self.recipe.prune.method
        rule = self.recipe.direct.rule
        trained_by = self.recipe.sparsity.rule if rule in (None, "evolve") else rule
        name = method or trained_by
        sparse = Network(name, self.folder, is_sparse=True, is_pruned=method is not None)
        wanted = ((dense, self.recipe.dense_twin), (sparse, self.recipe.sparse_twin))
        return tuple(network for network, is_wanted in wanted if is_wanted)

    @cached_property
    def data(self) -> DataBundle:
        """The dataset, loaded once, and described in the record."""
        self.say(f"data: {self.recipe.data.source}")
        data = load_data(
            self.recipe.data,
            seed=self.recipe.seed,
            device=self.device,
            part=(self.processes.rank, self.processes.count),
        )
        description = {
            "name": data.name,
            "train": data.train.images,
            "validation": data.validation.images,
            "test": data.test.images,
            "classes": data.classes,
            "channels": data.channels,
            "image_size": list(data.image_size),
            "context": data.context,
            "mean": list(data.mean),
            "std": list(data.std),
        }
        self.record.write(data=description)
        return data

    @property
    def method(self) -> TrainingMethod:
        """How networks are trained on these data, which a language model is judged on by loss."""
        return NEXT_TOKEN if self.recipe.data.text.context else CLASSIFICATION

    @property
    def data_format(self) -> DataFormat:
        """What a network must know of the data; read from the record where it can be."""
        known = self.record.data
        if known is None:
            data = self.data
            known = {name: getattr(data, name) for name in DataFormat.__annotations__}
        height, width = known["image_size"]
        return {
            "classes": known["classes"],
            "channels": known["channels"],
            "image_size": (height, width),
            "context": known.get("context", 0),  # records of before there was text have none
        }

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of every parameter of the recipe's network, which is not built for it.

        Raises
        ------
        ConfigError
            If the network would not fit into the memory of this machine.
        """
        known = self.data_format  # may load the data, which must not be on the meta device
        try:
            with torch.device("meta"):
                model = build_model(self.recipe.model, **known)
        except RuntimeError as error:
            raise ConfigError(f"the recipe's network cannot be built ({reason(error)}).") from error
        shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
        size = sum(value.numel() * value.element_size() for value in model.parameters())
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if size > memory:
            raise ConfigError(
                f"the recipe's network has weights of {size / 2**30:.0f} GiB, and this machine "
                f"{memory / 2**30:.0f} GiB of memory; a smaller one is "
                "required."
            )
        return shapes

    def topology(self, network: Network) -> Topology:
        """Read the frozen topology of a sparse network."""
        return Topology.load(network.folder / "topology.npz", self.shapes)

    def stage(
        self, name: str, settings: Mapping[str, Any], action: Callable[[], Iterable[Path]]
    ) -> None:
        """Run ``action``, which returns the files it wrote, unless that was done before."""
        is_complete = self.ledger.is_complete(name, settings)
        if self.processes.broadcast(is_complete):
            self.say(f"{name}: kept from before")
            return
        self.say(name)
        self.ledger.begin(name, settings)
        started = time.perf_counter()
        outputs = [str(path.relative_to(self.folder)) for path in action()]
        self.ledger.end(name, outputs=outputs, seconds=time.perf_counter() - started)
        self.record.write(seconds=self.ledger.seconds)

    def always(self, name: str, action: Callable[[], Iterable[Path]]) -> None:
        """Run ``action`` whatever was done before, and seal the files that it returns."""
        self.ledger.begin(name, {})
        outputs = [str(path.relative_to(self.folder)) for path in action()]
        self.ledger.end(name, outputs=outputs, seconds=0.0)

    def say(self, message: str) -> None:
        """Show progress, on the main process only."""
        if self.processes.is_main:
            say(message)

    def warn(self, message: str) -> None:
        """Show a warning, with the process it comes from if that is not the main one."""
        warn(message if self.processes.is_main else f"process {self.processes.rank}: {message}")

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Keep the record up to date around the stages, warnings included."""
        with locked(self.folder), collecting_warnings(self.record, self.warn):
            self.record.write(seconds=self.ledger.seconds)
            try:
                yield
            finally:
                self.record.write(seconds=self.ledger.seconds)


def choose_device(name: str | None) -> torch.device:
    """Return the device of a name, or the accelerator if there is one, else the CPU.

    Of several accelerators a process that ``torchrun`` started takes its own.

    Raises
    ------
    ConfigError
        No such device here.
    """
    if name is None:
        return local_device(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = local_device(torch.device(name))
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} cannot be used here ({reason}). Use cpu, or leave --device out."
        ) from error
    return device
