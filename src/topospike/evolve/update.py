"""Stage 2 (evolve): the arithmetic of one topology update, on masks alone.

Order: links lost to falling density -> removal of the share zeta -> percolation -> regrowth up to
the exact target. The functions take weights, masks and seeds and return new masks;
weights, optimizer slots and records are the controller's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from topospike.contracts import LayerChange
from topospike.errors import NonFiniteError
from topospike.evolve.connections import Connection
from topospike.evolve.percolation import percolate_network
from topospike.evolve.regrowth import grow_best, grow_drawn, grow_uniform
from topospike.evolve.removal import (
    REMOVAL_CRITERIA,
    RemovalCriterion,
    keep_best,
    keep_drawn,
    removal_count,
)
from topospike.evolve.rules import GrowthInput, Rule, derived_generator
from topospike.topology import share_count


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer as the update finds it.

    ``zeta`` is the share of its links to replace (of all positions, for a rule with elastic
    mutation), ``target`` the number it shall leave with; ``position`` in the plan fixes its random
    draws.
    """

    name: str
    position: int
    weight: Tensor
    mask: Tensor
    gradient: Tensor | None
    groups: int
    score: str
    zeta: float
    target: int


@dataclass(frozen=True, slots=True)
class UpdateSettings:
    """What all layers share in one update.

    ``exponent`` is that of soft removal; ``seed`` and ``update_index`` are the rest of what fixes
    the random draws.
    """

    rule: Rule
    removal: str
    exponent: float
    unfold: str
    seed: int
    update_index: int


@dataclass(frozen=True, slots=True)
class LayerOutcome:
    """New links of a layer: ``kept`` were there before and stay, ``mask`` is ``kept`` + grown."""

    kept: Tensor
    mask: Tensor
    change: LayerChange


def evolve_masks(
    layers: Sequence[LayerState],
    relations: Sequence[Sequence[str] | Connection],
    settings: UpdateSettings,
) -> dict[str, LayerOutcome]:
    """Compute the new links of all layers; nothing is changed in place.

    Parameters
    ----------
    layers
        All layers that take part, in plan order.
    relations
        Which layers feed or multiply which, for percolation; other layers do not percolate.
    settings
        Rule, criteria and seeds.

    Raises
    ------
    NonFiniteError
        If a weight or a recorded gradient is NaN or infinite; names the layer.
    """
    for layer in layers:
        check_finite(layer)
    removed = {layer.name: remove(layer, settings) for layer in layers}
    kept = percolate_network(removed, relations)
    return {
        layer.name: regrow(layer, removed[layer.name], kept[layer.name], settings)
        for layer in layers
    }


def check_finite(layer: LayerState) -> None:
    """Refuse to rank NaN: the links it would choose mean nothing."""
    for what, tensor in (("weight", layer.weight), ("gradient", layer.gradient)):
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"the {what} of layer {layer.name!r} holds NaN or infinity; links cannot be "
                "ranked. Go back to the last good checkpoint and lower the learning rate."
            )


def remove(layer: LayerState, settings: UpdateSettings) -> Tensor:
    """Return the links that survive falling density and removal."""
    mask, links = layer.mask, int(layer.mask.count_nonzero())
    if links > layer.target:
        criterion = REMOVAL_CRITERIA[settings.rule.decay_removal]
        mask = keep_best(criterion.score(layer.weight, layer.gradient), mask, layer.target)
        links = layer.target
    if settings.rule.choice == "none":
        return mask
    if settings.rule.elastic:
        n_keep = layer.target - share_count(mask.numel(), layer.zeta)
    else:
        n_keep = links - removal_count(links, layer.zeta)
    if n_keep >= links:
        return mask
    return keep(layer, mask, n_keep, REMOVAL_CRITERIA[settings.removal], settings)


def keep(
    layer: LayerState,
    mask: Tensor,
    n_keep: int,
    criterion: RemovalCriterion,
    settings: UpdateSettings,
) -> Tensor:
    """Keep ``n_keep`` links by rank, or draw them if the criterion is soft."""
    # Relative importance is relative to the links that are there.
    scores = criterion.score(layer.weight * mask, layer.gradient)
    if not criterion.soft:
        return keep_best(scores, mask, n_keep)
    generator = derived_generator(settings.seed, settings.update_index, layer.position, "removal")
    return keep_drawn(scores, mask, n_keep, exponent=settings.exponent, generator=generator)


def regrow(
    layer: LayerState, removed: Tensor, kept: Tensor, settings: UpdateSettings
) -> LayerOutcome:
    """Grow links up to the target and describe what happened to the layer."""
    count = 0 if settings.rule.choice == "none" else layer.target - int(kept.count_nonzero())
    grown, score_share = grow(layer, kept, count, settings)
    mask = kept | grown
    before, after, n_grown = (
        int(layer.mask.count_nonzero()),
        int(mask.count_nonzero()),
        int(grown.count_nonzero()),
    )
    change = LayerChange(
        active_before=before,
        removed=before - int(removed.count_nonzero()),
        percolated=int(removed.count_nonzero()) - int(kept.count_nonzero()),
        grown=n_grown,
        active_after=after,
        target=layer.target,
        shortfall=layer.target - after,
        overlap=int((grown & layer.mask).count_nonzero()) / n_grown if n_grown else 0.0,
        score_nonzero=score_share,
    )
    return LayerOutcome(kept=kept, mask=mask, change=change)


def grow(
    layer: LayerState, kept: Tensor, count: int, settings: UpdateSettings
) -> tuple[Tensor, float | None]:
    """Return the grown links and the share of absent links with a positive score."""
    generator = derived_generator(settings.seed, settings.update_index, layer.position, "regrowth")
    absent = kept.numel() - int(kept.count_nonzero())
    if settings.rule.growth is None or count <= 0 or absent == 0:
        return grow_uniform(kept, max(count, 0), generator=generator), None
    scores = settings.rule.growth(
        GrowthInput(
            layer=layer.name,
            mask=kept,
            rule=layer.score,
            unfold=settings.unfold,
            groups=layer.groups,
            gradient=layer.gradient,
        )
    )
    positive = int(((scores > 0) & ~kept).count_nonzero())
    choose = grow_drawn if settings.rule.choice == "drawn" else grow_best
    return choose(scores, kept, count, generator=generator), positive / absent
