"""Stage 2 (evolve): absent links get no gradient, and whatever moves them is put right.

The mask acts once a step, in an optimizer pre-step hook. Zero gradients leave the momentum of
absent weights at zero, and weight decay leaves absent weights at exactly 0.0, so one multiply of
the gradients a step is all the enforcement there is under an optimizer that works entry by entry
(SGD, Adam and its kin, Lion, Adafactor). One that mixes the entries of a matrix (Muon, SOAP) moves
absent weights too. It is noticed in the first step that does so, and from then on the weights are
masked after every step as well. The masks are cached in the gradient's dtype, because a float
product is several times faster than one with a bool. Nothing here changes a mask.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from topospike.errors import TopologyViolation
from topospike.topology import Layer

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class CachedMask:
    """A mask in the gradient's dtype, and the state of the bool mask it was made from."""

    source: Tensor
    version: int
    values: Tensor


class GradientMasker:
    """Multiply the gradients of masked layers by their masks.

    Parameters
    ----------
    layers
        The masked layers.
    record
        Keep a copy of the dense gradients that the optimizer last stepped with, for rules that
        read them.
    """

    def __init__(self, layers: Sequence[Layer], *, record: bool) -> None:
        self.layers = tuple(layers)
        self.record = record
        self.recorded: list[Tensor | None] = [None] * len(self.layers)
        # Dense gradients from before the user's own masking, until the step they belong to.
        self.waiting: list[Tensor | None] = [None] * len(self.layers)
        self.cache: list[CachedMask | None] = [None] * len(self.layers)
        self.optimizer: Optimizer | None = None
        self.handles: list[RemovableHandle] = []
        self.steps = 0
        self.mixes = False

    def attach(self, optimizer: Optimizer) -> None:
        """Act at every step of this optimizer, and of no other."""
        self.detach()
        self.optimizer, self.steps, self.mixes = optimizer, 0, False
        self.handles = [
            optimizer.register_step_pre_hook(self.before_step),
            optimizer.register_step_post_hook(self.after_step),
        ]

    def detach(self) -> None:
        """Remove the hooks."""
        for handle in self.handles:
            handle.remove()
        self.optimizer, self.handles = None, []

    def links_changed(self) -> None:
        """Look again from the next step on whether the optimizer moves absent weights.

        The directions that L-BFGS remembers lead along links that are gone, so it starts anew.
        """
        self.steps = 0
        if isinstance(self.optimizer, torch.optim.LBFGS):
            self.optimizer.state.clear()

    @torch.no_grad()
    def mask_now(self) -> None:
        """Mask on the user's behalf, before the optimizer step (for example before clipping)."""
        if self.record:
            for position, layer in enumerate(self.layers):
                gradient = layer.weight.grad
                self.waiting[position] = None if gradient is None else gradient.clone()
        self.apply()

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Mask the gradients; with a closure, mask what the closure computes as well."""
        closure: Callable[[], Any] | None = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self.note(optimizer)
            self.apply()
            return None

        def masked_closure() -> Any:
            loss = closure()
            self.note(optimizer)
            self.apply()
            return loss

        self.apply()
        if len(args) > 1:
            return (args[0], masked_closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": masked_closure}

    @torch.no_grad()
    def after_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        """Zero what an optimizer that mixes entries has put on absent links."""
        self.steps += 1
        # Looking costs about as much as masking, so it is done after steps 1, 2, 4, 8, ...: some
        # optimizers begin to mix in a later step than the first.
        looks = self.steps & (self.steps - 1) == 0
        if not self.mixes and looks and any(has_moved(layer) for layer in self.layers):
            self.mixes = True
            logger.info(
                "%s moves absent weights, because it mixes the entries of a matrix; they are set "
                "back to 0 after every step.",
                type(optimizer).__name__,
            )
        if self.mixes:
            for layer in self.layers:
                layer.weight.masked_fill_(~mask_of(layer), 0)

    @torch.no_grad()
    def note(self, optimizer: Optimizer) -> None:
        """Record the dense gradients of a step; a step that AMP skips never comes here."""
        if not self.record:
            return
        for position, layer in enumerate(self.layers):
            gradient = layer.weight.grad
            if gradient is None:
                continue
            before, self.waiting[position] = self.waiting[position], None
            dense = gradient if before is None else made_dense(gradient, before, mask_of(layer))
            # A fused optimizer unscales inside the step, and skips it there.
            scale = getattr(optimizer, "grad_scale", None)
            overflow = getattr(optimizer, "found_inf", None)
            dense = dense.clone() if scale is None else dense / scale.to(dense.device)
            last = self.recorded[position]
            if overflow is not None:
                last = torch.zeros_like(dense) if last is None else last
                dense = torch.where(overflow.to(dense.device) > 0, last, dense)
            self.recorded[position] = dense

    @torch.no_grad()
    def apply(self) -> None:
        """Multiply all gradients by their masks."""
        gradients: list[Tensor] = []
        masks: list[Tensor] = []
        for position, layer in enumerate(self.layers):
            gradient = layer.weight.grad
            if gradient is not None:
                gradients.append(gradient)
                masks.append(self.float_mask(position, gradient))
        if gradients:
            torch._foreach_mul_(gradients, masks)  # pyright: ignore[reportPrivateImportUsage]

    def float_mask(self, position: int, gradient: Tensor) -> Tensor:
        """Return the cached mask, made anew when the bool mask was replaced or written to."""
        mask = mask_of(self.layers[position])
        cached = self.cache[position]
        if (
            cached is None
            or cached.source is not mask
            or cached.version != mask._version
            or cached.values.dtype != gradient.dtype
            or cached.values.device != gradient.device
        ):
            values = mask.to(device=gradient.device, dtype=gradient.dtype)
            cached = CachedMask(mask, mask._version, values)
            self.cache[position] = cached
        return cached.values


def mask_of(layer: Layer) -> Tensor:
    """Return the mask buffer of a layer under training."""
    mask = layer.mask
    if mask is None:
        raise TopologyViolation(
            f"layer {layer.name!r} has lost its {layer.attribute}_mask. Do not delete mask buffers "
            "of a model under training."
        )
    return mask


def has_moved(layer: Layer) -> bool:
    """Say whether a weight off the mask is not zero."""
    return bool(((layer.weight.detach() != 0) & ~mask_of(layer)).any())


def made_dense(gradient: Tensor, before: Tensor, mask: Tensor) -> Tensor:
    """Return the dense form of a masked gradient that was rescaled or clipped since.

    On the mask it is the gradient itself; off it, what was masked away, rescaled alike. A gradient
    that is dense was computed anew since, and stands for itself.
    """
    is_new = ((gradient != 0) & ~mask).any()
    length = (before * mask).norm()
    scale = torch.where(length > 0, gradient.norm() / length, torch.ones_like(length))
    return torch.where(is_new | mask, gradient, before * scale)


@torch.no_grad()
def clear_slots(optimizer: Optimizer, parameter: nn.Parameter, positions: Tensor) -> None:
    """Zero every optimizer slot of the parameter's shape at the given positions.

    Slots are recognised by shape, not by name, so momentum, moment estimates and whatever a new
    optimizer invents are all covered. Scalar slots (the step count) stay.

    Examples
    --------
    >>> weight = nn.Parameter(torch.ones(2))
    >>> optimizer = torch.optim.SGD([weight], lr=0.1, momentum=0.9)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> clear_slots(optimizer, weight, torch.tensor([True, False]))
    >>> optimizer.state[weight]["momentum_buffer"].tolist()
    [0.0, 1.0]
    """
    for slot in optimizer.state.get(parameter, {}).values():
        if isinstance(slot, Tensor) and slot.shape == parameter.shape:
            slot.masked_fill_(positions, 0)
