"""Stage 2 (evolve): keep the gradients of absent links at zero.

With weights, gradients and same-shaped optimizer slots zero off the mask, every common optimizer
keeps absent weights at exactly 0.0, so one multiply of the gradients a step is all the enforcement
there is. The masks are cached in the gradient's dtype, because a float product is several times
faster than one with a bool. Nothing here changes a mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topospike.errors import ConfigError
from topospike.evolve.agreement import whole
from topospike.topology import get_mask


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
    modules
        The masked modules.
    record
        Keep a copy of the dense gradients of the latest step, for rules that read them.
    """

    def __init__(self, modules: Sequence[nn.Module], *, record: bool) -> None:
        self.modules = tuple(modules)
        self.record = record
        self.recorded: list[Tensor | None] = [None] * len(self.modules)
        self.cache: list[CachedMask | None] = [None] * len(self.modules)
        self.already_recorded = False

    def mask_now(self) -> None:
        """Mask on the user's behalf, before the optimizer step (for example before clipping)."""
        self.apply(record=self.record)
        self.already_recorded = True

    def mask_in_step(self) -> None:
        """Mask inside the optimizer step; gradients masked just before are not recorded again."""
        self.apply(record=self.record and not self.already_recorded)
        self.already_recorded = False

    def before_step(
        self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """Mask the gradients; with a closure, mask what the closure computes."""
        closure: Callable[[], Any] | None = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self.mask_in_step()
            return None

        def masked_closure() -> Any:
            loss = closure()
            self.mask_in_step()
            return loss

        if len(args) > 1:
            return (args[0], masked_closure, *args[2:]), kwargs
        return args, {**kwargs, "closure": masked_closure}

    def gradient(self, position: int) -> Tensor | None:
        """Return the dense gradient recorded last, whole; over processes it is their mean."""
        recorded = self.recorded[position]
        return None if recorded is None else whole(recorded)

    @torch.no_grad()
    def apply(self, *, record: bool) -> None:
        """Multiply all gradients by their masks; keep the dense ones first if asked."""
        gradients: list[Tensor] = []
        masks: list[Tensor] = []
        for position, module in enumerate(self.modules):
            gradient = module._parameters["weight"].grad  # pyright: ignore[reportOptionalMemberAccess]
            if gradient is None:
                continue
            if record:
                self.recorded[position] = gradient.clone()
            gradients.append(gradient)
            masks.append(self.float_mask(position, gradient))
        if gradients:
            torch._foreach_mul_(gradients, masks)  # pyright: ignore[reportPrivateImportUsage]

    def float_mask(self, position: int, gradient: Tensor) -> Tensor:
        """Return the cached mask, made anew when the bool mask was replaced or written to."""
        mask = get_mask(self.modules[position])
        if mask is None:
            raise ConfigError(
                f"a masked {type(self.modules[position]).__name__} has lost its weight_mask; "
                "do not delete mask buffers of a model under training."
            )
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
