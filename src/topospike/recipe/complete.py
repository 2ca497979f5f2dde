"""The settings of all stages together."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from topospike.errors import ConfigError
from topospike.recipe.sparsity import PruneSettings, SparsitySettings
from topospike.recipe.spiking import (
    ConversionSettings,
    DirectSettings,
    MeasureSettings,
    QuantisationSettings,
)
from topospike.recipe.training import DataSettings, ModelSettings, TrainSettings

MOST_THREADS = 4096


@dataclass(frozen=True)
class Recipe:
    """One complete run: a dense twin, a sparse twin, their conversions, and the analysis.

    ``dense_twin`` and ``sparse_twin`` leave one of the two networks out. Ranges of numbers are
    checked when settings are made, before anything is loaded or trained; a message names the key as
    it is written on the command line.

    Raises
    ------
    ConfigError
        If there is nothing to train, or a conversion cannot have a folder of its own.

    Examples
    --------
    >>> Recipe(measure=MeasureSettings(timesteps=0))
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: measure.timesteps is 0; 1 or more is required.
    """

    name: str = "run"
    seed: int = 0
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSettings = field(default_factory=ModelSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    sparsity: SparsitySettings = field(default_factory=SparsitySettings)
    direct: DirectSettings = field(default_factory=DirectSettings)
    prune: PruneSettings = field(default_factory=PruneSettings)
    quantise: QuantisationSettings = field(default_factory=QuantisationSettings)
    dense_twin: bool = True
    sparse_twin: bool = True
    convert: tuple[ConversionSettings, ...] = (
        ConversionSettings("dcgs"),
        ConversionSettings("qcfs"),
    )
    measure: MeasureSettings = field(default_factory=MeasureSettings)
    analyse: bool = True
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.threads is not None and not 1 <= self.threads <= MOST_THREADS:
            raise ConfigError(
                f"threads is {self.threads}; 1 to {MOST_THREADS}, or null, is required."
            )
        if not (self.dense_twin or self.sparse_twin):
            raise ConfigError(
                "dense_twin and sparse_twin are both false, so there is nothing to train; one of "
                "them must be true."
            )
        check_labels([settings.label for settings in self.convert])


FOLDER_NAME = r"\w[\w.-]{0,99}"


def check_labels(labels: list[str]) -> None:
    """Raise `ConfigError` if a conversion cannot name a folder, or two would write to one."""
    for label in labels:
        if not re.fullmatch(FOLDER_NAME, label):
            raise ConfigError(
                f"convert has the name {label!r}; letters, digits, hyphens, underscores and dots "
                "inside, 100 at most, are required, since a folder is named so."
            )
        if labels.count(label) > 1:
            raise ConfigError(
                f"convert names {label!r} {labels.count(label)} times; each name once is required, "
                "since each has its own folder. Give one of them a name: '{method: dcgs, name: "
                "dcgs-rate, options: {coding: rate}}'."
            )
