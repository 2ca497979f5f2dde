"""Stage topology: what a sparse topology is, how it starts, and how it is frozen."""

from topospike.topology.archive import PackedMask
from topospike.topology.bipartite import bipartite_graphs, matrix_shape, to_bipartite
from topospike.topology.correlation import csti_mask, feature_correlation
from topospike.topology.counts import active_count, share_count, sparsity_of
from topospike.topology.frozen import Topology
from topospike.topology.initial import (
    INITIAL_TOPOLOGIES,
    brf_mask,
    bsw_mask,
    er_mask,
    initial_mask,
    node_degrees,
)
from topospike.topology.layers import (
    KINDS,
    Layer,
    check_names,
    check_shares,
    choice,
    get_mask,
    is_named,
    masked_layers,
    masks_of,
    original,
    select,
    weight_layers,
)
from topospike.topology.masks import (
    check_masks,
    copy_masks,
    enforce,
    pack_bits,
    register_mask,
    set_mask,
    unpack_bits,
)
from topospike.topology.ranking import best, draw, magnitude, mest_importance, relative_importance
from topospike.topology.schedules import DENSITY_SCHEDULES, ZETA_SCHEDULES, sparsity_at, zeta_at
from topospike.topology.series import TopologySeries, saved_series, series_path
from topospike.topology.weight_init import WEIGHT_INITS, init_weights

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
    "copy_masks",
    "csti_mask",
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
