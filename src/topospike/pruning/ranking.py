"""Stage prune: rank the links of one layer, take the last of them, and adjust the rest.

Everything a method does to a layer happens here, from the statistics of its inputs; how these are
collected is the business of `topospike.pruning.unstructured`.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from topospike.errors import ConfigError
from topospike.pruning.layers import PruningTarget, as_matrices
from topospike.pruning.methods import Method
from topospike.pruning.moments import InputMoments
from topospike.pruning.reconstruction import output_error, reconstruct
from topospike.pruning.report import LayerPruning
from topospike.pruning.selection import keep_largest


@dataclass(frozen=True, slots=True)
class RankingSettings:
    """How weights are ranked and adjusted; see `topospike.pruning.prune`."""

    method: Method
    comparison: str
    exponent: float
    block: int
    damping: float
    fuse_qkv: bool
    precision: torch.dtype
    measure_errors: bool

    @property
    def needs_products(self) -> bool:
        """Whether the whole second moment of the inputs is wanted, not only norms."""
        return self.method.reconstructs or self.measure_errors


@dataclass(frozen=True, slots=True)
class PrunedLayer:
    """The new weight and mask of one layer, in the weight's shape, and the record of it."""

    weight: Tensor
    mask: Tensor
    record: LayerPruning


def prune_together(
    targets: Sequence[PruningTarget],
    weights: Sequence[Tensor],
    moments: InputMoments | None,
    settings: RankingSettings,
) -> dict[str, PrunedLayer]:
    """Rank the rows of layers with one input as if they were one layer; adjust, and take apart."""
    started = time.perf_counter()
    groups, sparsity = targets[0].groups, targets[0].sparsity
    parts = [as_matrices(weight.to(settings.precision), groups) for weight in weights]
    stacked = torch.cat(parts, dim=1)
    mask, after = pruned_matrices(stacked, moments, sparsity, settings, layer=targets[0].name)
    rows = [part.shape[1] for part in parts]
    seconds = (time.perf_counter() - started) / len(targets)
    pieces = zip(targets, weights, parts, mask.split(rows, 1), after.split(rows, 1), strict=True)
    result: dict[str, PrunedLayer] = {}
    for target, weight, before, keep, adjusted in pieces:
        masked = before.masked_fill(~keep, 0.0)
        record = LayerPruning(
            name=target.name,
            kind=target.kind,
            shape=tuple(weight.shape),
            links=int(keep.sum()),
            possible=keep.numel(),
            error_before=error_of(masked, before, moments),
            error_after=error_of(adjusted, before, moments),
            seconds=seconds,
        )
        new = adjusted.reshape(weight.shape).to(weight.dtype)
        result[target.name] = PrunedLayer(new, keep.reshape(weight.shape), record)
    return result


def pruned_matrices(
    weight: Tensor,
    moments: InputMoments | None,
    sparsity: float,
    settings: RankingSettings,
    *,
    layer: str,
) -> tuple[Tensor, Tensor]:
    """Return the mask of one layer and its weights under it."""
    method = settings.method
    mask = None
    if method.score is not None:
        norms = weight.new_ones(()) if moments is None else moments.norms
        scores = method.score(weight, norms, settings.exponent)
        mask = keep_largest(scores, sparsity, comparison=settings.comparison)  # pyright: ignore[reportArgumentType]
    if mask is not None and (moments is None or not method.reconstructs):
        return mask, weight.masked_fill(~mask, 0.0)
    if moments is None:
        raise ConfigError(f"method {method.name!r} needs calibration images; pass calibration.")
    done = reconstruct(
        weight,
        moments.values,
        mask=mask,
        sparsity=sparsity if mask is None else None,
        block=settings.block,
        damping=settings.damping,
        layer=layer,
    )
    if done.damping > settings.damping:
        warnings.warn(
            f"{layer}: the inputs' second moment could be inverted only with damping "
            f"{done.damping:g} instead of {settings.damping:g}.",
            stacklevel=2,
        )
    return done.mask, done.weight


def error_of(weight: Tensor, dense: Tensor, moments: InputMoments | None) -> float | None:
    """Return the relative output error of new weights, if the inputs are known well enough."""
    if moments is None or not moments.products:
        return None
    return output_error(weight - dense, dense, moments.values)
