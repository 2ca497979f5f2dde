"""Stage direct: SD-SNN, pruning and regeneration (Han et al. 2022), as released.

After epoch e, with patience K, in this order:

    e = 0        ranges start from the weights
    e >= 1       ranges follow the weights             `topospike.direct.spine_ranges`
    e > K        weights are brought into their ranges
    e > 2K       synapses grow again, then neurons are pruned, and masks are applied

Regrowth: a dead synapse (of a convolution: a dead kernel) whose score (the weight; the sum of the
kernel) lies above a rising percentile of its layer for more than K epochs in a row lives again.
Pruning: the n = floor(C pi / 100) neurons of least score, less those ever pruned, lose all their
links; the score adds up the scaled sizes of the ranges of a neuron's links. pi grows by what is
alive:

    filters   pi += exp(-(e - 2K - 1) / 5) (C - d) / (C' - d'),  the next layer's C', d' as they are
    linear    pi += beta (C - d) / 10,  beta = exp(-(e - 2K - 1)) / 2 up to epoch 60, then 0.0005

with d the neurons of fewer than 20 links (50 for the second rule). The classifier is left alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from topospike.direct.dpap import min_max
from topospike.direct.network import SpikingModel
from topospike.direct.rule import (
    MADE_FOR_EPOCHS,
    StructureRule,
    percentile,
    published_epochs,
)
from topospike.direct.spine_ranges import Persistence, SpineRanges
from topospike.errors import ConfigError
from topospike.registry import suggestion

CONV_START, LINEAR_START = 0.5, 2.0
CONV_LINKS, LINEAR_LINKS = 20, 50
SLOW_FROM = 60
SLOW_RATE = 0.0005
RANGE_LAYERS = ("all", "linear")


@dataclass(frozen=True, slots=True)
class Stages:
    """When the stages of the rule begin, and how fast the schedules run.

    Attributes
    ----------
    patience
        In epochs of the run.
    scale
        Length of the run in units of 600 epochs, 1 for the constants as published.
    slow_after
        Epochs of a run of 600, from the first pruning on, after which linear layers are pruned at
        the slow rate.
    """

    patience: int = 18
    scale: float = 1.0
    slow_after: int = 23

    @classmethod
    def of_run(cls, patience: int, epochs: int = MADE_FOR_EPOCHS) -> Stages:
        """Scale the stages to a run of this length."""
        scale = epochs / MADE_FOR_EPOCHS
        return cls(
            patience=max(1, round(patience * scale)),
            scale=scale,
            slow_after=SLOW_FROM - (2 * patience + 1),
        )

    @property
    def first_pruning(self) -> int:
        """The first epoch that prunes."""
        return 2 * self.patience + 1

    def since(self, epoch: int) -> float:
        """Return the epochs since the first pruning, in those of a run of 600."""
        return (epoch - self.first_pruning) / self.scale

    def published_since(self, epoch: int) -> range:
        """Return the same for every epoch of a run of 600 that this one stands for."""
        return published_epochs(epoch - self.first_pruning, self.scale)


def dead_neurons(mask: Bool[Tensor, " n_out *rest"], links: int) -> int:
    """Count the neurons with fewer than ``links`` incoming links (all of them, if fewer fit)."""
    rows = mask.flatten(1)
    return int((rows.sum(1) < min(links, rows.shape[1])).sum())


def grown_filter_rate(percent: float, *, since: float, alive: int, alive_next: int | None) -> float:
    """Return the next pruning percentage of a convolution; no next layer alive, no increase."""
    if not alive_next:
        return percent
    return percent + math.exp(-since / 5) * alive / alive_next


def grown_linear_rate(percent: float, *, since: float, is_slow: bool, alive: int) -> float:
    """Return the next pruning percentage of a hidden linear layer."""
    beta = SLOW_RATE if is_slow else 0.5 * math.exp(-since)
    return percent + beta * alive / 10


def pruned_rows(
    scores: Float[Tensor, " n_out"], ever_pruned: Bool[Tensor, " n_out"], percent: float
) -> Bool[Tensor, " n_out"]:
    """Tell which neurons go: among the lowest scores, those never pruned; ties by lowest index.

    Examples
    --------
    >>> never = torch.zeros(4, dtype=torch.bool)
    >>> pruned_rows(torch.tensor([3.0, 1.0, 1.0, 2.0]), never, 60.0)
    tensor([False,  True,  True, False])
    """
    count = math.floor(len(scores) * percent / 100)
    lowest = scores.sort(stable=True).indices[:count]
    chosen = torch.zeros_like(ever_pruned)
    chosen[lowest] = True
    return chosen & ~ever_pruned


def growth_level(since: float, *, is_conv: bool) -> float:
    """Return the percentile a dead synapse's score must exceed to grow again."""
    base = 65 if is_conv else 60
    return 99.0 if since > 50 else min(99.0, base + 1.1**since)


