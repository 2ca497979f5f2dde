"""STAGE 7: keep the network, or hand it over: own folder, NIR, CSR, graphs, ONNX, NeuroBench."""

from topospike.export.archive import load as load
from topospike.export.archive import save as save
from topospike.export.chip import ChipRun as ChipRun
from topospike.export.chip import simulate_chip as simulate_chip
from topospike.export.csr import CsrLayer as CsrLayer
from topospike.export.csr import CsrNetwork as CsrNetwork
from topospike.export.csr import export_csr as export_csr
from topospike.export.csr import read_csr as read_csr
from topospike.export.event_form import event_form as event_form
from topospike.export.event_network import EventNetwork as EventNetwork
from topospike.export.event_network import event_network as event_network
from topospike.export.folding import fold as fold
from topospike.export.network_graph import export_graph as export_graph
from topospike.export.neurobench import wrap_for_neurobench as wrap_for_neurobench
from topospike.export.nir_file import NirReport as NirReport
from topospike.export.nir_file import export_nir as export_nir
from topospike.export.nir_simulation import NirRun as NirRun
from topospike.export.nir_simulation import simulate_nir as simulate_nir
from topospike.export.onnx_file import export_onnx as export_onnx

__all__ = [
    "ChipRun",
    "CsrLayer",
    "CsrNetwork",
    "EventNetwork",
    "NirReport",
    "NirRun",
    "event_form",
    "event_network",
    "export_csr",
    "export_graph",
    "export_nir",
    "export_onnx",
    "fold",
    "load",
    "read_csr",
    "save",
    "simulate_chip",
    "simulate_nir",
    "wrap_for_neurobench",
]
