"""Stage analyse: the network science of a sparse topology."""

from topospike.analysis.alternatives import Alternative as Alternative
from topospike.analysis.alternatives import alternatives as alternatives
from topospike.analysis.alternatives import bootstrap_p_value as bootstrap_p_value
from topospike.analysis.analysis import analyse as analyse
from topospike.analysis.comparison import ComparisonRow as ComparisonRow
from topospike.analysis.comparison import compare as compare
from topospike.analysis.connectivity import CreditPaths as CreditPaths
from topospike.analysis.connectivity import active_neurons as active_neurons
from topospike.analysis.connectivity import communities as communities
from topospike.analysis.connectivity import connectivity as connectivity
from topospike.analysis.connectivity import credit_paths as credit_paths
from topospike.analysis.connectivity import modularity as modularity
from topospike.analysis.degree import PowerLawFit as PowerLawFit
from topospike.analysis.degree import degree_statistics as degree_statistics
from topospike.analysis.degree import power_law as power_law
from topospike.analysis.embedding.geometry import angular_separation as angular_separation
from topospike.analysis.embedding.geometry import c_score as c_score
from topospike.analysis.embedding.geometry import greedy_routing as greedy_routing
from topospike.analysis.embedding.geometry import hd_correlation as hd_correlation
from topospike.analysis.embedding.geometry import hyperbolic_distances as hyperbolic_distances
from topospike.analysis.embedding.hyperbolic import Embedding as Embedding
from topospike.analysis.embedding.hyperbolic import coalescent_embedding as coalescent_embedding
from topospike.analysis.embedding.hyperbolic import link_weights as link_weights
from topospike.analysis.graphs.chains import Chain as Chain
from topospike.analysis.graphs.chains import channel_chains as channel_chains
from topospike.analysis.graphs.chains import linear_chains as linear_chains
from topospike.analysis.graphs.chains import main_chain as main_chain
from topospike.analysis.graphs.chains import residual_chain as residual_chain
from topospike.analysis.graphs.chains import wired_chain as wired_chain
from topospike.analysis.graphs.channels import channel_mask as channel_mask
from topospike.analysis.graphs.channels import tap_counts as tap_counts
from topospike.analysis.graphs.channels import unfold as unfold
from topospike.analysis.graphs.graph import LayeredGraph as LayeredGraph
from topospike.analysis.graphs.graph import graph_from_blocks as graph_from_blocks
from topospike.analysis.graphs.graph import layered_graph as layered_graph
from topospike.analysis.graphs.null import degree_preserving_null as degree_preserving_null
from topospike.analysis.graphs.null import random_null as random_null
from topospike.analysis.history import HistoryPoint as HistoryPoint
from topospike.analysis.history import read_history as read_history
from topospike.analysis.history import read_updates as read_updates
from topospike.analysis.history import save_history as save_history
from topospike.analysis.history import topology_history as topology_history
from topospike.analysis.measures import structural_consistency as structural_consistency
from topospike.analysis.measures import topological_measures as topological_measures
from topospike.analysis.metadepth import meta_depth as meta_depth
from topospike.analysis.report import TopologyReport as TopologyReport
from topospike.analysis.smallworld import bipartite_clustering as bipartite_clustering
from topospike.analysis.smallworld import small_world as small_world

__all__ = [
    "Alternative",
    "Chain",
    "ComparisonRow",
    "CreditPaths",
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
    "credit_paths",
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
