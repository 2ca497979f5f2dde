"""Stage prune: the pruning methods by name, and what each needs to know.

A method is a score and two switches. A method of your own is one more `Method` record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from topospike.pruning.scores import (
    magnitude,
    relative_importance,
    relative_importance_and_activations,
    wanda,
)
from topospike.pruning.selection import Comparison
from topospike.registry import Registry

Score = Callable[[Tensor, Tensor, float], Tensor]


@dataclass(frozen=True, slots=True)
class Method:
    """How weights are ranked, and whether the rest are adjusted.

    Attributes
    ----------
    name
        As users write it.
    comparison
        Within what weights are ranked unless the user says otherwise: ``row``, ``layer``;
        ``block`` (of columns) and ``group`` (of coupled channels) cannot be changed.
    score
        Function of (matrices, input norms, exponent); ``None``: ranked while reconstructing, or
        by channel.
    needs_inputs
        Whether calibration images are required.
    reconstructs
        Whether remaining weights are adjusted.
    """

    name: str
    comparison: Comparison | Literal["block", "group"]
    score: Score | None
    needs_inputs: bool
    reconstructs: bool


def by_magnitude(weight: Tensor, norms: Tensor, exponent: float) -> Tensor:
    """Score of ``magnitude``; inputs play no part."""
    return magnitude(weight)


def by_relative_importance(weight: Tensor, norms: Tensor, exponent: float) -> Tensor:
    """Score of ``ri``; inputs play no part."""
    return relative_importance(weight)


def by_wanda(weight: Tensor, norms: Tensor, exponent: float) -> Tensor:
    """Score of ``wanda``."""
    return wanda(weight, norms)


def by_ria(weight: Tensor, norms: Tensor, exponent: float) -> Tensor:
    """Score of ``ria``."""
    return relative_importance_and_activations(weight, norms, exponent=exponent)


PRUNING_METHODS: Registry[Method] = Registry(
    "pruning method",
    {
        method.name: method
        for method in (
            Method("magnitude", "layer", by_magnitude, False, False),
            Method("ri", "layer", by_relative_importance, False, False),
            Method("ria", "layer", by_ria, True, False),
            Method("ria-rec", "layer", by_ria, True, True),
            Method("wanda", "row", by_wanda, True, False),
            Method("wanda-rec", "row", by_wanda, True, True),
            Method("sparsegpt", "block", None, True, True),
            Method("depgraph", "group", None, True, False),
        )
    },
)
