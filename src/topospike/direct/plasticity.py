"""Stage direct: traces of spikes, and the local plasticity they drive (BCM), for DPAP.

Per minibatch, of every layer's output a[t] (images, spikes, pooled spikes):

    z[t] = z[t-1] / 2 + a[t],   R = z[T] / T, summed over the positions of a map

and of a layer with output trace R_q, input trace R_p and n batches so far:

    G += (R_q (R_q - Theta))^T R_p;  Theta <- (Theta (n-1) + R_q) / n;  A += sum of R_q over images

Nothing is ever reset. Theta keeps one value for each place in the batch, as released: with shuffled
images all places have the same mean.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.errors import ShapeError

DECAY = 0.5


def summed_over_positions(a: Float[Tensor, "batch ..."], *, channels_first: bool) -> Tensor:
    """Return (batch, channels): sums over the positions of maps, vectors as they are."""
    if a.ndim == 2:
        return a
    return a.flatten(2).sum(2) if channels_first else a.flatten(1, -2).sum(1)


class Trace:
    """The decaying sum of one signal over the steps of a batch.

    Positions are summed first, which changes nothing: both are sums.

    Examples
    --------
    >>> trace = Trace(channels_first=True)
    >>> for a in (1.0, 0.0, 1.0):
    ...     trace.add(torch.tensor([[a]]))
    >>> trace.value, trace.rate()
    (tensor([[1.2500]]), tensor([[0.4167]]))
    """

    def __init__(self, *, channels_first: bool) -> None:
        self.channels_first = channels_first
        self.clear()

    def clear(self) -> None:
        """Forget the batch."""
        self.value: Tensor | None = None
        self.steps = 0

    def add(self, a: Float[Tensor, "batch ..."]) -> None:
        """Take up the signal of one step."""
        summed = summed_over_positions(a.detach(), channels_first=self.channels_first)
        self.value = summed.clone() if self.value is None else self.value.mul_(DECAY).add_(summed)
        self.steps += 1

    def rate(self) -> Float[Tensor, "batch chan"]:
        """Return R of the batch."""
        if self.value is None:
            raise ShapeError("no step was recorded: the layer did not run in this forward pass.")
        return self.value / self.steps


@dataclass
class Plasticity:
    """What one layer has accumulated: G (out, in), Theta (batch, out), A (out), and n."""

    strength: Tensor | None = None
    threshold: Tensor | None = None
    activity: Tensor | None = None
    batches: int = field(default=0)

    @torch.no_grad()
    def add(
        self, post: Float[Tensor, "batch n_out"], pre: Float[Tensor, "batch n_in"], *, layer: str
    ) -> None:
        """Take up one minibatch.

        Raises
        ------
        ShapeError
            If the batch has another size than the first; names the layer.
        """
        if self.threshold is None or self.strength is None or self.activity is None:
            self.threshold = torch.zeros_like(post)
            self.strength = post.new_zeros(post.shape[1], pre.shape[1])
            self.activity = post.new_zeros(post.shape[1])
        if self.threshold.shape != post.shape:
            raise ShapeError(
                f"layer {layer!r}: a batch gave traces of shape {tuple(post.shape)}, the first one "
                f"{tuple(self.threshold.shape)}; all must have the same. Train on whole batches "
                "(topospike.direct.WholeBatches)."
            )
        self.batches += 1
        self.strength.addmm_((post * (post - self.threshold)).T, pre)
        self.threshold.mul_(self.batches - 1).add_(post).div_(self.batches)
        self.activity.add_(post.sum(0))

    def state(self) -> dict[str, Any]:
        """Return the numbers and tensors; tensors not made yet are left out."""
        named = {
            "strength": self.strength,
            "threshold": self.threshold,
            "activity": self.activity,
        }
        return {"batches": self.batches, **{k: v for k, v in named.items() if v is not None}}

    @classmethod
    def from_state(cls, state: dict[str, Any], device: torch.device) -> Plasticity:
        """Undo `state`."""
        tensors = {k: v.to(device) for k, v in state.items() if k != "batches"}
        return cls(batches=int(state["batches"]), **tensors)


def min_max(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Scale to [0, 1]; 0.5 everywhere if all values are the same.

    Examples
    --------
    >>> min_max(torch.tensor([1.0, 3.0, 2.0]))
    tensor([0.0000, 1.0000, 0.5000])
    """
    low, high = x.min(), x.max()
    return torch.full_like(x, 0.5) if bool(low == high) else (x - low) / (high - low)


def neuron_importance(
    strength: Float[Tensor, "n_out n_in"], activity: Float[Tensor, " n_out"]
) -> Float[Tensor, " n_out"]:
    """Return the importance of a layer's neurons: plasticity times activity, each scaled."""
    return min_max(strength.sum(1)) * min_max(activity)
