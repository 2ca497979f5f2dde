"""Which simulations are timed: a minute's worth, a representative selection, or all of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

HORIZONS = (4, 8, 16, 32)
NETWORKS = ("small", "vgg16", "resnet18", "vit-s")
ENGINES = ("decoded", "bf16", "event", "integer")


@dataclass(frozen=True)
class Case:
    """A network, a batch, and the numbers of steps for our engines and for other simulators."""

    network: str
    sparse: bool
    batch: int
    horizons: tuple[int, ...]
    others: tuple[int, ...] = ()

    def __str__(self) -> str:
        return f"{self.network}, {'few links' if self.sparse else 'dense'}, batch {self.batch}"


def standard() -> list[Case]:
    """Return at least one case of everything: about twenty minutes on a quiet core.

    All numbers of steps on the small network, where other simulators are also followed (their
    memory grows with T); eight elsewhere, and four for the transformer in large batches.
    """
    return [
        Case("small", False, 64, HORIZONS, (4, 8, 16)),
        Case("small", False, 1, HORIZONS, HORIZONS),
        Case("small", True, 64, (8,)),
        Case("small", True, 1, (8,)),
        Case("vgg16", False, 64, (8,), (8,)),
        Case("vgg16", False, 1, HORIZONS, (8,)),
        Case("vgg16", True, 64, (8,)),
        Case("vgg16", True, 1, HORIZONS),
        Case("resnet18", False, 64, (8,)),
        Case("resnet18", False, 1, (8,)),
        Case("resnet18", True, 64, (8,)),
        Case("vit-s", False, 64, (4,)),
        Case("vit-s", False, 1, (8,)),
        Case("vit-s", True, 1, (8,)),
    ]


def table() -> list[Case]:
    """Return three convolutional networks at all numbers of steps: about half an hour."""
    return [
        Case("vgg16", False, 1, HORIZONS, HORIZONS),
        Case("resnet18", False, 1, HORIZONS),
        Case("small", False, 1, HORIZONS, HORIZONS),
        Case("small", False, 64, HORIZONS, HORIZONS),
        Case("vgg16", False, 64, HORIZONS, (8,)),
        Case("resnet18", False, 64, HORIZONS),
    ]


def full() -> list[Case]:
    """Return every network, dense and with few links, in both batches, for every T: hours."""
    chain = ("small", "vgg16")
    return [
        Case(name, sparse, batch, HORIZONS, HORIZONS if name in chain and not sparse else ())
        for name, sparse, batch in product(NETWORKS, (False, True), (64, 1))
    ]


def quick() -> list[Case]:
    """Return about a minute's worth."""
    return [
        Case("small", False, 16, (4, 8), (4,)),
        Case("small", True, 16, (4,)),
        Case("small", False, 1, (4,), (4,)),
    ]


SELECTIONS = {"quick": quick, "table": table, "standard": standard, "full": full}


def chosen(
    selection: str,
    networks: Sequence[str] | None,
    batches: Sequence[int] | None,
    steps: Sequence[int] | None,
) -> list[Case]:
    """Return a selection, narrowed to some networks and batches; ``steps`` replaces all T."""
    cases = [
        case
        for case in SELECTIONS[selection]()
        if (not networks or case.network in networks) and (not batches or case.batch in batches)
    ]
    if not steps:
        return cases
    others = tuple(steps)
    return [replace(c, horizons=others, others=others if c.others else ()) for c in cases]
