"""A second device for tests: tensors that say they are elsewhere, and hold their values.

An operation on tensors of both devices is an error, as between a processor and an accelerator
(numbers may be mixed in, copies may cross, indices may stay behind). So code that makes a tensor in
the wrong place fails on a machine without an accelerator, with the values of a real one to show.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
DEVICE = torch.device("meta")
CROSSING = {aten.copy_.default, aten._to_copy.default, aten.index.Tensor, aten.index_put_.default}


class Elsewhere(Tensor):
    """A tensor on the second device; ``held`` has its values."""

    held: Tensor
    is_meta = False  # it has values

    @staticmethod
    def __new__(cls, real: Tensor) -> Elsewhere:
        made = Tensor._make_wrapper_subclass(
            cls, real.size(), strides=real.stride(), storage_offset=real.storage_offset(),
            dtype=real.dtype, device=DEVICE, requires_grad=real.requires_grad,
        )  # fmt: skip
        made.held = real
        return made

    def new_tensor(self, data: Any, **options: Any) -> Elsewhere:
        """Make a tensor of numbers there (which torch does out of sight of a mode)."""
        return Elsewhere(self.held.new_tensor(data, **options))

    def __repr__(self, **_: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"Elsewhere({self.held})"

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


class SecondDevice(TorchDispatchMode):
    """While it is active, the device ``meta`` is one that holds values."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run an operation on the values, and put the result where it belongs."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Elsewhere)]
    here = [t for t in tensors if not isinstance(t, Elsewhere) and t.ndim]
    if there and here and func not in CROSSING:
        raise RuntimeError(f"{func} was given tensors on two devices")
    target = kwargs.get("device") or (DEVICE if there else torch.device("cpu"))
    if func in (aten.copy_.default, aten.index_put_.default):
        target = DEVICE if isinstance(args[0], Elsewhere) else torch.device("cpu")
    kwargs = {**kwargs, "device": torch.device("cpu")} if kwargs.get("device") else kwargs
    real_args, real_kwargs = tree_map(real, (args, kwargs))
    result = func(*real_args, **real_kwargs)
    known = {id(tensor.held): tensor for tensor in there}

    def placed(value: Any) -> Any:
        if not isinstance(value, Tensor) or target.type != DEVICE.type:
            return value
        return known[id(value)] if id(value) in known else Elsewhere(value)

    return tree_map(placed, result)


def real(value: Any) -> Any:
    """Return the values of a tensor of the second device."""
    return value.held if isinstance(value, Elsewhere) else value
