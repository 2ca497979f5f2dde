"""Stage 2 (evolve): one decision about the links for several processes.

Process 0 computes an update and sends it to the others as one message of bytes: for every layer
the new mask and the kept links as bits, then the numbers of its record. Before and after, every
process compares a 64-bit checksum of each mask with those of the others. How bytes travel is the
business of whatever stands behind `Peers`; weights are never sent, they are equal already.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from topospike.contracts import LayerChange
from topospike.errors import TopologyViolation
from topospike.evolve.update import LayerOutcome
from topospike.topology import pack_bits, unpack_bits

CHANGE_FIELDS = dataclasses.fields(LayerChange)
NUMBER_BYTES = 8
Shape = Sequence[int]


class Peers(Protocol):
    """The processes that train copies of one model."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    def broadcast(self, message: Tensor) -> Tensor:
        """Return process 0's tensor; the others pass one of the same shape and dtype."""
        ...

    def gather(self, value: Tensor) -> list[Tensor]:
        """Return the tensors of all processes, by rank; every process gets them."""
        ...


def message_bytes(shapes: Mapping[str, Shape]) -> int:
    """Return the length of the message for layers of these shapes.

    Examples
    --------
    >>> message_bytes({"fc": (10, 100)})
    322
    """
    numbers = NUMBER_BYTES * len(CHANGE_FIELDS)
    return sum(2 * packed_bytes(shape) + numbers for shape in shapes.values())


def packed_bytes(shape: Shape) -> int:
    """Return how many bytes a mask of this shape takes at one bit a link."""
    return -(-math.prod(shape) // 8)


def encode(outcomes: Mapping[str, LayerOutcome]) -> UInt8[Tensor, " bytes"]:
    """Write an update of all layers as one tensor of bytes."""
    parts: list[Tensor] = []
    for outcome in outcomes.values():
        values = [getattr(outcome.change, field.name) for field in CHANGE_FIELDS]
        numbers = [math.nan if value is None else float(value) for value in values]
        parts += [pack_bits(outcome.mask), pack_bits(outcome.kept)]
        parts.append(torch.tensor(numbers, dtype=torch.float64).view(torch.uint8))
    return torch.cat(parts)


def decode(
    message: UInt8[Tensor, " bytes"],
    shapes: Mapping[str, Shape],
    *,
    device: torch.device | str = "cpu",
) -> dict[str, LayerOutcome]:
    """Undo `encode`, for layers of these shapes in the same order.

    Examples
    --------
    >>> mask = torch.tensor([[True, False, True]])
    >>> change = LayerChange(2, 1, 0, 1, 2, 2, 0, 0.0)
    >>> sent = encode({"fc": LayerOutcome(mask.clone(), mask, change)})
    >>> received = decode(sent, {"fc": (1, 3)})["fc"]
    >>> received.mask.tolist(), received.change == change
    ([[True, False, True]], True)
    """
    rest, outcomes = message.cpu(), {}
    for name, shape in shapes.items():
        bits, numbers = packed_bytes(shape), NUMBER_BYTES * len(CHANGE_FIELDS)
        mask, kept, record, rest = rest.split([bits, bits, numbers, len(rest) - 2 * bits - numbers])
        outcomes[name] = LayerOutcome(
            kept=unpack_bits(kept, shape).to(device),
            mask=unpack_bits(mask, shape).to(device),
            change=decode_change(record),
        )
    return outcomes


def decode_change(record: UInt8[Tensor, " bytes"]) -> LayerChange:
    """Read the record of one layer; whole numbers below 2^53 survive exactly."""
    values: dict[str, Any] = {}
    # A copy, because bytes in the middle of a message need not lie where numbers may begin.
    numbers = record.clone().view(torch.float64).tolist()
    for field, number in zip(CHANGE_FIELDS, numbers, strict=True):
        whole_number = int(number) if field.type in ("int", int) else number
        values[field.name] = None if math.isnan(number) else whole_number
    return LayerChange(**values)


def checksums(masks: Mapping[str, Bool[Tensor, ...]]) -> Int64[Tensor, " layer"]:
    """Compute 64 bits of the SHA-256 of every mask, row-major whatever its memory layout."""
    digests = [
        hashlib.sha256(pack_bits(mask).numpy().tobytes()).digest() for mask in masks.values()
    ]
    numbers = [int.from_bytes(digest[:8], "little", signed=True) for digest in digests]
    return torch.tensor(numbers, dtype=torch.int64)


def require_same_masks(peers: Peers, masks: Mapping[str, Tensor], *, moment: str) -> None:
    """Compare the masks of all processes; every process must call this at the same point.

    Raises
    ------
    TopologyViolation
        On every process, naming the first process and layer that differ from process 0.
    """
    rows = [row.tolist() for row in peers.gather(checksums(masks))]
    differing = [
        (rank, name, row[layer], rows[0][layer])
        for rank, row in enumerate(rows)
        for layer, name in enumerate(masks)
        if row[layer] != rows[0][layer]
    ]
    if not differing:
        return
    rank, name, found, expected = differing[0]
    others = f" ({len(differing) - 1} more differ)" if len(differing) > 1 else ""
    raise TopologyViolation(
        f"{moment}, the mask of layer {name!r} on process {rank} is not that of process 0: "
        f"checksum {found & (2**64 - 1):016x} instead of {expected & (2**64 - 1):016x}{others}. "
        "All processes must train the same links: change masks through update_topology only, and "
        "go on from the last checkpoint."
    )


def whole(tensor: Tensor) -> Tensor:
    """Return all of a tensor that is sharded over processes (a collective), others as they are."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor  # pyright: ignore[reportAttributeAccessIssue]


def laid_out_as(tensor: Tensor, reference: Tensor) -> Tensor:
    """Shard a tensor, equal on all processes, as ``reference`` is; nothing is sent."""
    if not is_sharded(reference):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    sharded: Any = reference
    return distribute_tensor(tensor, sharded.device_mesh, sharded.placements, src_data_rank=None)


def is_sharded(tensor: Tensor) -> bool:
    """Tell a DTensor without importing what makes them."""
    return hasattr(tensor, "full_tensor")
