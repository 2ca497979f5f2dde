"""Stage direct: what structure rules of spiking training have in common.

A rule owns the masks of a network's hidden layers and changes them after each epoch, as a
`topospike.train.TopologyController`. As released, masks act at that moment only: during the next
epoch pruned weights train on and take part, and are cut again at its end. ``mask_every_step``
keeps them at zero instead. Which links go and come is the subclass's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topospike.contracts import LayerChange, TopologyUpdate
from topospike.direct.network import SpikingModel
from topospike.errors import CheckpointError, ConfigError, TopologyViolation
from topospike.evolve import active_hidden_neurons, active_neurons
from topospike.evolve.gradients import GradientMasker, clear_slots
from topospike.topology import Topology, get_mask, masked_layers, register_mask, set_mask

# Epochs the rules were made for: their constants are absolute epochs of a run this long.
MADE_FOR_EPOCHS = 600


class StructureRule(ABC):
    """A rule that prunes (and regrows) after every epoch; base of `Dpap` and `SdSnn`.

    Parameters
    ----------
    model
        The spiking model; its hidden layers get masks of ones.
    layers
        Names of the layers the rule may prune.
    mask_every_step
        Keep absent links at zero during epochs, with their optimizer slots.

    Raises
    ------
    ConfigError
        If there is no layer to prune, or one has a mask already.
    """

    name = "rule"
    unit = "epoch"
    # Length of the run that the schedules are scaled to; None: as published, for any run.
    planned_epochs: int | None = None

    def __init__(
        self, model: SpikingModel, layers: Iterable[str], *, mask_every_step: bool = False
    ) -> None:
        self.model = model
        self.layers = tuple(layers)
        self.mask_every_step = mask_every_step
        self.update_index = 0
        self.is_frozen = False
        self.optimizer: Optimizer | None = None
        if not self.layers:
            raise ConfigError(
                f"{self.name} found no layer to prune: it needs convolutions or hidden linear "
                "layers with spiking neurons behind them."
            )
        for layer in self.layers:
            weight = self.weight(layer)
            register_mask(model.get_submodule(layer), torch.ones_like(weight, dtype=torch.bool))
        masked = [layer for layer in masked_layers(model) if layer.name in self.layers]
        self.masker = GradientMasker(masked, record=False)

    def weight(self, layer: str) -> nn.Parameter:
        """Return the weight of a layer."""
        return self.model.get_parameter(f"{layer}.weight")

    def mask(self, layer: str) -> Tensor:
        """Return the mask buffer of a layer itself."""
        mask = get_mask(self.model.get_submodule(layer))
        if mask is None:
            raise TopologyViolation(f"layer {layer!r} has lost its weight_mask.")
        return mask

    def is_conv(self, layer: str) -> bool:
        """Tell whether a layer is a convolution."""
        return self.weight(layer).ndim > 2

    def attach(self, optimizer: Optimizer) -> StructureRule:
        """Take note of the optimizer, and mask gradients before its steps if that is asked."""
        self.optimizer = optimizer
        if self.mask_every_step:
            self.masker.attach(optimizer)
        return self

    def mask_gradients(self) -> None:
        """Zero the gradients of absent links now, if masks act at every step."""
        if self.mask_every_step:
            self.masker.mask_now()

    def check_schedule(self, epochs: int, steps_per_epoch: int) -> None:
        """Refuse a training of another length than the schedules are scaled to.

        Raises
        ------
        ConfigError
            If it has other epochs.
        """
        if self.planned_epochs not in (None, epochs):
            raise ConfigError(
                f"{self.name} was made for {self.planned_epochs} epochs, "
                f"the training has {epochs}. Make the rule with epochs={epochs}."
            )

    def is_update_epoch(self, epoch: int) -> bool:
        """Say whether masks are applied after this epoch: after each, until `freeze`."""
        return not self.is_frozen

    @abstractmethod
    def decide(self, epoch: int) -> Mapping[str, Tensor]:
        """Return the new mask of each layer after an epoch; may change weights, not masks."""

    @torch.no_grad()
    def update_topology(self, epoch: int) -> TopologyUpdate:
        """Let the rule decide, write its masks, and cut the weights off them.

        Parameters
        ----------
        epoch
            The epoch that has just finished, counted from 0.

        Raises
        ------
        TopologyViolation
            After `freeze`.
        """
        if self.is_frozen:
            raise TopologyViolation(
                f"the topology is frozen, so update_topology({epoch}) is not possible."
            )
        changes: dict[str, LayerChange] = {}
        for layer, mask in self.decide(epoch).items():
            before = self.mask(layer).clone()
            set_mask(self.model.get_submodule(layer), mask)
            if self.mask_every_step and self.optimizer is not None:
                clear_slots(self.optimizer, self.weight(layer), ~mask)
            changes[layer] = change_between(before, mask)
        self.update_index += 1
        return self.record(epoch, changes)

    def record(self, epoch: int, changes: Mapping[str, LayerChange]) -> TopologyUpdate:
        """Build the record of an update."""
        masks = {layer: self.mask(layer) for layer in self.layers}
        size = sum(mask.numel() for mask in masks.values())
        links = sum(int(mask.sum()) for mask in masks.values())
        return TopologyUpdate(
            update_index=self.update_index,
            epoch=epoch,
            layers=dict(changes),
            sparsity=1.0 - links / size,
            anp=active_neurons(list(masks.values())),
            anp_hidden=active_hidden_neurons(masks, []),
            itop_rate=1.0,  # every link is there at the start
        )

    def freeze(self) -> Topology:
        """End the evolution and return the topology.

        Raises
        ------
        TopologyViolation
            If a weight off its mask is not zero: freeze after an update, not between two.
        """
        topology = Topology.from_model(
            self.model, provenance={"rule": self.name, "updates": self.update_index}
        )
        self.is_frozen = True
        return topology

    @abstractmethod
    def own_state(self) -> dict[str, Any]:
        """Return the state of the subclass: numbers, tensors, nested dictionaries."""

    @abstractmethod
    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take up what `own_state` returned."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the model does not hold; masks and weights are in the model's state."""
        return {
            "rule": self.name,
            "layers": list(self.layers),
            "update_index": self.update_index,
            "is_frozen": self.is_frozen,
            "own": self.own_state(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned, after the model's own state has been loaded.

        Raises
        ------
        CheckpointError
            If the state is of another rule or of other layers.
        """
        for key, own in (("rule", self.name), ("layers", list(self.layers))):
            if state_dict.get(key) != own:
                raise CheckpointError(
                    f"the checkpoint's {key} is {state_dict.get(key)!r}, here it is {own!r}. Build "
                    "the rule for the same model with the same settings."
                )
        self.update_index = int(state_dict["update_index"])
        self.is_frozen = bool(state_dict["is_frozen"])
        self.load_own_state(state_dict["own"])


def published_epochs(epoch: int, scale: float) -> range:
    """Return the epochs of a run of 600 that one epoch of a shorter or longer run stands for.

    Schedules are summed over them: what a rule does in 10 epochs of 600 it does in one of 60. A
    sum at one epoch in ten would be a tenth, and nothing would ever be pruned.

    Parameters
    ----------
    epoch
        Counted from the start of the schedule; may be negative.
    scale
        Length of the run in units of 600 epochs.

    Examples
    --------
    >>> published_epochs(3, 0.1), published_epochs(3, 1.0), len(published_epochs(2, 2.0))
    (range(30, 40), range(3, 4), 0)
    """
    tolerance = 1e-9  # 3 / 0.1 may come out below 30
    return range(math.floor(epoch / scale + tolerance), math.floor((epoch + 1) / scale + tolerance))


def change_between(before: Tensor, after: Tensor) -> LayerChange:
    """Describe what an update did to one layer."""
    active = int(after.sum())
    return LayerChange(
        active_before=int(before.sum()),
        removed=int((before & ~after).sum()),
        percolated=0,
        grown=int((after & ~before).sum()),
        active_after=active,
        target=active,
        shortfall=0,
        overlap=0.0,
    )


def percentile(values: Tensor, percent: float) -> Tensor:
    """Return a percentile with linear interpolation, of any number of values.

    Examples
    --------
    >>> percentile(torch.tensor([4.0, 1.0, 3.0, 2.0]), 75.0)
    tensor(3.2500, dtype=torch.float64)
    """
    flat = values.detach().flatten()
    position = (flat.numel() - 1) * percent / 100
    below = int(position)
    low = flat.kthvalue(below + 1).values.double()
    if position == below:
        return low
    high = flat.kthvalue(below + 2).values.double()
    return low + (high - low) * (position - below)
