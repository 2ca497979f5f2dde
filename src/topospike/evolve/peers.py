"""Stage 2 (evolve): one decision about the links for several processes.

Process 0 computes an update and sends it to the others as one object: for every layer the new mask
and the kept links as bits, and its record. Before and after, every process compares a checksum of
each mask with those of the others. How objects travel is the business of whatever stands behind
`Peers`; weights are never sent, they are equal already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from topospike.errors import TopologyViolation
from topospike.evolve.update import LayerOutcome
from topospike.topology import pack_bits, unpack_bits

T = TypeVar("T")


@runtime_checkable
class Peers(Protocol):
    """The processes that train copies of one model."""

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        ...

    def broadcast(self, message: T) -> T:
        """Return process 0's object, whatever the others pass."""
        ...

    def gather(self, value: T) -> list[T]:
        """Return the objects of all processes, by rank; every process gets them."""
        ...


def decided_by_the_first(
    peers: Peers,
    decide: Callable[[], Mapping[str, LayerOutcome]],
    *,
    device: torch.device,
) -> dict[str, LayerOutcome]:
    """Return what process 0 decides; on the others nothing is computed."""
    sent = None
    if peers.rank == 0:
        sent = {
            name: (tuple(one.mask.shape), pack_bits(one.kept), pack_bits(one.mask), one.change)
            for name, one in decide().items()
        }
    return {
        name: LayerOutcome(
            unpack_bits(kept, shape).to(device), unpack_bits(mask, shape).to(device), change
        )
        for name, (shape, kept, mask, change) in (peers.broadcast(sent) or {}).items()
    }


def checksum(mask: Tensor) -> str:
    """Compute the SHA-256 of a mask, row-major whatever its memory layout."""
    return hashlib.sha256(pack_bits(mask).numpy().tobytes()).hexdigest()


def require_same_masks(peers: Peers, masks: Mapping[str, Tensor], *, moment: str) -> None:
    """Compare the masks of all processes; every process must call this at the same point.

    Raises
    ------
    TopologyViolation
        On every process, naming the first process and layer that differ from process 0.
    """
    rows = peers.gather({name: checksum(mask) for name, mask in masks.items()})
    differing = [
        (rank, name)
        for rank, row in enumerate(rows)
        for name in {**rows[0], **row}
        if row.get(name) != rows[0].get(name)
    ]
    if not differing:
        return
    rank, name = differing[0]
    found, expected = (str(row.get(name))[:16] for row in (rows[rank], rows[0]))
    others = f" ({len(differing) - 1} more differ)" if len(differing) > 1 else ""
    raise TopologyViolation(
        f"{moment}, the mask of layer {name!r} on process {rank} is not that of process 0: "
        f"checksum {found} instead of {expected}{others}. All processes must train the same links: "
        "change masks through update_topology only, and go on from the last checkpoint."
    )
