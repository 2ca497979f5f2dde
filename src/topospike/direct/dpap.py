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
classifier is never pruned. `topospike.direct.plasticity` has importance and G.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topospike.direct.network import SpikingModel
from topospike.direct.plasticity import Plasticity, Trace, neuron_importance
from topospike.direct.rule import (
    MADE_FOR_EPOCHS,
    StructureRule,
    percentile,
    published_epochs,
)

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
