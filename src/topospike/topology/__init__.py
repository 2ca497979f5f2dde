"""Stage topology: what a sparse topology is, how it starts, and how it is frozen."""

from topospike.topology.archive import PackedMask as PackedMask
from topospike.topology.bipartite import bipartite_graphs as bipartite_graphs
from topospike.topology.bipartite import channel_links as channel_links
from topospike.topology.bipartite import from_bipartite as from_bipartite
from topospike.topology.bipartite import from_bipartite_graphs as from_bipartite_graphs
from topospike.topology.bipartite import matrix_shape as matrix_shape
from topospike.topology.bipartite import to_bipartite as to_bipartite
from topospike.topology.correlation import csti_mask as csti_mask
from topospike.topology.correlation import feature_correlation as feature_correlation
from topospike.topology.counts import active_count as active_count
from topospike.topology.counts import share_count as share_count
from topospike.topology.counts import sparsity_of as sparsity_of
from topospike.topology.degrees import node_degrees as node_degrees
from topospike.topology.frozen import Topology as Topology
from topospike.topology.initial import INITIAL_TOPOLOGIES as INITIAL_TOPOLOGIES
from topospike.topology.initial import er_mask as er_mask
from topospike.topology.initial import initial_mask as initial_mask
from topospike.topology.masks import MaskedParameter as MaskedParameter
from topospike.topology.masks import check_masks as check_masks
from topospike.topology.masks import enforce as enforce
from topospike.topology.masks import get_mask as get_mask
from topospike.topology.masks import masked_modules as masked_modules
from topospike.topology.masks import masked_parameters as masked_parameters
from topospike.topology.masks import register_mask as register_mask
from topospike.topology.masks import set_mask as set_mask
from topospike.topology.ring import brf_mask as brf_mask
from topospike.topology.ring import bsw_mask as bsw_mask
from topospike.topology.schedules import DENSITY_SCHEDULES as DENSITY_SCHEDULES
from topospike.topology.schedules import ZETA_SCHEDULES as ZETA_SCHEDULES
from topospike.topology.schedules import density_at as density_at
from topospike.topology.schedules import sparsity_at as sparsity_at
from topospike.topology.schedules import zeta_at as zeta_at
from topospike.topology.series import saved_series as saved_series
from topospike.topology.series import series_path as series_path
from topospike.topology.weight_init import WEIGHT_INITS as WEIGHT_INITS
from topospike.topology.weight_init import init_weights as init_weights

__all__ = [
    "DENSITY_SCHEDULES",
    "INITIAL_TOPOLOGIES",
    "WEIGHT_INITS",
    "ZETA_SCHEDULES",
    "MaskedParameter",
    "PackedMask",
    "Topology",
    "active_count",
    "bipartite_graphs",
    "brf_mask",
    "bsw_mask",
    "channel_links",
    "check_masks",
    "csti_mask",
    "density_at",
    "enforce",
    "er_mask",
    "feature_correlation",
    "from_bipartite",
    "from_bipartite_graphs",
    "get_mask",
    "init_weights",
    "initial_mask",
    "masked_modules",
    "masked_parameters",
    "matrix_shape",
    "node_degrees",
    "register_mask",
    "saved_series",
    "series_path",
    "set_mask",
    "share_count",
    "sparsity_at",
    "sparsity_of",
    "to_bipartite",
    "zeta_at",
]
