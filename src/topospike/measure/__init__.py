"""STAGE 5: accuracy and energy at every time step."""

from topospike.measure.compare import compare_activations as compare_activations
from topospike.measure.compare import comparison_text as comparison_text
from topospike.measure.counting.conventions import Conventions as Conventions
from topospike.measure.counting.operations import OperationCounter as OperationCounter
from topospike.measure.energy import ENERGY_MODELS as ENERGY_MODELS
from topospike.measure.energy import EnergyModel as EnergyModel
from topospike.measure.energy import MemoryEnergy as MemoryEnergy
from topospike.measure.energy import memory_energy as memory_energy
from topospike.measure.evaluate import EVERY_CONVENTION as EVERY_CONVENTION
from topospike.measure.evaluate import evaluate as evaluate
from topospike.measure.evaluate import evaluate_conventions as evaluate_conventions
from topospike.measure.metrics import METRICS as METRICS
from topospike.measure.metrics import Metric as Metric
from topospike.measure.pareto import FrontPoint as FrontPoint
from topospike.measure.pareto import area_under_front as area_under_front
from topospike.measure.pareto import iso_accuracy_energy as iso_accuracy_energy
from topospike.measure.pareto import pareto_front as pareto_front
from topospike.measure.raster import raster as raster
from topospike.measure.saturation import saturation_time as saturation_time
from topospike.measure.saving import Saving as Saving
from topospike.measure.saving import event_rates as event_rates
from topospike.measure.saving import reprice as reprice
from topospike.measure.saving import saving_text as saving_text
from topospike.measure.saving import split_saving as split_saving
from topospike.measure.stream import settling as settling
from topospike.measure.wider import wider_text as wider_text

__all__ = [
    "ENERGY_MODELS",
    "EVERY_CONVENTION",
    "METRICS",
    "Conventions",
    "EnergyModel",
    "FrontPoint",
    "MemoryEnergy",
    "Metric",
    "OperationCounter",
    "Saving",
    "area_under_front",
    "compare_activations",
    "comparison_text",
    "evaluate",
    "evaluate_conventions",
    "event_rates",
    "iso_accuracy_energy",
    "memory_energy",
    "pareto_front",
    "raster",
    "reprice",
    "saturation_time",
    "saving_text",
    "settling",
    "split_saving",
    "wider_text",
]
