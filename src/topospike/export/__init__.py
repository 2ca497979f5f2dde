"""STAGE 7: hand the network over: NIR, CSR weights, graphs, ONNX, NeuroBench."""

from topospike.export.event_form import event_form as event_form
from topospike.export.event_network import EventNetwork as EventNetwork
from topospike.export.event_network import event_network as event_network
from topospike.export.folding import fold as fold
from topospike.export.neurobench import wrap_for_neurobench as wrap_for_neurobench
from topospike.export.nir_file import NirReport as NirReport
from topospike.export.nir_file import export_nir as export_nir
from topospike.export.nir_simulation import NirRun as NirRun
from topospike.export.nir_simulation import simulate_nir as simulate_nir

__all__ = [
    "EventNetwork",
    "NirReport",
    "NirRun",
    "event_form",
    "event_network",
    "export_nir",
    "fold",
    "simulate_nir",
    "wrap_for_neurobench",
]
