"""Stage direct: the range every weight may move in, as SD-SNN adapts it (Han et al. 2022).

A weight starts with the range [-W, W], W the largest (signed) weight of its layer after the first
epoch. Three conditions are watched, each must hold for a number of epochs in a row (the patience
K; the first firing takes K + 1), and starts from nothing afterwards:

    over       w >= upper     then  upper += mean of (w - upper) over those epochs
    under      w <= lower     then  lower += mean of (w - lower)
    shrinking  |w| < |w| one epoch ago   then both times 0.75

All tensors; nothing here knows of masks or neurons.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

SHRINKAGE = 0.75


@dataclass
class Persistence:
    """Counts, element by element, for how many epochs in a row a condition has held."""

    held: Bool[Tensor, "*shape"]
    epochs: Shaped[Tensor, "*shape"]
    total: Float[Tensor, "*shape"] | None = None

    @classmethod
    def start(cls, like: Tensor, *, summing: bool = False) -> Persistence:
        """Return counts of zero; with ``summing`` an amount is added up as well."""
        return cls(
            held=torch.zeros_like(like, dtype=torch.bool),
            epochs=torch.zeros_like(like, dtype=torch.int16),
            total=torch.zeros_like(like) if summing else None,
        )

    def follow(self, condition: Bool[Tensor, "*shape"], amount: Tensor | None = None) -> None:
        """Take up one epoch: count on where the condition held before too, else start again."""
        running = condition & self.held
        self.epochs.add_(1).mul_(running)
        if self.total is not None and amount is not None:
            self.total.add_(amount).mul_(running)
        self.held = condition

    def fire(self, epochs: int) -> Bool[Tensor, "*shape"]:
        """Tell where the count has reached ``epochs``; `restart` there afterwards."""
        return self.epochs >= epochs

    def restart(self, fired: Bool[Tensor, "*shape"]) -> None:
        """Count from zero again where the condition fired."""
        self.epochs.masked_fill_(fired, 0)
        if self.total is not None:
            self.total.masked_fill_(fired, 0)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors."""
        return {
            "held": self.held,
            "epochs": self.epochs,
            **({} if self.total is None else {"total": self.total}),
        }

    @classmethod
    def from_state(cls, state: dict[str, Tensor], device: torch.device) -> Persistence:
        """Undo `state`."""
        return cls(**{name: value.to(device) for name, value in state.items()})


class SpineRanges:
    """The ranges of one layer's weights.

    Parameters
    ----------
    weight
        As it is after the first epoch.

    Examples
    --------
    A weight that leaves its range for three epochs takes the upper end along, with patience 2.

    >>> ranges = SpineRanges(torch.tensor([1.0, 0.5]))
    >>> for _ in range(3):
    ...     ranges.follow(torch.tensor([1.5, 0.5]), patience=2)
    >>> ranges.upper
    tensor([1.5000, 1.0000])
    """

    def __init__(self, weight: Float[Tensor, "*shape"]) -> None:
        widest = float(weight.max())
        self.upper = torch.full_like(weight, widest)
        self.lower = torch.full_like(weight, -widest)
        self.previous = weight.abs()
        self.over = Persistence.start(weight, summing=True)
        self.under = Persistence.start(weight, summing=True)
        self.shrinking = Persistence.start(weight)

    def follow(self, weight: Float[Tensor, "*shape"], *, patience: int) -> None:
        """Take up the weights at the end of an epoch, zero where there is no link."""
        for ends, persistence, outside in (
            (self.upper, self.over, weight >= self.upper),
            (self.lower, self.under, weight <= self.lower),
        ):
            persistence.follow(outside, weight - ends)
            fired = persistence.fire(patience)
            if persistence.total is not None:
                ends.add_(torch.where(fired, persistence.total / patience, 0.0))
            persistence.restart(fired)
        size = weight.abs()
        self.shrinking.follow(size < self.previous)
        fired = self.shrinking.fire(patience)
        for ends in (self.upper, self.lower):
            ends.mul_(torch.where(fired, SHRINKAGE, 1.0).to(ends.dtype))
        self.shrinking.restart(fired)
        self.previous = size

    def clip(self, weight: Tensor) -> None:
        """Bring weights into their ranges, in place; a range that is upside down gives its top."""
        torch.minimum(torch.maximum(weight, self.lower, out=weight), self.upper, out=weight)

    @property
    def sizes(self) -> Float[Tensor, "*shape"]:
        """Return the length of every range, ``upper + |lower|``."""
        return self.upper + self.lower.abs()

    def state(self) -> dict[str, Any]:
        """Return the tensors."""
        return {
            "upper": self.upper,
            "lower": self.lower,
            "previous": self.previous,
            "over": self.over.state(),
            "under": self.under.state(),
            "shrinking": self.shrinking.state(),
        }

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> SpineRanges:
        """Undo `state`."""
        ranges = cls(state["previous"].to(device))
        for name in ("upper", "lower", "previous"):
            setattr(ranges, name, state[name].to(device))
        for name in ("over", "under", "shrinking"):
            setattr(ranges, name, Persistence.from_state(state[name], device))
        return ranges
