"""Stage 2 (evolve): the arithmetic of one topology update, on masks alone.

Order: links lost to falling density -> removal of the share zeta -> percolation -> regrowth up to
the exact target. Candidates of growth are all absent links, those removed a moment ago included,
except what a rule whose percolation is permanent has barred. The functions take weights, masks and
seeds and return new masks; weights and optimizer slots are the controller's. A layer that is fixed
(its weight does not train) comes out as it went in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from topospike.contracts import LayerChange
from topospike.errors import NonFiniteError, ShapeError, TopologyViolation
from topospike.evolve.couplings import Relation
from topospike.evolve.percolation import percolate_network
from topospike.evolve.plan import LayerPlan
from topospike.evolve.rules import GrowthInput, RemovalCriterion, RemovalInput, derived_generator
from topospike.evolve.settings import Evolution
from topospike.topology import best, draw, share_count


@dataclass(frozen=True, slots=True)
class LayerState:
    """A layer as the update finds it; its position in the plan fixes its random draws.

    ``barred`` are positions where no link may grow, ``None`` for none.
    """

    plan: LayerPlan
    position: int
    weight: Tensor
    mask: Tensor
    gradient: Tensor | None
    barred: Tensor | None = None

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.plan.name

    @property
    def is_fixed(self) -> bool:
        """Whether its weight does not train, and neither do its links."""
        return not self.plan.layer.trains


@dataclass(frozen=True, slots=True)
class Moment:
    """Which update it is: after which epoch, the how many-th, and whether links are replaced.

    Replacing ends with early stop; density falls on.
    """

    epoch: int
    index: int
    replaces: bool = True


@dataclass(frozen=True, slots=True)
class LayerOutcome:
    """New links of a layer: ``kept`` were there before and stay, ``mask`` is ``kept`` + grown.

    ``barred`` is where no link may grow from now on.
    """

    kept: Tensor
    mask: Tensor
    change: LayerChange
    barred: Tensor | None = None


def evolve_masks(
    layers: Sequence[LayerState],
    relations: Sequence[Relation],
    evolution: Evolution,
    moment: Moment,
) -> dict[str, LayerOutcome]:
    """Compute the new links of all layers; nothing is changed in place.

    Parameters
    ----------
    layers
        All layers that take part, in plan order.
    relations
        Which layers feed or multiply which, for percolation; other layers do not percolate.
    evolution, moment
        Rule, criteria, seeds and time.

    Raises
    ------
    NonFiniteError
        If a weight or a recorded gradient is NaN or infinite; names the layer.
    """
    for layer in layers:
        check_state(layer)
    removed = {
        layer.name: layer.mask if layer.is_fixed else remove(layer, evolution, moment)
        for layer in layers
    }
    kept = percolate_network(removed, relations)
    return {
        layer.name: unchanged(layer.mask)
        if layer.is_fixed
        else regrow(layer, removed[layer.name], kept[layer.name], evolution, moment)
        for layer in layers
    }


def check_state(layer: LayerState) -> None:
    """Refuse to rank NaN (the links it would choose mean nothing), and weights without a link."""
    for what, tensor in (("weight", layer.weight), ("gradient", layer.gradient)):
        if tensor is not None and not bool(tensor.isfinite().all()):
            raise NonFiniteError(
                f"the {what} of layer {layer.name!r} holds NaN or infinity; links cannot be "
                "ranked. Go back to the last good checkpoint and lower the learning rate."
            )
    if bool(((layer.weight != 0) & ~layer.mask).any()):
        raise TopologyViolation(
            f"weights of layer {layer.name!r} without a link have moved, so something has changed "
            "them besides the steps of the attached optimizer. Call attach(optimizer); of a "
            "wrapper that steps by itself (two-step SAM) attach the base optimizer, and call "
            "mask_gradients() before each of its inner steps."
        )


def remove(layer: LayerState, evolution: Evolution, moment: Moment) -> Tensor:
    """Return the links that survive falling density and removal."""
    decay, replacement = evolution.rule.criteria(str(evolution.settings.removal))
    mask, links = layer.mask, int(layer.mask.count_nonzero())
    target = evolution.links(layer.plan, moment.epoch)
    if decay is not None and links > target:
        mask, links = keep(layer, mask, target, decay, evolution, moment, "decay"), target
    zeta = evolution.zeta(moment.epoch) if moment.replaces else 0.0
    replaced = share_count(links, zeta)
    if replacement is None or replaced == 0:
        return mask
    return keep(layer, mask, links - replaced, replacement, evolution, moment, "removal")


def keep(
    layer: LayerState,
    mask: Tensor,
    count: int,
    criterion: RemovalCriterion,
    evolution: Evolution,
    moment: Moment,
    purpose: str,
) -> Tensor:
    """Keep ``count`` links by rank, or draw them if the criterion is soft."""
    # Relative importance is relative to the links that are there.
    weight = layer.weight * mask
    groups = layer.plan.layer.groups
    scores = criterion.score(RemovalInput(layer.name, weight, groups, layer.gradient))
    if not criterion.soft:
        return best(scores, mask, count)
    generator = derived_generator(evolution.seed, moment.index, layer.position, purpose)
    return draw(scores, mask, count, exponent=evolution.exponent(moment.epoch), generator=generator)


def regrow(
    layer: LayerState, removed: Tensor, kept: Tensor, evolution: Evolution, moment: Moment
) -> LayerOutcome:
    """Grow links up to the target and describe what happened to the layer."""
    if evolution.rule.permanent:
        percolated = removed & ~kept
        barred = percolated if layer.barred is None else layer.barred | percolated
        layer = replace(layer, barred=barred)
    target = evolution.links(layer.plan, moment.epoch)
    count = target - int(kept.count_nonzero()) if evolution.rule.replaces else 0
    grown, score_share = grow(layer, kept, max(count, 0), evolution, moment)
    mask = kept | grown
    before, left, after = (int(links.count_nonzero()) for links in (layer.mask, removed, mask))
    n_kept, n_grown = int(kept.count_nonzero()), int(grown.count_nonzero())
    change = LayerChange(
        active_before=before,
        removed=before - left,
        percolated=left - n_kept,
        grown=n_grown,
        active_after=after,
        target=target,
        shortfall=target - after,
        overlap=int((grown & layer.mask).count_nonzero()) / n_grown if n_grown else 0.0,
        score_nonzero=score_share,
    )
    return LayerOutcome(kept=kept, mask=mask, change=change, barred=layer.barred)


def grow(
    layer: LayerState, kept: Tensor, count: int, evolution: Evolution, moment: Moment
) -> tuple[Tensor, float | None]:
    """Return the grown links and the share of absent links with a positive score.

    Where fewer absent links have a positive score than are needed, the rest is uniform among those
    of score zero.
    """
    generator = derived_generator(evolution.seed, moment.index, layer.position, "regrowth")
    candidates = ~kept if layer.barred is None else ~(kept | layer.barred)
    absent = int(candidates.count_nonzero())
    if evolution.rule.growth is None or count == 0 or absent == 0:
        nothing = torch.zeros_like(kept, dtype=torch.float32)
        return draw(nothing, candidates, count, generator=generator), None
    scores = evolution.rule.growth(
        GrowthInput(
            layer=layer.name,
            mask=kept,
            rule=layer.plan.score,
            unfold=evolution.settings.conv_unfold,
            groups=layer.plan.layer.groups,
            gradient=layer.gradient,
        )
    )
    if scores.shape != kept.shape:
        raise ShapeError(
            f"the growth scores of layer {layer.name!r} have shape {tuple(scores.shape)}, its mask "
            f"{tuple(kept.shape)}; one score a position is required."
        )
    positive = int(((scores > 0) & candidates).count_nonzero())
    if evolution.rule.choice == "drawn":
        grown = draw(scores, candidates, count, generator=generator)
    else:
        grown = best(scores, candidates, count, generator=generator)
    return grown, positive / absent


def unchanged(mask: Tensor) -> LayerOutcome:
    """Return the outcome for a layer that nothing happened to."""
    links = int(mask.count_nonzero())
    change = LayerChange(
        active_before=links,
        removed=0,
        percolated=0,
        grown=0,
        active_after=links,
        target=links,
        shortfall=0,
        overlap=0.0,
    )
    return LayerOutcome(kept=mask, mask=mask, change=change)
