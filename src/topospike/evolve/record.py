"""Stage 2 (evolve): the record of a topology update, read off the masks it left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from topospike.contracts import LayerChange, TopologyUpdate
from topospike.evolve.activity import active_hidden_neurons, active_neurons
from topospike.evolve.connections import Connection
from topospike.evolve.plan import LayerPlan


def record_of(
    changes: Mapping[str, LayerChange],
    *,
    masks: Mapping[str, Tensor],
    layers: Mapping[str, LayerPlan],
    chains: Sequence[Sequence[str] | Connection],
    ever_active: Mapping[str, Tensor],
    update_index: int,
    epoch: int,
) -> TopologyUpdate:
    """Build the record of an update from its changes and the masks as they are after it."""
    size = sum(plan.size for plan in layers.values())
    hidden = {name: mask for name, mask in masks.items() if not layers[name].is_classifier}
    return TopologyUpdate(
        update_index=update_index,
        epoch=epoch,
        layers=dict(changes),
        sparsity=1.0 - sum(int(mask.sum()) for mask in masks.values()) / size,
        anp=active_neurons(list(masks.values())),
        anp_hidden=active_hidden_neurons(hidden, chains),
        itop_rate=sum(int(seen.sum()) for seen in ever_active.values()) / size,
    )


def unchanged(mask: Tensor) -> LayerChange:
    """Return the record of a layer that nothing happened to."""
    links = int(mask.sum())
    return LayerChange(
        active_before=links,
        removed=0,
        percolated=0,
        grown=0,
        active_after=links,
        target=links,
        shortfall=0,
        overlap=0.0,
    )
