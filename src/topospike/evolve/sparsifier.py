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
from topospike.errors import CheckpointError, ConfigError, TopologyViolation
from topospike.evolve.activity import active_hidden_neurons, active_neurons
from topospike.evolve.gradients import GradientMasker, clear_slots
from topospike.evolve.plan import LayerPlan
from topospike.evolve.probe import LazyChains
from topospike.evolve.removal import removal_exponent
from topospike.evolve.settings import EvolutionSettings, description, digest_of
from topospike.evolve.state import check_format, pack_bits, require_same_plan, unpack_bits
from topospike.evolve.update import LayerOutcome, LayerState, UpdateSettings, evolve_masks
from topospike.topology import (
    Topology,
    active_count,
    check_masks,
    get_mask,
    register_mask,
    set_mask,
    sparsity_at,
    zeta_at,
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
        self.masker = GradientMasker(tuple(self.modules.values()), record=settings.needs_gradient)
        self.optimizer: Optimizer | None = None
        self.handle: Any = None
        self.chains = LazyChains(
            model,
            self.layers,
            example=example_input,
            wanted=settings.percolation and settings.rule.choice != "none",
        )

    @property
    def masks(self) -> dict[str, Tensor]:
        """The mask buffers by layer name, looked up in the model each time."""
        found: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            mask = get_mask(module)
            if mask is None:
                raise TopologyViolation(
                    f"layer {name!r} has lost its weight_mask. Do not delete mask buffers while a "
                    "sparsifier owns the model."
                )
            found[name] = mask
        return found

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
        self.handle = optimizer.register_step_pre_hook(self.before_step)
        return self

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Mask the gradients; with a closure, mask what the closure computes."""
        closure: Callable[[], Any] | None = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self.masker.mask_in_step()
            return None

        def masked_closure() -> Any:
            loss = closure()
            self.masker.mask_in_step()
            return loss

        if len(args) > 1:
            return (args[0], masked_closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": masked_closure}

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
        states = self.layer_states(epoch)
        outcomes = evolve_masks(states, self.chains.get(), self.update_settings(epoch))
        for name, outcome in outcomes.items():
            self.write(name, outcome)
        self.update_index += 1
        self.last_epoch = epoch
        return self.record(epoch, {name: outcome.change for name, outcome in outcomes.items()})

    def layer_states(self, epoch: int) -> list[LayerState]:
        """Describe every layer for the update."""
        masks, settings = self.masks, self.settings
        zeta = zeta_at(
            epoch + 1,
            zeta=settings.zeta,
            end=settings.schedule.stop,
            kind=settings.zeta_schedule,
        )
        return [
            LayerState(
                name=name,
                position=position,
                weight=self.modules[name].weight.detach(),  # pyright: ignore[reportArgumentType, reportCallIssue, reportAttributeAccessIssue]
                mask=masks[name].clone(),
                gradient=self.masker.recorded[position],
                groups=plan.groups,
                score=plan.score,
                zeta=0.0 if self.stopped[name] and settings.early_stop == "layer" else zeta,
                target=self.target_links(plan, epoch),
            )
            for position, (name, plan) in enumerate(self.layers.items())
        ]

    def target_links(self, plan: LayerPlan, epoch: int) -> int:
        """Return how many links a layer shall have after the update that follows ``epoch``."""
        settings, schedule = self.settings, self.settings.schedule
        if plan.initial_links == plan.links or epoch + 1 >= schedule.last:
            return plan.links
        sparsity = sparsity_at(
            epoch + 1,
            initial=plan.initial_sparsity,
            final=plan.sparsity,
            start=schedule.start,
            end=schedule.last,
            kind=settings.density_decay,
            k=settings.decay_k,
        )
        return active_count(plan.size, sparsity)

    def update_settings(self, epoch: int) -> UpdateSettings:
        """Collect what all layers share in the update after ``epoch``."""
        settings = self.settings
        start, end = settings.removal_exponents
        return UpdateSettings(
            rule=settings.rule,
            removal=settings.removal,
            exponent=removal_exponent(
                settings.schedule.progress(epoch),
                start=start,
                end=end,
                schedule=settings.exponent_schedule,
            ),
            unfold=settings.conv_unfold,
            seed=settings.seed,
            update_index=self.update_index,
        )

    def write(self, name: str, outcome: LayerOutcome) -> None:
        """Bring mask, weight and optimizer slots of a layer in line with an update."""
        module, gone = self.modules[name], ~outcome.kept
        weight: nn.Parameter = module.weight  # pyright: ignore[reportAssignmentType]
        # A link that was removed and grown again in one update starts at 0 like any new link.
        weight.masked_fill_(gone, 0)
        set_mask(module, outcome.mask)
        if self.optimizer is not None:
            clear_slots(self.optimizer, weight, gone)
        self.ever_active[name] |= outcome.mask
        if self.settings.early_stop != "off" and outcome.change.grown:
            self.stopped[name] |= outcome.change.overlap > self.settings.early_stop_overlap

    def record(self, epoch: int, changes: Mapping[str, LayerChange]) -> TopologyUpdate:
        """Build the record of an update from the masks it left."""
        masks = self.masks
        size = sum(plan.size for plan in self.layers.values())
        hidden = {n: mask for n, mask in masks.items() if not self.layers[n].is_classifier}
        return TopologyUpdate(
            update_index=self.update_index,
            epoch=epoch,
            layers=dict(changes),
            sparsity=1.0 - sum(int(mask.sum()) for mask in masks.values()) / size,
            anp=active_neurons(list(masks.values())),
            anp_hidden=active_hidden_neurons(hidden, self.chains.found or []),
            itop_rate=sum(int(seen.sum()) for seen in self.ever_active.values()) / size,
        )

    def freeze(self) -> Topology:
        """End the evolution and return the topology; gradients are still masked.

        Further training keeps the links; `update_topology` raises from now on.

        Raises
        ------
        TopologyViolation
            If a weight off its mask is not zero.
        """
        self.chains.close()
        provenance = {
            **description(self.settings, self.layers),
            "updates": self.update_index,
            "last_update_epoch": self.last_epoch,
        }
        topology = Topology.from_model(self.model, provenance=provenance)
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
        for name, mask in self.masks.items():
            if int(mask.sum()) != state_dict["links"][name]:
                raise CheckpointError(
                    f"layer {name!r} has {int(mask.sum())} links, the checkpoint "
                    f"{state_dict['links'][name]}. Load the model's state_dict (with its "
                    "weight_mask entries) before the sparsifier's."
                )
        check_masks(self.model)
        self.update_index = int(state_dict["update_index"])
        self.last_epoch = int(state_dict["last_epoch"])
        self.is_frozen = bool(state_dict["is_frozen"])
        self.stopped = {name: bool(state_dict["stopped"][name]) for name in self.layers}
        for name, seen in self.ever_active.items():
            seen.copy_(unpack_bits(state_dict["ever_active"][name], self.layers[name].shape))


def unchanged(mask: Tensor) -> LayerChange:
    """Return the record of a layer that nothing happened to."""
    links = int(mask.sum())
    return LayerChange(
        active_before=links,
        removed=0,
        percolated=0,
        grown=0,
        active_after=links,
        target=links,
        shortfall=0,
        overlap=0.0,
    )
