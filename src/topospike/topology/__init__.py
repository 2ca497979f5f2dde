"""Stage topology: what a sparse topology is, how it starts, and how it is frozen."""

from topospike.topology.archive import PackedMask as PackedMask
from topospike.topology.bipartite import bipartite_graphs as bipartite_graphs
from topospike.topology.bipartite import matrix_shape as matrix_shape
from topospike.topology.bipartite import to_bipartite as to_bipartite
from topospike.topology.correlation import csti_mask as csti_mask
from topospike.topology.correlation import feature_correlation as feature_correlation
from topospike.topology.counts import active_count as active_count
from topospike.topology.counts import share_count as share_count
from topospike.topology.counts import sparsity_of as sparsity_of
from topospike.topology.degrees import node_degrees as node_degrees
from topospike.topology.frozen import Topology as Topology
from topospike.topology.importance import magnitude as magnitude
from topospike.topology.importance import mest_importance as mest_importance
from topospike.topology.importance import relative_importance as relative_importance
from topospike.topology.initial import INITIAL_TOPOLOGIES as INITIAL_TOPOLOGIES
from topospike.topology.initial import er_mask as er_mask
from topospike.topology.initial import initial_mask as initial_mask
from topospike.topology.layers import KINDS as KINDS
from topospike.topology.layers import Layer as Layer
from topospike.topology.layers import check_names as check_names
from topospike.topology.layers import check_shares as check_shares
from topospike.topology.layers import choice as choice
from topospike.topology.layers import get_mask as get_mask
from topospike.topology.layers import is_named as is_named
from topospike.topology.layers import masked_layers as masked_layers
from topospike.topology.layers import masks_of as masks_of
from topospike.topology.layers import original as original
from topospike.topology.layers import select as select
from topospike.topology.layers import weight_layers as weight_layers
from topospike.topology.masks import check_masks as check_masks
from topospike.topology.masks import enforce as enforce
from topospike.topology.masks import pack_bits as pack_bits
from topospike.topology.masks import register_mask as register_mask
from topospike.topology.masks import set_mask as set_mask
from topospike.topology.masks import unpack_bits as unpack_bits
from topospike.topology.ranking import best as best
from topospike.topology.ranking import draw as draw
from topospike.topology.ring import brf_mask as brf_mask
from topospike.topology.ring import bsw_mask as bsw_mask
from topospike.topology.schedules import DENSITY_SCHEDULES as DENSITY_SCHEDULES
from topospike.topology.schedules import ZETA_SCHEDULES as ZETA_SCHEDULES
from topospike.topology.schedules import density_at as density_at
from topospike.topology.schedules import sparsity_at as sparsity_at
from topospike.topology.schedules import zeta_at as zeta_at
from topospike.topology.series import TopologySeries as TopologySeries
from topospike.topology.series import saved_series as saved_series
from topospike.topology.series import series_path as series_path
from topospike.topology.weight_init import WEIGHT_INITS as WEIGHT_INITS
from topospike.topology.weight_init import init_weights as init_weights

__all__ = [
    "DENSITY_SCHEDULES",
    "INITIAL_TOPOLOGIES",
    "KINDS",
    "WEIGHT_INITS",
    "ZETA_SCHEDULES",
    "Layer",
    "PackedMask",
    "Topology",
    "TopologySeries",
    "active_count",
    "best",
    "bipartite_graphs",
    "brf_mask",
    "bsw_mask",
    "check_masks",
    "check_names",
    "check_shares",
    "choice",
    "csti_mask",
    "density_at",
    "draw",
    "enforce",
    "er_mask",
    "feature_correlation",
    "get_mask",
    "init_weights",
    "initial_mask",
    "is_named",
    "magnitude",
    "masked_layers",
    "masks_of",
    "matrix_shape",
    "mest_importance",
    "node_degrees",
    "original",
    "pack_bits",
    "register_mask",
    "relative_importance",
    "saved_series",
    "select",
    "series_path",
    "set_mask",
    "share_count",
    "sparsity_at",
    "sparsity_of",
    "to_bipartite",
    "unpack_bits",
    "weight_layers",
    "zeta_at",
]
