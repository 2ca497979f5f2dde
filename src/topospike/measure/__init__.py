"""STAGE 5: accuracy and energy at every time step."""

from topospike.measure.compare import compare_activations as compare_activations
from topospike.measure.conventions import Conventions as Conventions
from topospike.measure.energy import ENERGY_MODELS as ENERGY_MODELS
from topospike.measure.energy import EnergyModel as EnergyModel
from topospike.measure.evaluate import evaluate as evaluate
from topospike.measure.explain import comparison_text as comparison_text
from topospike.measure.operations import OperationCounter as OperationCounter
from topospike.measure.saturation import saturation_time as saturation_time

__all__ = [
    "ENERGY_MODELS",
    "Conventions",
    "EnergyModel",
    "OperationCounter",
    "compare_activations",
    "comparison_text",
    "evaluate",
    "saturation_time",
]
