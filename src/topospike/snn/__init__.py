"""STAGE 4b: the spiking network and its simulation."""

from topospike.snn.executors.forms import CostModel as CostModel
from topospike.snn.network import SpikingNetwork as SpikingNetwork
from topospike.snn.site import Site as Site

__all__ = ["CostModel", "Site", "SpikingNetwork"]
