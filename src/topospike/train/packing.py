"""Stage train: split nested state into a JSON tree and named tensors, and join them again.

A tensor becomes ``{"__tensor__": name}``, named by its place, for instance
``optimizer.state.0.momentum_buffer``; a tuple ``{"__tuple__": [..]}``; a mapping whose keys are not
all plain strings ``{"__pairs__": [[key, value], ..]}``. Numbers survive exactly. Anything else is
refused rather than pickled. Nothing here touches a disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from topospike.errors import CheckpointError


def pack(payload: Any) -> tuple[Any, dict[str, Tensor]]:
    """Split a payload into JSON values and the tensors they name.

    Raises
    ------
    CheckpointError
        The payload holds something that is neither plain nor a tensor; names the place.

    Examples
    --------
    >>> import torch
    >>> tree, tensors = pack({"weight": torch.ones(2), "betas": (0.9, 0.99)})
    >>> tree
    {'weight': {'__tensor__': 'weight'}, 'betas': {'__tuple__': [0.9, 0.99]}}
    >>> unpack(tree, tensors)["betas"]
    (0.9, 0.99)
    """
    tensors: dict[str, Tensor] = {}
    return pack_value(payload, "", tensors), tensors


def pack_value(value: Any, place: str, tensors: dict[str, Tensor]) -> Any:
    """Turn the value at ``place`` into JSON values, moving its tensors to ``tensors``."""
    if isinstance(value, Tensor):
        name = place if place not in tensors else f"{place}#{len(tensors)}"
        tensors[name] = value
        return {"__tensor__": name}
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Mapping):
        pairs = [[key, pack_value(item, below(place, key), tensors)] for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return dict(pairs)
        return {"__pairs__": pairs}
    if isinstance(value, (list, tuple)):
        items = [pack_value(item, below(place, i), tensors) for i, item in enumerate(value)]
        return items if isinstance(value, list) else {"__tuple__": items}
    raise CheckpointError(
        f"cannot checkpoint {place!r}: it is a {type(value).__name__}. State must be made of "
        "tensors, numbers, strings, booleans, None, and mappings, lists and tuples of them."
    )


def below(place: str, key: object) -> str:
    """Name the place of an entry."""
    return f"{place}.{key}" if place else str(key)


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Undo `pack`."""
    if isinstance(value, list):
        return [unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__tuple__" in value:
        return tuple(unpack(item, tensors) for item in value["__tuple__"])
    if "__pairs__" in value:
        return {key: unpack(item, tensors) for key, item in value["__pairs__"]}
    return {key: unpack(item, tensors) for key, item in value.items()}


def own_memory(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, contiguous; of two that share memory the second is copied."""
    seen: set[int] = set()
    owned: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.untyped_storage().data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        owned[name] = plain
    return owned
