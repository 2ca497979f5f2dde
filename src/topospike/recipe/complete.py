"""The settings of all stages together."""

from __future__ import annotations

from dataclasses import dataclass, field

from topospike.recipe.sparsity import PruneSettings, SparsitySettings
from topospike.recipe.spiking import (
    ConversionSettings,
    DirectSettings,
    MeasureSettings,
    QuantisationSettings,
)
from topospike.recipe.training import DataSettings, ModelSettings, TrainSettings


@dataclass(frozen=True)
class Recipe:
    """One complete run: a dense twin, a sparse twin, their conversions, and the analysis.

    ``dense_twin`` and ``sparse_twin`` leave one of the two networks out.
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
