"""STAGE 4: turn a trained network into a spiking one."""

from topospike.convert.api import convert as convert
from topospike.convert.archive import load as load
from topospike.convert.archive import save as save
from topospike.convert.health import conversion_text as conversion_text
from topospike.convert.methods import METHODS as METHODS
from topospike.convert.quantise import quantise_activations as quantise_activations
from topospike.convert.quantise import to_channel_thresholds as to_channel_thresholds

__all__ = [
    "METHODS",
    "conversion_text",
    "convert",
    "load",
    "quantise_activations",
    "save",
    "to_channel_thresholds",
]
