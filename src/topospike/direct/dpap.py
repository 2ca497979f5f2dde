"""Stage direct: DPAP, pruning by developmental plasticity (Han et al. 2022), as released.

After every epoch e >= 5 each filter, hidden neuron and hidden linear synapse gets a supply D from
its importance x, added to a survival value V that starts at 10; below 0 it is removed for good:

    u = clip((x - min x) / (P75(x) - min x), 0, 1)
    D = 2 u - bias, plus bonus where positive
    V <- 0.999 V + D exp(-floor((e - 5) / H))

    filters            x = importance of the neuron            bias 0.65  bonus 5  H 12
    linear neurons     the same                                bias 1.5   bonus 2  H 13
    linear synapses    x = G, the plasticity of the synapse    bias 1.5   bonus 2  H 13

The gain falls quickly, so everything that is removed goes between epochs 11 and about 90. The
classifier is never pruned.

Importance and G come from traces of spikes and the local plasticity they drive (BCM). Per
minibatch, of every layer's output a[t] (images, spikes, pooled spikes):

    z[t] = z[t-1] / 2 + a[t],   R = z[T] / T, summed over the positions of a map

and of a layer with output trace R_q, input trace R_p and n batches so far:

    G += (R_q (R_q - Theta))^T R_p;  Theta <- (Theta (n-1) + R_q) / n;  A += sum of R_q over images

Nothing is ever reset. Theta keeps one value for each place in the batch, as released: with shuffled
images all places have the same mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topospike.direct.network import SpikingModel
from topospike.direct.rule import (
    MADE_FOR_EPOCHS,
    StructureRule,
    percentile,
    published_epochs,
)
from topospike.errors import ShapeError

INITIAL_SURVIVAL = 10.0
FADING = 0.999
FIRST_EPOCH = 5


@dataclass(frozen=True, slots=True)
class Supply:
    """How the importance of one kind of element becomes its supply.

    ``horizon`` is in epochs of a run of 600.
    """

    bias: float
    bonus: float
    horizon: float


FILTERS = Supply(bias=0.65, bonus=5.0, horizon=12.0)
LINEAR = Supply(bias=1.5, bonus=2.0, horizon=13.0)


def robust_scale(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"] | None:
    """Scale so that the minimum is 0 and the 75th percentile and all above it 1.

    ``None`` if minimum and percentile are the same: nothing can be told apart.

    Examples
    --------
    >>> robust_scale(torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0]))
    tensor([0.0000, 0.3333, 0.6667, 1.0000, 1.0000])
    """
    low = x.min()
    span = percentile(x, 75.0).to(x.dtype) - low
    return None if bool(span == 0) else ((x - low) / span).clamp_(0, 1)


def updated_survival(
    survival: Float[Tensor, "*shape"],
    importance: Float[Tensor, "*shape"],
    supply: Supply,
    *,
    epoch: int,
    guard_constant: bool = True,
) -> Float[Tensor, "*shape"]:
    """Return the survival values after an epoch.

    Parameters
    ----------
    survival
        Before it, same shape as ``importance``.
    importance
        Any non-negative or signed numbers; only their order and spread matter.
    supply
        Bias, bonus and horizon.
    epoch
        Counted from 0 in a run of 600, at least 5.
    guard_constant
        Leave the values alone when no importance stands out. As released (``False``) all count as
        0.5, which prunes a whole linear layer in the end.

    Examples
    --------
    A filter of no importance is gone after epoch 24.

    >>> importance, survival, epoch = torch.tensor([0.0, 1.0, 1.0, 1.0]), torch.full((4,), 10.0), 4
    >>> while survival[0] >= 0:
    ...     epoch += 1
    ...     survival = updated_survival(survival, importance, FILTERS, epoch=epoch)
    >>> epoch
    25
    """
    scaled = robust_scale(importance)
    if scaled is None:
        if guard_constant:
            return survival
        scaled = torch.full_like(importance, 0.5)
    change = 2 * scaled - supply.bias
    change = torch.where(change > 0, change + supply.bonus, change)
    gain = math.exp(-math.floor((epoch - FIRST_EPOCH) / supply.horizon))
    return FADING * survival + change * gain


class Dpap(StructureRule):
    """DPAP as a controller of training.

    Parameters
    ----------
    model
        Spiking model; convolutions and hidden linear layers with neurons behind them are pruned.
    epochs
        Length of the run; read only with ``scale_epochs``.
    scale_epochs
        Scale the schedule to the length of the run.
    guard_constant, mask_every_step
        See `updated_survival` and `topospike.direct.rule`.

    Notes
    -----
    Statistics are taken in training mode only, at the end of each forward pass, that is before
    the optimizer step of the same batch. The public code is followed where it differs from what
    one would expect; docs/deviations.md lists it.
    """

    name = "dpap"

    def __init__(
        self,
        model: SpikingModel,
        *,
        epochs: int = MADE_FOR_EPOCHS,
        scale_epochs: bool = False,
        guard_constant: bool = True,
        mask_every_step: bool = False,
    ) -> None:
        layers = [name for name in model.hidden_layers if name in model.feeding]
        super().__init__(model, layers, mask_every_step=mask_every_step)
        self.scale = epochs / MADE_FOR_EPOCHS if scale_epochs else 1.0
        self.planned_epochs = epochs if scale_epochs else None
        self.guard_constant = guard_constant
        self.plasticity = {layer: Plasticity() for layer in self.layers}
        self.neuron_survival: dict[str, Tensor] = {}
        self.synapse_survival: dict[str, Tensor] = {}
        self.pre = {name: Trace(channels_first=self.is_conv(name)) for name in self.layers}
        self.post = {name: Trace(channels_first=self.is_conv(name)) for name in self.layers}
        self._watch()

    def _watch(self) -> None:
        for layer in self.layers:
            neuron = self.model.neurons[self.model.feeding[layer]]
            self.model.get_submodule(layer).register_forward_pre_hook(self._pre_hook(layer))
            neuron.register_forward_hook(self._post_hook(layer))
        self.model.register_forward_pre_hook(lambda *_: self._begin())
        self.model.register_forward_hook(lambda *_: self._end())

    def _pre_hook(self, layer: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            if module.training:
                self.pre[layer].add(inputs[0])

        return hook

    def _post_hook(self, layer: str) -> Any:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if module.training:
                self.post[layer].add(output)

        return hook

    def _begin(self) -> None:
        for trace in (*self.pre.values(), *self.post.values()):
            trace.clear()

    def _end(self) -> None:
        if not self.model.training:
            return
        for layer, plasticity in self.plasticity.items():
            plasticity.add(self.post[layer].rate(), self.pre[layer].rate(), layer=layer)

    def decide(self, epoch: int) -> Mapping[str, Tensor]:
        """Return the masks after an epoch: what was there, less what does not survive."""
        masks = {layer: self.mask(layer).clone() for layer in self.layers}
        published = [e for e in published_epochs(epoch, self.scale) if e >= FIRST_EPOCH]
        if not published:
            return masks
        for layer, mask in masks.items():
            gathered = self.plasticity[layer]
            if gathered.strength is None or gathered.activity is None:
                continue
            neurons = neuron_importance(gathered.strength, gathered.activity)
            if not self.is_conv(layer):
                kept = self._survive(
                    self.synapse_survival, layer, gathered.strength, LINEAR, published
                )
                mask &= kept
            supply = FILTERS if self.is_conv(layer) else LINEAR
            alive = self._survive(self.neuron_survival, layer, neurons, supply, published)
            mask &= alive.view(-1, *[1] * (mask.ndim - 1))
        return masks

    def _survive(
        self,
        survival: dict[str, Tensor],
        layer: str,
        importance: Tensor,
        supply: Supply,
        epochs: list[int],
    ) -> Tensor:
        """Update survival values in place, and tell which never fell below 0."""
        value = survival.get(layer, torch.full_like(importance, INITIAL_SURVIVAL))
        value = value.to(importance.device)
        survives = torch.ones_like(importance, dtype=torch.bool)
        for epoch in epochs:
            value = updated_survival(
                value, importance, supply, epoch=epoch, guard_constant=self.guard_constant
            )
            survives &= value >= 0
        survival[layer] = value
        return survives

    def own_state(self) -> dict[str, Any]:
        """Return plasticity and survival values."""
        return {
            "scale": self.scale,
            "plasticity": {name: entry.state() for name, entry in self.plasticity.items()},
            "neuron_survival": dict(self.neuron_survival),
            "synapse_survival": dict(self.synapse_survival),
        }

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `own_state` returned."""
        device = self.weight(self.layers[0]).device
        self.scale = float(state["scale"])
        self.plasticity = {
            name: Plasticity.from_state(entry, device)
            for name, entry in state["plasticity"].items()
        }
        for own in ("neuron_survival", "synapse_survival"):
            setattr(self, own, {name: value.to(device) for name, value in state[own].items()})


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
