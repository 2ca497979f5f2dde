"""Stage evolve: dynamic sparse training, Cannistraci-Hebb rules and their baselines."""

from topospike.evolve.build import sparsify as sparsify
from topospike.evolve.chains import find_chains as find_chains
from topospike.evolve.couplings import Coupling as Coupling
from topospike.evolve.couplings import Feeding as Feeding
from topospike.evolve.couplings import find_relations as find_relations
from topospike.evolve.nodes import SCORE_RULES as SCORE_RULES
from topospike.evolve.percolation import active_hidden_neurons as active_hidden_neurons
from topospike.evolve.percolation import active_neurons as active_neurons
from topospike.evolve.percolation import percolate as percolate
from topospike.evolve.percolation import percolate_network as percolate_network
from topospike.evolve.plan import LayerPlan as LayerPlan
from topospike.evolve.rules import REMOVAL_CRITERIA as REMOVAL_CRITERIA
from topospike.evolve.rules import RULES as RULES
from topospike.evolve.rules import GrowthInput as GrowthInput
from topospike.evolve.rules import RemovalCriterion as RemovalCriterion
from topospike.evolve.rules import RemovalInput as RemovalInput
from topospike.evolve.rules import Rule as Rule
from topospike.evolve.scores import ch_scores as ch_scores
from topospike.evolve.scores import ch_scores_conv as ch_scores_conv
from topospike.evolve.settings import Evolution as Evolution
from topospike.evolve.settings import UpdateSchedule as UpdateSchedule
from topospike.evolve.sparsifier import Sparsifier as Sparsifier

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
    "percolate",
    "percolate_network",
    "sparsify",
]
