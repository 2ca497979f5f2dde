"""The baselines: prune a trained network, single links or whole channels."""

from topospike.prune.api import prune as prune
from topospike.prune.kept import KeptTopology as KeptTopology
from topospike.prune.methods import PRUNING_METHODS as PRUNING_METHODS
from topospike.prune.methods import Method as Method
from topospike.prune.report import LayerPruning as LayerPruning
from topospike.prune.report import PruneReport as PruneReport
from topospike.prune.shrink import shrink as shrink

__all__ = [
    "PRUNING_METHODS",
    "KeptTopology",
    "LayerPruning",
    "Method",
    "PruneReport",
    "prune",
    "shrink",
]