class SdSnnLayer:
    """One layer under the rule: ranges, candidates for regrowth, pruned neurons, percentage."""

    def __init__(self, mask: Bool[Tensor, " n_out *rest"], *, adapts: bool) -> None:
        self.is_conv = mask.ndim > 2
        self.adapts = adapts
        self.percent = CONV_START if self.is_conv else LINEAR_START
        self.ever_pruned = torch.zeros(mask.shape[0], dtype=torch.bool, device=mask.device)
        self.candidates = Persistence.start(self.dead_synapses(mask))
        self.ranges: SpineRanges | None = None
        self.widest = 0.0

    def dead_synapses(self, mask: Tensor) -> Tensor:
        """Tell which synapses are dead: weights, or whole kernels of a convolution."""
        return ~mask.flatten(2).any(2) if self.is_conv else ~mask

    def follow(self, weight: Tensor, mask: Tensor, epoch: int, stages: Stages) -> None:
        """Start or follow the ranges after an epoch, and bring the weights into them."""
        if epoch == 0:
            self.widest = float(weight.max())
            self.ranges = SpineRanges(weight) if self.adapts else None
        elif self.ranges is not None:
            self.ranges.follow(weight * mask, patience=stages.patience)
        if epoch <= stages.patience:
            return
        if self.ranges is None:
            torch.minimum(
                torch.maximum(weight, weight.new_tensor(-self.widest), out=weight),
                weight.new_tensor(self.widest),
                out=weight,
            )
        else:
            self.ranges.clip(weight)

    def regrown(self, weight: Tensor, mask: Tensor, epoch: int, stages: Stages) -> Tensor:
        """Return the mask with the synapses that live again."""
        scores = weight.flatten(2).sum(2) if self.is_conv else weight
        level = growth_level(stages.since(epoch), is_conv=self.is_conv)
        above = scores > percentile(scores, level).to(scores.device)
        self.candidates.follow(above & self.dead_synapses(mask))
        fired = self.candidates.fire(stages.patience + 1)
        self.candidates.restart(fired)
        return mask | fired.view(*fired.shape, *[1] * (mask.ndim - 2))

    def pruned(self, mask: Tensor) -> Tensor:
        """Return the mask without the neurons that are pruned now, and remember them."""
        if self.ranges is None:
            scores = 0.5 * mask.flatten(1).sum(1)
        else:
            scores = (min_max(self.ranges.sizes) * mask).flatten(1).sum(1)
        gone = pruned_rows(scores, self.ever_pruned, self.percent)
        self.ever_pruned |= gone
        return mask & ~gone.view(-1, *[1] * (mask.ndim - 1))

    def grow_percent(
        self,
        mask: Tensor,
        following: Tensor | None,
        epoch: int,
        stages: Stages,
        *,
        reference_width: int | None = None,
    ) -> None:
        """Raise the percentage after the layer's own pruning, before the next layer's.

        ``reference_width`` takes the place of the layer's number of neurons in the linear rule
        (512 in the released code, whatever the layer).
        """
        if self.is_conv:
            alive = len(mask) - dead_neurons(mask, CONV_LINKS)
            alive_next = None
            if following is not None:
                alive_next = len(following) - dead_neurons(following, CONV_LINKS)
            for since in stages.published_since(epoch):
                self.percent = grown_filter_rate(
                    self.percent, since=since, alive=alive, alive_next=alive_next
                )
            return
        width = len(mask) if reference_width is None else reference_width
        alive = width - dead_neurons(mask, LINEAR_LINKS)
        for since in stages.published_since(epoch):
            is_slow = since > stages.slow_after
            self.percent = grown_linear_rate(
                self.percent, since=since, is_slow=is_slow, alive=alive
            )

    def state(self) -> dict[str, Any]:
        """Return numbers and tensors."""
        return {
            "percent": self.percent,
            "widest": self.widest,
            "ever_pruned": self.ever_pruned,
            "candidates": self.candidates.state(),
            "ranges": None if self.ranges is None else self.ranges.state(),
        }

    def load(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Undo `state`."""
        self.percent = float(state["percent"])
        self.widest = float(state["widest"])
        self.ever_pruned = state["ever_pruned"].to(device)
        self.candidates = Persistence.from_state(state["candidates"], device)
        stored = state["ranges"]
        self.ranges = None if stored is None else SpineRanges.from_state(stored, device)


class SdSnn(StructureRule):
    """SD-SNN as a controller of training.

    Parameters
    ----------
    model
        Spiking model; convolutions and hidden linear layers are pruned.
    epochs
        Length of the run; read only with ``scale_epochs``.
    patience
        Epochs a condition must last, K.
    range_layers
        ``all``, or ``linear`` as released: then the ranges of convolutions never change, all
        filters tie, and the ones of lowest index go.
    regrow
        Whether synapses grow again.
    scale_epochs, mask_every_step
        Scale the schedule to the length of the run; see `topospike.direct.rule`.

    Notes
    -----
    With ``mask_every_step`` the weights of dead synapses stay 0, so few of them ever score high
    enough to grow again.
    """

    name = "sd-snn"

    def __init__(
        self,
        model: SpikingModel,
        *,
        epochs: int = MADE_FOR_EPOCHS,
        patience: int = 18,
        range_layers: str = "all",
        regrow: bool = True,
        scale_epochs: bool = False,
        mask_every_step: bool = False,
    ) -> None:
        if patience < 1:
            raise ConfigError(f"patience is {patience}; at least 1 epoch is required.")
        if range_layers not in RANGE_LAYERS:
            raise ConfigError(
                f"range_layers={range_layers!r} is unknown. Known: {', '.join(RANGE_LAYERS)}."
                f"{suggestion(range_layers, RANGE_LAYERS)}"
            )
        super().__init__(model, model.hidden_layers, mask_every_step=mask_every_step)
        self.stages = Stages.of_run(patience, epochs if scale_epochs else MADE_FOR_EPOCHS)
        self.planned_epochs = epochs if scale_epochs else None
        self.regrow = regrow
        self.state = {
            layer: SdSnnLayer(
                self.mask(layer), adapts=range_layers == "all" or not self.is_conv(layer)
            )
            for layer in self.layers
        }

    def decide(self, epoch: int) -> Mapping[str, Tensor]:
        """Follow the weights after an epoch, clip them, and return the masks."""
        masks = {layer: self.mask(layer).clone() for layer in self.layers}
        self.follow_devices()
        for layer, state in self.state.items():
            state.follow(self.weight(layer).data, masks[layer], epoch, self.stages)
        if epoch < self.stages.first_pruning:
            return masks
        if self.regrow:
            for layer, state in self.state.items():
                weight = self.weight(layer).data
                masks[layer] = state.regrown(weight, masks[layer], epoch, self.stages)
        following = (*self.layers[1:], None)
        for layer, after in zip(self.layers, following, strict=True):
            state = self.state[layer]
            masks[layer] = state.pruned(masks[layer])
            state.grow_percent(
                masks[layer], None if after is None else masks[after], epoch, self.stages
            )
        return masks

    def follow_devices(self) -> None:
        """Bring the state to where the model is; it may have been moved since it was made."""
        device = self.weight(self.layers[0]).device
        for state in self.state.values():
            if state.ever_pruned.device != device:
                state.load(state.state(), device)

    def own_state(self) -> dict[str, Any]:
        """Return the state of every layer."""
        return {name: state.state() for name, state in self.state.items()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `own_state` returned."""
        device = self.weight(self.layers[0]).device
        for name, layer in self.state.items():
            layer.load(state[name], device)
