"""The baselines: prune a trained network, single links or whole channels."""

from topospike.pruning.api import prune as prune
from topospike.pruning.methods import PRUNING_METHODS as PRUNING_METHODS
from topospike.pruning.methods import Method as Method
from topospike.pruning.report import LayerPruning as LayerPruning
from topospike.pruning.report import PruneReport as PruneReport
from topospike.pruning.shrink import shrink as shrink

__all__ = [
    "PRUNING_METHODS",
    "LayerPruning",
    "Method",
    "PruneReport",
    "prune",
    "shrink",
]
