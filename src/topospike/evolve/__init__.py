"""Stage evolve: dynamic sparse training, Cannistraci-Hebb rules and their baselines."""

from topospike.evolve.build import keep_links, sparsify
from topospike.evolve.chains import find_chains
from topospike.evolve.couplings import Coupling, Feeding, find_relations
from topospike.evolve.nodes import SCORE_RULES
from topospike.evolve.percolation import (
    active_hidden_neurons,
    active_neurons,
    percolate,
    percolate_network,
)
from topospike.evolve.plan import LayerPlan
from topospike.evolve.rules import (
    REMOVAL_CRITERIA,
    RULES,
    GrowthInput,
    RemovalCriterion,
    RemovalInput,
    Rule,
)
from topospike.evolve.scores import ch_scores, ch_scores_conv
from topospike.evolve.settings import Evolution, UpdateSchedule
from topospike.evolve.sparsifier import Sparsifier

__all__ = [
    "REMOVAL_CRITERIA",
    "RULES",
    "SCORE_RULES",
    "Coupling",
    "Evolution",
    "Feeding",
    "GrowthInput",
    "LayerPlan",
    "RemovalCriterion",
    "RemovalInput",
    "Rule",
    "Sparsifier",
    "UpdateSchedule",
    "active_hidden_neurons",
    "active_neurons",
    "ch_scores",
    "ch_scores_conv",
    "find_chains",
    "find_relations",
    "keep_links",
    "percolate",
    "percolate_network",
    "sparsify",
]
