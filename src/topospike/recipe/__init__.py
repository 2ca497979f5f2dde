"""A recipe is data: the frozen settings of one complete run.

One dataclass a stage, in the order of the pipeline. Defaults are the paper's where it states one
(Bao, Gu, Lyu, Cannistraci 2026, Appendix C). Importing this module costs nothing: no torch.
"""

from topospike.recipe.complete import Recipe as Recipe
from topospike.recipe.sparsity import PruneSettings as PruneSettings
from topospike.recipe.sparsity import SparsitySettings as SparsitySettings
from topospike.recipe.spiking import ConversionSettings as ConversionSettings
from topospike.recipe.spiking import DirectSettings as DirectSettings
from topospike.recipe.spiking import MeasureSettings as MeasureSettings
from topospike.recipe.spiking import NeuronSettings as NeuronSettings
from topospike.recipe.spiking import QuantisationSettings as QuantisationSettings
from topospike.recipe.training import DataSettings as DataSettings
from topospike.recipe.training import EventSettings as EventSettings
from topospike.recipe.training import ModelSettings as ModelSettings
from topospike.recipe.training import TextSettings as TextSettings
from topospike.recipe.training import TrainSettings as TrainSettings

__all__ = [
    "ConversionSettings",
    "DataSettings",
    "DirectSettings",
    "EventSettings",
    "MeasureSettings",
    "ModelSettings",
    "NeuronSettings",
    "PruneSettings",
    "QuantisationSettings",
    "Recipe",
    "SparsitySettings",
    "TextSettings",
    "TrainSettings",
]
