"""Grow sparse, brain-like networks, turn them into spiking networks, and say what they cost.

The public names are imported when they are first used, so that ``import topospike`` is free and
``topospike --help`` loads no torch. Some stages share their name with their main function:
``topospike.convert``, ``topospike.analyse`` and ``topospike.prune`` are packages that can be
called, whichever of them was imported first.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topospike.analyse import TopologyReport as TopologyReport
    from topospike.analyse import analyse as analyse
    from topospike.analyse import coalescent_embedding as coalescent_embedding
    from topospike.analyse import layered_graph as layered_graph
    from topospike.analyse import power_law as power_law
    from topospike.contracts import Evaluation as Evaluation
    from topospike.convert import convert as convert
    from topospike.convert import load as load
    from topospike.convert import save as save
    from topospike.evolve import Sparsifier as Sparsifier
    from topospike.evolve import ch_scores as ch_scores
    from topospike.evolve import ch_scores_conv as ch_scores_conv
    from topospike.evolve import percolate as percolate
    from topospike.evolve import sparsify as sparsify
    from topospike.export import export_nir as export_nir
    from topospike.export import wrap_for_neurobench as wrap_for_neurobench
    from topospike.measure import evaluate as evaluate
    from topospike.measure import saturation_time as saturation_time
    from topospike.prune import prune as prune
    from topospike.snn import SpikingNetwork as SpikingNetwork
    from topospike.topology import Topology as Topology

HOMES = {
    "Evaluation": "topospike.contracts",
    "Sparsifier": "topospike.evolve",
    "SpikingNetwork": "topospike.snn",
    "Topology": "topospike.topology",
    "TopologyReport": "topospike.analyse",
    "ch_scores": "topospike.evolve",
    "ch_scores_conv": "topospike.evolve",
    "coalescent_embedding": "topospike.analyse",
    "evaluate": "topospike.measure",
    "export_nir": "topospike.export",
    "layered_graph": "topospike.analyse",
    "load": "topospike.convert",
    "percolate": "topospike.evolve",
    "power_law": "topospike.analyse",
    "saturation_time": "topospike.measure",
    "save": "topospike.convert",
    "sparsify": "topospike.evolve",
    "wrap_for_neurobench": "topospike.export",
}
CALLABLE_STAGES = ("analyse", "convert", "prune")

__version__ = version("topospike")
__all__ = [
    "Evaluation",
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
    "layered_graph",
    "load",
    "percolate",
    "power_law",
    "prune",
    "saturation_time",
    "save",
    "sparsify",
    "wrap_for_neurobench",
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use (PEP 562)."""
    if name in CALLABLE_STAGES:
        return import_module(f"{__name__}.{name}")
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """List the public names, imported or not."""
    return sorted({*globals(), *__all__})


class CallableStage(ModuleType):
    """A package that passes a call on to its function of the same name."""

    @property
    def main_function(self) -> Any:
        """The function that has the package's name."""
        return getattr(self, self.__name__.rpartition(".")[2])

    @property
    def __signature__(self) -> Signature:
        return signature(self.main_function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function that has the package's name."""
        return self.main_function(*args, **kwargs)


class LazyPackage(ModuleType):
    """A package whose callable stages become callable when the import system adds them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CALLABLE_STAGES and type(value) is ModuleType:
            value.__class__ = CallableStage
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = LazyPackage
