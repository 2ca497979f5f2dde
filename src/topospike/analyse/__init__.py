"""Stage analyse: the network science of a sparse topology."""

from topospike.analyse.alternatives import Alternative as Alternative
from topospike.analyse.alternatives import alternatives as alternatives
from topospike.analyse.alternatives import bootstrap_p_value as bootstrap_p_value
from topospike.analyse.analysis import analyse as analyse
from topospike.analyse.chains import Chain as Chain
from topospike.analyse.chains import channel_chains as channel_chains
from topospike.analyse.chains import linear_chains as linear_chains
from topospike.analyse.chains import main_chain as main_chain
from topospike.analyse.channels import channel_mask as channel_mask
from topospike.analyse.channels import tap_counts as tap_counts
from topospike.analyse.channels import unfold as unfold
from topospike.analyse.community import communities as communities
from topospike.analyse.community import modularity as modularity
from topospike.analyse.comparison import ComparisonRow as ComparisonRow
from topospike.analyse.comparison import compare as compare
from topospike.analyse.connectivity import active_neurons as active_neurons
from topospike.analyse.connectivity import connectivity as connectivity
from topospike.analyse.degree import PowerLawFit as PowerLawFit
from topospike.analyse.degree import degree_statistics as degree_statistics
from topospike.analyse.degree import power_law as power_law
from topospike.analyse.geometry import c_score as c_score
from topospike.analyse.geometry import greedy_routing as greedy_routing
from topospike.analyse.geometry import hd_correlation as hd_correlation
from topospike.analyse.geometry import hyperbolic_distances as hyperbolic_distances
from topospike.analyse.graph import LayeredGraph as LayeredGraph
from topospike.analyse.graph import graph_from_blocks as graph_from_blocks
from topospike.analyse.graph import layered_graph as layered_graph
from topospike.analyse.history import HistoryPoint as HistoryPoint
from topospike.analyse.history import read_history as read_history
from topospike.analyse.history import read_updates as read_updates
from topospike.analyse.history import save_history as save_history
from topospike.analyse.history import topology_history as topology_history
from topospike.analyse.hyperbolic import Embedding as Embedding
from topospike.analyse.hyperbolic import coalescent_embedding as coalescent_embedding
from topospike.analyse.measures import structural_consistency as structural_consistency
from topospike.analyse.measures import topological_measures as topological_measures
from topospike.analyse.metadepth import meta_depth as meta_depth
from topospike.analyse.null import degree_preserving_null as degree_preserving_null
from topospike.analyse.null import random_null as random_null
from topospike.analyse.preweighting import link_weights as link_weights
from topospike.analyse.report import TopologyReport as TopologyReport
from topospike.analyse.separability import angular_separation as angular_separation
from topospike.analyse.smallworld import bipartite_clustering as bipartite_clustering
from topospike.analyse.smallworld import small_world as small_world
from topospike.analyse.wiring import residual_chain as residual_chain
from topospike.analyse.wiring import wired_chain as wired_chain

__all__ = [
    "Alternative",
    "Chain",
    "ComparisonRow",
    "Embedding",
    "HistoryPoint",
    "LayeredGraph",
    "PowerLawFit",
    "TopologyReport",
    "active_neurons",
    "alternatives",
    "analyse",
    "angular_separation",
    "bipartite_clustering",
    "bootstrap_p_value",
    "c_score",
    "channel_chains",
    "channel_mask",
    "coalescent_embedding",
    "communities",
    "compare",
    "connectivity",
    "degree_preserving_null",
    "degree_statistics",
    "graph_from_blocks",
    "greedy_routing",
    "hd_correlation",
    "hyperbolic_distances",
    "layered_graph",
    "linear_chains",
    "link_weights",
    "main_chain",
    "meta_depth",
    "modularity",
    "power_law",
    "random_null",
    "read_history",
    "read_updates",
    "residual_chain",
    "save_history",
    "small_world",
    "structural_consistency",
    "tap_counts",
    "topological_measures",
    "topology_history",
    "unfold",
    "wired_chain",
]
