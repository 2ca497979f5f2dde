"""Stage 2 (evolve): the controller that owns the masks of a model while it trains.

It registers ``weight_mask`` buffers and optimizer hooks; apart from that, the topology changes in
exactly one visible call, `Sparsifier.update_topology`, which returns a record. Life has three
stages: evolving, frozen (training goes on, links do not change), inherited (a `Topology` read by
later stages). The arithmetic is in `update`; this class moves state.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topospike.contracts import LayerChange, TopologyUpdate
from topospike.errors import CheckpointError, ConfigError, TopologyViolation
from topospike.evolve.gradients import GradientMasker, clear_slots, mask_of
from topospike.evolve.peers import Peers, checksum, decided_by_the_first, require_same_masks
from topospike.evolve.percolation import active_hidden_neurons, active_neurons
from topospike.evolve.plan import LayerPlan
from topospike.evolve.probe import LazyRelations
from topospike.evolve.settings import Evolution
from topospike.evolve.update import LayerOutcome, LayerState, Moment, evolve_masks, unchanged
from topospike.topology import (
    Topology,
    check_masks,
    copy_masks,
    pack_bits,
    set_mask,
    unpack_bits,
)

FORMAT_VERSION = 2
FIELDS = ("plan", "update_index", "last_epoch", "is_frozen", "stopped", "masks", "history")
FIELDS += ("ever_active",)


class Sparsifier:
    """Evolve the topology of a model during training. Make one with `sparsify`.

    Parameters
    ----------
    model
        Its planned layers have masks already.
    layers
        Layer name -> plan.
    evolution
        Everything else.
    example_input
        One input batch, to find which layers feed which; without it the shape of the first
        forward input is remembered.

    Attributes
    ----------
    layers : mapping
        Layer name -> `LayerPlan`, in module order. Layers not listed are dense.
    evolution : Evolution
        Rule, settings, schedule and seed.
    update_index : int
        Number of updates made so far.
    is_frozen : bool
        Whether `freeze` was called.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, LayerPlan],
        evolution: Evolution,
        *,
        example_input: Tensor | None = None,
    ) -> None:
        self.model = model
        self.layers = dict(layers)
        self.evolution = evolution
        self.update_index = 0
        self.last_epoch = -1
        self.is_frozen = False
        self.ever_active = {name: mask.clone() for name, mask in self.masks.items()}
        self.stopped = dict.fromkeys(self.layers, False)
        self.said_fixed: set[str] = set()
        # The weight every link last had, for rules that start a link again from there.
        self.history: dict[str, Tensor] = {}
        self.barred: dict[str, Tensor] = {}
        planned = [plan.layer for plan in self.layers.values()]
        self.masker = GradientMasker(planned, record=evolution.needs_gradient)
        self.peers: Peers | None = None
        self.relations = LazyRelations(
            model,
            self.layers,
            example=example_input,
            wanted=evolution.settings.percolation and evolution.rule.replaces,
        )

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask buffers by layer name, looked up in the model each time."""
        return {name: mask_of(plan.layer) for name, plan in self.layers.items()}

    @property
    def unit(self) -> str:
        """What the schedule counts and `update_topology` is told: ``epoch`` or ``step``."""
        return self.evolution.schedule.unit

    def check_schedule(self, epochs: int, steps_per_epoch: int) -> None:
        """Refuse a training of another length than the schedules were made for.

        Raises
        ------
        ConfigError
            If it has not the ``epochs`` or ``steps`` that `sparsify` was given. A rule that never
            changes a link goes with any length.
        """
        if self.evolution.rule.replaces or self.evolution.rule.decay is not None:
            self.evolution.schedule.check(epochs, steps_per_epoch)

    def share_decisions(self, peers: Peers) -> None:
        """Let process 0 decide for all processes that train copies of this model.

        From now on `update_topology`, `freeze`, `state_dict` and `load_state_dict` must be called
        on every process at the same point. Steps between updates send nothing.

        Raises
        ------
        TopologyViolation
            If the masks of the processes differ; names the process and the layer.
        """
        require_same_masks(peers, self.masks, moment="at the start")
        self.peers = peers

    def attach(self, optimizer: Optimizer) -> Sparsifier:
        """Mask gradients before every step of this optimizer, from now on.

        A second optimizer replaces the first. Hooks do not survive copying an optimizer: attach
        again to the copy.

        Parameters
        ----------
        optimizer
            Any `torch.optim.Optimizer`. If it mixes the entries of a weight (Muon), absent weights
            are set back to 0 after every step as well. Of a wrapper that steps another one (SAM)
            attach the base optimizer, and call `mask_gradients` before each inner step.

        Raises
        ------
        ConfigError
            If a masked weight that trains is not among the optimizer's parameters.
        """
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for plan in self.layers.values():
            if plan.layer.trains and id(plan.layer.weight) not in trained:
                raise ConfigError(
                    f"{plan.layer.parameter} is not a parameter of this "
                    f"{type(optimizer).__name__}. Build the optimizer from the parameters of the "
                    "model that was sparsified."
                )
        self.masker.attach(optimizer)
        return self

    def detach(self) -> None:
        """Remove the optimizer hooks. Masks stay in the model."""
        self.masker.detach()

    @property
    def optimizer(self) -> Optimizer | None:
        """The attached optimizer."""
        return self.masker.optimizer

    def mask_gradients(self) -> None:
        """Zero the gradients of absent links now, for example before a clip norm is taken."""
        self.masker.mask_now()

    @property
    def replaces(self) -> bool:
        """Whether updates still replace links; early stop ends that."""
        early = self.evolution.settings.early_stop == "all"
        return not (early and all(self.stopped.values()))

    def is_update_epoch(self, epoch: int) -> bool:
        """Say whether the topology changes after ``epoch`` (from 0) has finished."""
        evolves = self.replaces or self.evolution.rule.decay is not None
        return evolves and not self.is_frozen and self.evolution.schedule.is_update_epoch(epoch)

    @torch.no_grad()
    def update_topology(self, epoch: int) -> TopologyUpdate:
        """Change the topology after ``epoch`` and say what was changed.

        Links are lost to falling density, removed, percolated and regrown; masks are written in
        place; removed weights become 0, new links start at 0 (or as ``new_links`` and ``history``
        say), and every optimizer slot of the weight's shape is cleared wherever a link went or
        came. Kept weights are not touched, nor is a layer whose weight does not train.

        Parameters
        ----------
        epoch
            The epoch that has just finished, counted from 0.

        Returns
        -------
        TopologyUpdate
            Outside the schedule (`is_update_epoch` is false) nothing changes and the record
            says so.

        Raises
        ------
        TopologyViolation
            After `freeze`, or if something has moved absent weights since the last update.
        NonFiniteError
            If a weight or gradient is NaN or infinite.
        ConfigError
            If the rule reads gradients and none was recorded.
        """
        if self.is_frozen:
            raise TopologyViolation(
                f"the topology is frozen, so update_topology({epoch}) is not possible. Train on "
                "with the links as they are, or freeze later."
            )
        if not self.is_update_epoch(epoch):
            return self.record(epoch, {name: unchanged(m).change for name, m in self.masks.items()})
        self.require_agreement(f"before the update of epoch {epoch}")
        outcomes = self.decide(epoch)
        for name, outcome in outcomes.items():
            self.write(name, outcome)
        self.masker.links_changed()
        self.require_agreement(f"after the update of epoch {epoch}")
        self.update_index += 1
        self.last_epoch = epoch
        return self.record(epoch, {name: outcome.change for name, outcome in outcomes.items()})

    def decide(self, epoch: int) -> dict[str, LayerOutcome]:
        """Compute the update after ``epoch``, or receive what process 0 computed."""
        states, relations = self.layer_states(), self.relations.get()
        moment = Moment(epoch, self.update_index, self.replaces)
        if self.peers is None:
            return evolve_masks(states, relations, self.evolution, moment)
        return decided_by_the_first(
            self.peers,
            lambda: evolve_masks(states, relations, self.evolution, moment),
            device=states[0].mask.device,
        )

    def require_agreement(self, moment: str) -> None:
        """Compare the masks of all processes, if there are several."""
        if self.peers is not None:
            require_same_masks(self.peers, self.masks, moment=moment)

    def layer_states(self) -> list[LayerState]:
        """Describe every layer for the update."""
        states = [
            LayerState(
                plan=plan,
                position=position,
                weight=plan.layer.weight.detach(),
                mask=mask_of(plan.layer).clone(),
                gradient=self.masker.recorded[position],
                barred=self.barred.get(plan.name),
            )
            for position, plan in enumerate(self.layers.values())
        ]
        fixed = {state.name for state in states if state.is_fixed} - self.said_fixed
        if fixed:
            self.said_fixed |= fixed
            warnings.warn(
                f"the weights of {', '.join(sorted(fixed))} do not require a gradient; their links "
                "stay as they are.",
                UserWarning,
                stacklevel=4,
            )
        return states

    def write(self, name: str, outcome: LayerOutcome) -> None:
        """Bring mask, weight and optimizer slots of a layer in line with an update."""
        layer = self.layers[name].layer
        weight, gone, mask = layer.weight, ~outcome.kept, outcome.mask
        # A link that was removed and grown again in one update starts like any new link.
        start = self.evolution.new_weights(name, weight, mask, self.update_index)
        if self.evolution.settings.history:
            last = self.history.get(name, torch.zeros_like(weight)).to(weight)
            last = torch.where(mask_of(layer), weight.detach(), last)
            self.history[name] = last
            start = torch.where(last != 0, last, start)
        weight.copy_(torch.where(gone, start.masked_fill(~mask, 0), weight))
        set_mask(layer.module, mask, name=layer.attribute)
        if self.optimizer is not None:
            clear_slots(self.optimizer, weight, gone)
        if outcome.barred is not None:
            self.barred[name] = outcome.barred
        # The model may have been moved to a device since the masks were first noted.
        self.ever_active[name] = self.ever_active[name].to(mask.device) | mask
        if outcome.change.grown:
            overlap = self.evolution.settings.early_stop_overlap
            self.stopped[name] |= outcome.change.overlap > overlap

    def record(self, epoch: int, changes: Mapping[str, LayerChange]) -> TopologyUpdate:
        """Build the record of an update from the masks it left."""
        masks, seen = self.masks, self.ever_active.values()
        hidden = {n: mask for n, mask in masks.items() if not self.layers[n].is_classifier}
        size = sum(mask.numel() for mask in masks.values())
        return TopologyUpdate(
            update_index=self.update_index,
            epoch=epoch,
            layers=dict(changes),
            sparsity=1.0 - sum(int(mask.count_nonzero()) for mask in masks.values()) / size,
            anp=active_neurons(list(masks.values())),
            anp_hidden=active_hidden_neurons(hidden, self.relations.found or []),
            itop_rate=sum(int(mask.count_nonzero()) for mask in seen) / size,
        )

    def freeze(self) -> Topology:
        """End the evolution and return the topology; gradients are still masked.

        Further training keeps the links; `update_topology` raises from now on.

        Raises
        ------
        TopologyViolation
            If a weight off its mask is not zero, or processes differ in a mask.
        """
        self.require_agreement("at the end")
        self.relations.close()
        provenance = {
            **self.evolution.description(self.layers),
            "updates": self.update_index,
            "last_update_epoch": self.last_epoch,
        }
        topology = Topology.from_model(self.model, provenance=provenance)
        self.is_frozen = True
        return topology

    def project(self, other: nn.Module) -> None:
        """Give another copy of the model, such as an average of its weights, the current masks."""
        copy_masks(self.model, other)

    def state_dict(self) -> dict[str, Any]:
        """Return what the model does not hold: plain numbers, strings and tensors.

        Masks and weights are in ``model.state_dict()``; load that first.
        """
        return {
            "format_version": FORMAT_VERSION,
            "plan": self.evolution.description(self.layers),
            "update_index": self.update_index,
            "last_epoch": self.last_epoch,
            "is_frozen": self.is_frozen,
            "stopped": dict(self.stopped),
            "masks": {name: checksum(mask) for name, mask in self.masks.items()},
            "ever_active": {name: pack_bits(seen) for name, seen in self.ever_active.items()},
            "history": dict(self.history),
            "barred": {name: pack_bits(places) for name, places in self.barred.items()},
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned, after the model's own state has been loaded.

        Raises
        ------
        CheckpointError
            If the state is incomplete, of another version or another plan, or the model's masks
            are not those of the checkpoint (usually: its state was not loaded first, or it is
            dense).
        TopologyViolation
            If the loaded weights are not zero off the loaded masks.
        """
        check_format(state_dict)
        self.evolution.require_same(state_dict["plan"], self.layers)
        for name, mask in self.masks.items():
            if checksum(mask) != state_dict["masks"].get(name):
                raise CheckpointError(
                    f"layer {name!r} has other links than in the checkpoint. Load the model's "
                    "state_dict (with its weight_mask entries) before the sparsifier's."
                )
        check_masks(self.model)
        self.require_agreement("in the checkpoint")
        self.update_index = int(state_dict["update_index"])
        self.last_epoch = int(state_dict["last_epoch"])
        self.is_frozen = bool(state_dict["is_frozen"])
        self.stopped = {name: bool(state_dict["stopped"][name]) for name in self.layers}
        for name, seen in self.ever_active.items():
            seen.copy_(unpack_bits(state_dict["ever_active"][name], self.layers[name].shape))
        self.history = {name: last.clone() for name, last in state_dict["history"].items()}
        self.barred = {
            name: unpack_bits(bits, self.layers[name].shape).to(self.masks[name].device)
            for name, bits in state_dict.get("barred", {}).items()
        }


def check_format(state: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless the state has this version and every field."""
    version, missing = state.get("format_version"), [key for key in FIELDS if key not in state]
    if version != FORMAT_VERSION or missing:
        raise CheckpointError(
            f"the sparsifier state has format_version {version!r} and lacks "
            f"{', '.join(missing) or 'nothing'}; a whole one of version {FORMAT_VERSION} is "
            "required. Use an intact checkpoint, and the version of topospike that wrote it."
        )
