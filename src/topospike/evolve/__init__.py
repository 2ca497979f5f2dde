"""Stage evolve: dynamic sparse training, Cannistraci-Hebb rules and their baselines."""

from topospike.evolve.activity import active_hidden_neurons as active_hidden_neurons
from topospike.evolve.activity import active_neurons as active_neurons
from topospike.evolve.build import sparsify as sparsify
from topospike.evolve.chains import find_chains as find_chains
from topospike.evolve.connections import Coupling as Coupling
from topospike.evolve.connections import Feeding as Feeding
from topospike.evolve.connections import find_relations as find_relations
from topospike.evolve.conv import ch_scores_conv as ch_scores_conv
from topospike.evolve.history import WeightHistory as WeightHistory
from topospike.evolve.link_prediction import ch_scores as ch_scores
from topospike.evolve.percolation import percolate as percolate
from topospike.evolve.percolation import percolate_network as percolate_network
from topospike.evolve.plan import LayerPlan as LayerPlan
from topospike.evolve.regrowth import grow_best as grow_best
from topospike.evolve.regrowth import grow_drawn as grow_drawn
from topospike.evolve.regrowth import grow_uniform as grow_uniform
from topospike.evolve.removal import REMOVAL_CRITERIA as REMOVAL_CRITERIA
from topospike.evolve.removal import keep_best as keep_best
from topospike.evolve.removal import keep_drawn as keep_drawn
from topospike.evolve.removal import mest_importance as mest_importance
from topospike.evolve.removal import relative_importance as relative_importance
from topospike.evolve.removal import removal_exponent as removal_exponent
from topospike.evolve.rules import RULES as RULES
from topospike.evolve.rules import GrowthInput as GrowthInput
from topospike.evolve.rules import Rule as Rule
from topospike.evolve.schedule import UpdateSchedule as UpdateSchedule
from topospike.evolve.score_rules import SCORE_RULES as SCORE_RULES
from topospike.evolve.series import TopologySeries as TopologySeries
from topospike.evolve.sparsifier import Sparsifier as Sparsifier

__all__ = [
    "REMOVAL_CRITERIA",
    "RULES",
    "SCORE_RULES",
    "Coupling",
    "Feeding",
    "GrowthInput",
    "LayerPlan",
    "Rule",
    "Sparsifier",
    "TopologySeries",
    "UpdateSchedule",
    "WeightHistory",
    "active_hidden_neurons",
    "active_neurons",
    "ch_scores",
    "ch_scores_conv",
    "find_chains",
    "find_relations",
    "grow_best",
    "grow_drawn",
    "grow_uniform",
    "keep_best",
    "keep_drawn",
    "mest_importance",
    "percolate",
    "percolate_network",
    "relative_importance",
    "removal_exponent",
    "sparsify",
]
