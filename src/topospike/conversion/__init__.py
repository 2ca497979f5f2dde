"""STAGE 4: turn a trained network into a spiking one."""

from topospike.conversion.api import convert as convert
from topospike.conversion.fine_tune import fine_tune as fine_tune
from topospike.conversion.health import conversion_text as conversion_text
from topospike.conversion.methods import METHODS as METHODS
from topospike.conversion.methods.balancing import LTBMethod as LTBMethod
from topospike.conversion.methods.method import Method as Method
from topospike.conversion.methods.sigma_delta import SigmaDeltaMethod as SigmaDeltaMethod
from topospike.conversion.methods.waiting import LayerByLayerMethod as LayerByLayerMethod
from topospike.conversion.prune_spiking import prune_spiking as prune_spiking
from topospike.conversion.quantise import quantise_activations as quantise_activations
from topospike.conversion.quantise import to_channel_thresholds as to_channel_thresholds
from topospike.conversion.whole_weights import WeightReport as WeightReport
from topospike.conversion.whole_weights import quantise_weights as quantise_weights

__all__ = [
    "METHODS",
    "LTBMethod",
    "LayerByLayerMethod",
    "Method",
    "SigmaDeltaMethod",
    "WeightReport",
    "conversion_text",
    "convert",
    "fine_tune",
    "prune_spiking",
    "quantise_activations",
    "quantise_weights",
    "to_channel_thresholds",
]
