"""Train the spiking network itself, through time, with structure rules of its own."""

from topospike.direct.batches import WholeBatches as WholeBatches
from topospike.direct.batches import direct_data as direct_data
from topospike.direct.build import check_rule as check_rule
from topospike.direct.build import structure_rule as structure_rule
from topospike.direct.dpap import Dpap as Dpap
from topospike.direct.network import SpikingModel as SpikingModel
from topospike.direct.network import spiking_model as spiking_model
from topospike.direct.neurons import SURROGATES as SURROGATES
from topospike.direct.neurons import SpikingNeuron as SpikingNeuron
from topospike.direct.rule import StructureRule as StructureRule
from topospike.direct.sd_snn import SdSnn as SdSnn
from topospike.direct.simulation import DirectNetwork as DirectNetwork
from topospike.direct.simulation import spiking_network as spiking_network
from topospike.direct.training import training_method as training_method

__all__ = [
    "SURROGATES",
    "DirectNetwork",
    "Dpap",
    "SdSnn",
    "SpikingModel",
    "SpikingNeuron",
    "StructureRule",
    "WholeBatches",
    "check_rule",
    "direct_data",
    "spiking_model",
    "spiking_network",
    "structure_rule",
    "training_method",
]
