"""Grow sparse, brain-like networks, turn them into spiking networks, and say what they cost.

The public names are imported when they are first used, so that ``import topospike`` is free and
``topospike --help`` loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topospike.analysis import TopologyReport as TopologyReport
    from topospike.analysis import analyse as analyse
    from topospike.analysis import coalescent_embedding as coalescent_embedding
    from topospike.analysis import layered_graph as layered_graph
    from topospike.analysis import power_law as power_law
    from topospike.contracts import Evaluation as Evaluation
    from topospike.conversion import convert as convert
    from topospike.conversion import fine_tune as fine_tune
    from topospike.conversion import prune_spiking as prune_spiking
    from topospike.conversion import quantise_activations as quantise_activations
    from topospike.conversion import quantise_weights as quantise_weights
    from topospike.evolve import Sparsifier as Sparsifier
    from topospike.evolve import ch_scores as ch_scores
    from topospike.evolve import ch_scores_conv as ch_scores_conv
    from topospike.evolve import percolate as percolate
    from topospike.evolve import sparsify as sparsify
    from topospike.export import export_nir as export_nir
    from topospike.export import load as load
    from topospike.export import save as save
    from topospike.export import simulate_chip as simulate_chip
    from topospike.export import wrap_for_neurobench as wrap_for_neurobench
    from topospike.measure import evaluate as evaluate
    from topospike.measure import saturation_time as saturation_time
    from topospike.pipeline import RunResult as RunResult
    from topospike.pipeline import run_recipe as run_recipe
    from topospike.pipeline import verify_run as verify_run
    from topospike.pruning import prune as prune
    from topospike.snn import SpikingNetwork as SpikingNetwork
    from topospike.topology import Topology as Topology

HOMES = {
    "Evaluation": "topospike.contracts",
    "RunResult": "topospike.pipeline",
    "Sparsifier": "topospike.evolve",
    "SpikingNetwork": "topospike.snn",
    "Topology": "topospike.topology",
    "TopologyReport": "topospike.analysis",
    "analyse": "topospike.analysis",
    "ch_scores": "topospike.evolve",
    "ch_scores_conv": "topospike.evolve",
    "coalescent_embedding": "topospike.analysis",
    "convert": "topospike.conversion",
    "evaluate": "topospike.measure",
    "export_nir": "topospike.export",
    "fine_tune": "topospike.conversion",
    "layered_graph": "topospike.analysis",
    "load": "topospike.export",
    "percolate": "topospike.evolve",
    "power_law": "topospike.analysis",
    "prune": "topospike.pruning",
    "prune_spiking": "topospike.conversion",
    "quantise_activations": "topospike.conversion",
    "quantise_weights": "topospike.conversion",
    "run_recipe": "topospike.pipeline",
    "saturation_time": "topospike.measure",
    "save": "topospike.export",
    "simulate_chip": "topospike.export",
    "sparsify": "topospike.evolve",
    "verify_run": "topospike.pipeline",
    "wrap_for_neurobench": "topospike.export",
}

__version__ = version("topospike")
__all__ = [
    "Evaluation",
    "RunResult",
    "Sparsifier",
    "SpikingNetwork",
    "Topology",
    "TopologyReport",
    "analyse",
    "ch_scores",
    "ch_scores_conv",
    "coalescent_embedding",
    "convert",
    "evaluate",
    "export_nir",
    "fine_tune",
    "layered_graph",
    "load",
    "percolate",
    "power_law",
    "prune",
    "prune_spiking",
    "quantise_activations",
    "quantise_weights",
    "run_recipe",
    "saturation_time",
    "save",
    "simulate_chip",
    "sparsify",
    "verify_run",
    "wrap_for_neurobench",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})
