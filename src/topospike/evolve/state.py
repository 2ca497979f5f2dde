"""Stage 2 (evolve): what a sparsifier writes into a checkpoint, and how it is checked.

Plain numbers, strings and tensors with an explicit list of fields, so ``torch.load`` with
``weights_only=True`` and any JSON-and-tensors format can hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from topospike.errors import CheckpointError

FORMAT_VERSION = 1
FIELDS = (
    "plan",
    "plan_digest",
    "update_index",
    "last_epoch",
    "is_frozen",
    "stopped",
    "links",
    "ever_active",
)


def check_format(state: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` unless the state has this version and every field."""
    version = state.get("format_version")
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"the sparsifier state has format_version {version!r}; this version of topospike reads "
            f"{FORMAT_VERSION}. Use the version that wrote it."
        )
    missing = [field for field in FIELDS if field not in state]
    if missing:
        raise CheckpointError(
            f"the sparsifier state lacks {', '.join(missing)}; it is incomplete. Use an intact "
            "checkpoint."
        )


def require_same_plan(state: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise `CheckpointError` naming the settings in which a checkpoint differs."""
    stored = state["plan"]
    # Through JSON, so that tuples and lists compare alike whatever format carried the state.
    one, other = (json.loads(json.dumps(plan, sort_keys=True)) for plan in (stored, own))
    if one == other:
        return
    differing = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
    details = "; ".join(
        f"{key}: {one.get(key)!r} in the checkpoint, {other.get(key)!r} here"
        if key != "layers"
        else f"layers: {layer_differences(one.get(key) or {}, other[key])}"
        for key in differing
    )
    raise CheckpointError(
        f"the sparsifier state belongs to another plan ({details}). Call sparsify with the "
        "settings of the checkpoint."
    )


def layer_differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Name the layers that differ."""
    return ", ".join(name for name in sorted({*one, *other}) if one.get(name) != other.get(name))


def require_same_links(state: Mapping[str, Any], masks: Mapping[str, Tensor]) -> None:
    """Raise `CheckpointError` unless every mask has as many links as the checkpoint says."""
    for name, mask in masks.items():
        links, stored = int(mask.sum()), state["links"][name]
        if links != stored:
            raise CheckpointError(
                f"layer {name!r} has {links} links, the checkpoint {stored}. Load the model's "
                "state_dict (with its weight_mask entries) before the sparsifier's."
            )
