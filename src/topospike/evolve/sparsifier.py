"""Stage 2 (evolve): the controller that owns the masks of a model while it trains.

It registers ``weight_mask`` buffers and one optimizer pre-step hook; apart from that, the topology
changes in exactly one visible call, `Sparsifier.update_topology`, which returns a record. Life has
three stages: evolving, frozen (training goes on, links do not change), inherited (a `Topology`
read by later stages). The arithmetic is in `update`; this class moves state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topospike.contracts import LayerChange, TopologyUpdate
from topospike.errors import ConfigError, TopologyViolation
from topospike.evolve.agreement import (
    Peers,
    decode,
    encode,
    laid_out_as,
    message_bytes,
    require_same_masks,
    whole,
)
from topospike.evolve.gradients import GradientMasker, clear_slots
from topospike.evolve.history import WeightHistory
from topospike.evolve.plan import LayerPlan
from topospike.evolve.probe import LazyChains
from topospike.evolve.record import record_of, unchanged
from topospike.evolve.settings import EvolutionSettings, description, digest_of
from topospike.evolve.state import check_format, require_same_links, require_same_plan
from topospike.evolve.targets import replaced_share, settings_of_update, target_links
from topospike.evolve.update import LayerOutcome, LayerState, evolve_masks
from topospike.topology import (
    Topology,
    check_masks,
    get_mask,
    masks_of,
    pack_bits,
    register_mask,
    set_mask,
    unpack_bits,
)


class Sparsifier:
    """Evolve the topology of a model during training. Make one with `sparsify`.

    Parameters
    ----------
    model
        Its planned layers have masks already.
    layers
        Layer name -> plan.
    settings
        Everything else.
    example_input
        One input batch, to find which layers feed which; without it the shape of the first
        forward input is remembered.

    Attributes
    ----------
    layers : mapping
        Layer name -> `LayerPlan`, in module order. Layers not listed are dense.
    settings : EvolutionSettings
    update_index : int
        Number of updates made so far.
    is_frozen : bool
        Whether `freeze` was called.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, LayerPlan],
        settings: EvolutionSettings,
        *,
        example_input: Tensor | None = None,
    ) -> None:
        self.model = model
        self.layers = dict(layers)
        self.settings = settings
        self.update_index = 0
        self.last_epoch = -1
        self.is_frozen = False
        self.modules = {name: model.get_submodule(name) for name in self.layers}
        self.ever_active = {name: mask.clone() for name, mask in self.masks.items()}
        self.stopped = dict.fromkeys(self.layers, False)
        self.history = WeightHistory() if settings.history else None
        self.masker = GradientMasker(tuple(self.modules.values()), record=settings.needs_gradient)
        self.optimizer: Optimizer | None = None
        self.handle: Any = None
        self.peers: Peers | None = None
        self.chains = LazyChains(
            model,
            self.layers,
            example=example_input,
            wanted=settings.percolation and settings.rule.choice != "none",
        )

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask buffers by layer name, looked up in the model each time; sharded ones whole."""
        found: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            mask = get_mask(module)
            if mask is None:
                raise TopologyViolation(
                    f"layer {name!r} has lost its weight_mask. Do not delete mask buffers while a "
                    "sparsifier owns the model."
                )
            found[name] = whole(mask)
        return found

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

    def shard(self, shard_model: Callable[[nn.Module], object], *, peers: Peers) -> None:
        """Spread the weights over processes, and every mask as its weight is.

        Parameters
        ----------
        shard_model
            Turns the parameters of the model into DTensors in place, as ``fully_shard`` does.
            Make the optimizer afterwards.
        peers
            The processes.

        Notes
        -----
        An update gathers whole weights and masks, one layer after another, decides on process 0
        and gives every process its part of the result.
        """
        if self.history is not None:
            raise ConfigError("history=True keeps whole weights; it cannot be used with shard().")
        masks = self.masks
        self.chains.get()  # The graph of a sharded model cannot be read any more.
        shard_model(self.model)
        for name, module in self.modules.items():
            weight: Any = module.weight
            module._buffers["weight_mask"] = laid_out_as(masks[name], weight)
        self.share_decisions(peers)

    def attach(self, optimizer: Optimizer) -> Sparsifier:
        """Mask gradients before every step of this optimizer, from now on.

        A second optimizer replaces the first. Hooks do not survive copying an optimizer: attach
        again to the copy.

        Raises
        ------
        ConfigError
            If a masked weight is not among the optimizer's parameters.
        """
        trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for name, module in self.modules.items():
            if id(module.weight) not in trained:
                raise ConfigError(
                    f"{self.layers[name].parameter} is not a parameter of this "
                    f"{type(optimizer).__name__}. Build the optimizer from the parameters of the "
                    "model that was sparsified."
                )
        self.detach()
        self.optimizer = optimizer
        self.handle = optimizer.register_step_pre_hook(self.masker.before_step)
        return self

    def mask_gradients(self) -> None:
        """Zero the gradients of absent links now, for example before a clip norm is taken."""
        self.masker.mask_now()

    def is_update_epoch(self, epoch: int) -> bool:
        """Say whether the topology changes after ``epoch`` (from 0) has finished."""
        evolving = not self.is_frozen and not all(self.stopped.values())
        return evolving and self.settings.schedule.is_update_epoch(epoch)

    @torch.no_grad()
    def update_topology(self, epoch: int) -> TopologyUpdate:
        """Change the topology after ``epoch`` and say what was changed.

        Links are lost to falling density, removed, percolated and regrown; masks are written in
        place; removed weights become 0, new links start at 0, and every optimizer slot of the
        weight's shape is cleared wherever a link went or came. Kept weights are not touched.

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
            After `freeze`.
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
            return self.record(epoch, {name: unchanged(m) for name, m in self.masks.items()})
        self.require_agreement(f"before the update of epoch {epoch}")
        outcomes = self.decide(epoch)
        for name, outcome in outcomes.items():
            self.write(name, outcome)
        self.require_agreement(f"after the update of epoch {epoch}")
        self.update_index += 1
        self.last_epoch = epoch
        return self.record(epoch, {name: outcome.change for name, outcome in outcomes.items()})

    def decide(self, epoch: int) -> dict[str, LayerOutcome]:
        """Compute the update after ``epoch``, or receive what process 0 computed."""
        states, chains = self.layer_states(epoch), self.chains.get()
        shared = settings_of_update(self.settings, epoch=epoch, update_index=self.update_index)
        if self.peers is None:
            return evolve_masks(states, chains, shared)
        shapes = {name: plan.shape for name, plan in self.layers.items()}
        if self.peers.rank == 0:
            message = encode(evolve_masks(states, chains, shared))
        else:
            message = torch.empty(message_bytes(shapes), dtype=torch.uint8)
        message = self.peers.broadcast(message)
        return decode(message, shapes, device=states[0].mask.device)

    def require_agreement(self, moment: str) -> None:
        """Compare the masks of all processes, if there are several."""
        if self.peers is not None:
            require_same_masks(self.peers, self.masks, moment=moment)

    def layer_states(self, epoch: int) -> list[LayerState]:
        """Describe every layer for the update."""
        masks, settings = self.masks, self.settings
        zeta = replaced_share(settings, epoch=epoch)
        return [
            LayerState(
                name=name,
                position=position,
                weight=whole(self.modules[name].weight.detach()),  # pyright: ignore[reportArgumentType, reportCallIssue, reportAttributeAccessIssue]
                mask=masks[name].clone(),
                gradient=self.masker.gradient(position),
                groups=plan.groups,
                score=plan.score,
                zeta=0.0 if self.stopped[name] and settings.early_stop == "layer" else zeta,
                target=target_links(plan, settings, epoch=epoch),
            )
            for position, (name, plan) in enumerate(self.layers.items())
        ]

    def write(self, name: str, outcome: LayerOutcome) -> None:
        """Bring mask, weight and optimizer slots of a layer in line with an update."""
        module = self.modules[name]
        weight: nn.Parameter = module.weight  # pyright: ignore[reportAssignmentType]
        gone = laid_out_as(~outcome.kept, weight)
        if self.history is not None:
            self.history.remember(name, weight, self.masks[name])
        # A link that was removed and grown again in one update starts at 0 like any new link.
        weight.masked_fill_(gone, 0)
        set_mask(module, laid_out_as(outcome.mask, weight))
        if self.history is not None:
            self.history.revive(name, weight, outcome.mask & ~outcome.kept)
        if self.optimizer is not None:
            clear_slots(self.optimizer, weight, gone)
        # The model may have been moved to a device since the masks were first noted.
        self.ever_active[name] = self.ever_active[name].to(outcome.mask.device) | outcome.mask
        if self.settings.early_stop != "off" and outcome.change.grown:
            self.stopped[name] |= outcome.change.overlap > self.settings.early_stop_overlap

    def record(self, epoch: int, changes: Mapping[str, LayerChange]) -> TopologyUpdate:
        """Build the record of an update from the masks it left."""
        return record_of(
            changes,
            masks=self.masks,
            layers=self.layers,
            chains=self.chains.found or [],
            ever_active=self.ever_active,
            update_index=self.update_index,
            epoch=epoch,
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
        self.chains.close()
        provenance = {
            **description(self.settings, self.layers),
            "updates": self.update_index,
            "last_update_epoch": self.last_epoch,
        }
        check_masks(self.model)
        masks = {name: whole(mask) for name, mask in masks_of(self.model).items()}
        topology = Topology.from_masks(masks, provenance=provenance)
        self.is_frozen = True
        return topology

    def detach(self) -> None:
        """Remove the optimizer hook. Masks stay in the model."""
        if self.handle is not None:
            self.handle.remove()
        self.handle = self.optimizer = None

    def project(self, other: nn.Module) -> None:
        """Give another copy of the model (an average of its weights, say) the current topology.

        Parameters
        ----------
        other
            A model with the same layers, or an ``AveragedModel`` around one. Masks are registered
            or overwritten, and weights off them set to 0.
        """
        inner = other.module if isinstance(other, torch.optim.swa_utils.AveragedModel) else other
        for name, mask in self.masks.items():
            module = inner.get_submodule(name)
            write = register_mask if get_mask(module) is None else set_mask
            write(module, mask)

    def state_dict(self) -> dict[str, Any]:
        """Return what the model does not hold: plain numbers, strings and tensors.

        Masks and weights are in ``model.state_dict()``; load that first.
        """
        described = description(self.settings, self.layers)
        return {
            "format_version": 1,
            "plan": described,
            "plan_digest": digest_of(described),
            "update_index": self.update_index,
            "last_epoch": self.last_epoch,
            "is_frozen": self.is_frozen,
            "stopped": dict(self.stopped),
            "links": {name: int(mask.sum()) for name, mask in self.masks.items()},
            "ever_active": {name: pack_bits(seen) for name, seen in self.ever_active.items()},
            **({} if self.history is None else {"history": self.history.state_dict()}),
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
        require_same_plan(state_dict, description(self.settings, self.layers))
        require_same_links(state_dict, self.masks)
        check_masks(self.model)
        self.require_agreement("in the checkpoint")
        self.update_index = int(state_dict["update_index"])
        self.last_epoch = int(state_dict["last_epoch"])
        self.is_frozen = bool(state_dict["is_frozen"])
        self.stopped = {name: bool(state_dict["stopped"][name]) for name in self.layers}
        for name, seen in self.ever_active.items():
            seen.copy_(unpack_bits(state_dict["ever_active"][name], self.layers[name].shape))
        if self.history is not None:
            shapes = {name: plan.shape for name, plan in self.layers.items()}
            self.history.load_state_dict(state_dict["history"], shapes)
