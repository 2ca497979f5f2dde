"""What changed between two sets of records: counts, energies and accuracies of the same runs.

Every ``evaluation.json`` of the second folder is compared with the one at the same place in the
first. A difference has a cause in the records, which is said: other conventions, other images or
steps, a layer that has another name, other links (MACs, density), other spikes (operations with
equal links), another ANN. What is in one folder only is listed. Exit status 1 if anything differs
by more than the tolerance.

    python benchmarks/compare_results.py [OLD NEW] [--tolerance 1e-6]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from timing import table

from topospike.contracts import Evaluation, LayerOperations

RECORDS = Path(__file__).parent.parent / "results"
FILE = "evaluation.json"


def differs(old: float, new: float, tolerance: float) -> bool:
    """Tell whether two numbers differ by more than a share of the larger one."""
    return abs(old - new) > tolerance * max(abs(old), abs(new))


def percent(old: float, new: float) -> str:
    """Write a change."""
    return f"{old:.6g} -> {new:.6g}" + (f" ({100 * (new / old - 1):+.3g} %)" if old else "")


def changes(old: Evaluation, new: Evaluation, tolerance: float) -> Iterator[tuple[str, str]]:
    """Yield what differs between two evaluations, and why."""
    for name in sorted({*old.conventions, *new.conventions}):
        before, after = old.conventions.get(name), new.conventions.get(name)
        if before != after:
            yield f"convention {name}", f"{before} -> {after}"
    if old.images != new.images:
        yield "images", f"{old.images} -> {new.images}"
    steps = min(len(old.timesteps), len(new.timesteps))
    if len(old.timesteps) != len(new.timesteps):
        yield "steps", f"{len(old.timesteps)} -> {len(new.timesteps)}; compared at {steps}"
    last = steps - 1
    for name in ("ann_accuracy", "ann_energy_joule", "ann_dense_energy_joule"):
        before, after = getattr(old, name), getattr(new, name)
        if differs(before, after, tolerance):
            yield name, percent(before, after)
    for name in ("accuracy", "energy_joule", "sops", "macs_per_step"):
        before, after = getattr(old, name)[last], getattr(new, name)[last]
        if differs(before, after, tolerance):
            yield f"{name} at t = {steps}", percent(before, after)
    yield from layer_changes(old, new, last, tolerance)


def layer_changes(
    old: Evaluation, new: Evaluation, last: int, tolerance: float
) -> Iterator[tuple[str, str]]:
    """Yield the layers whose counts differ, by name; by place where only names changed."""
    ours, theirs = {la.name: la for la in new.layers}, {la.name: la for la in old.layers}
    if set(ours) != set(theirs) and len(ours) == len(theirs):
        renamed = [f"{a} -> {b}" for a, b in zip(theirs, ours, strict=True) if a != b]
        yield "layers renamed", ", ".join(renamed)
        theirs = dict(zip(ours, old.layers, strict=True))
    for name in [*ours, *(n for n in theirs if n not in ours)]:
        if name not in ours or name not in theirs:
            yield f"layer {name}", "only in the new" if name in ours else "only in the old"
        else:
            yield from one_layer(theirs[name], ours[name], last, tolerance)


def one_layer(
    old: LayerOperations, new: LayerOperations, last: int, tolerance: float
) -> Iterator[tuple[str, str]]:
    """Yield what differs in a layer: how it is fed, its links, its operations apart from these."""
    if old.input != new.input:
        yield f"layer {new.name} is fed by", f"{old.input} -> {new.input}"
    linked = differs(old.macs, new.macs, tolerance)
    if linked:
        yield f"layer {new.name}, other links (MACs)", percent(old.macs, new.macs)
    if differs(old.macs_dense, new.macs_dense, tolerance):
        yield f"layer {new.name}, other shape (MACs)", percent(old.macs_dense, new.macs_dense)
    for name, cause in (("sops", "spikes"), ("snn_macs", "MACs of the SNN")):
        before, after = getattr(old, name)[last], getattr(new, name)[last]
        if differs(before, after, tolerance):
            links = "other links" if linked else f"other {cause}, equal links"
            yield f"layer {new.name}, {links}", percent(before, after)


def main() -> int:
    """Compare, print, and tell whether anything differs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="as all benchmarks have it; no effect")
    parser.add_argument("folders", nargs="*", type=Path, default=[RECORDS, RECORDS])
    parser.add_argument("--tolerance", type=float, default=1e-6)
    given = parser.parse_args()
    if len(given.folders) != 2:
        parser.error("give two folders, the old and the new")
    old, new = ({p.relative_to(f): p for p in f.rglob(FILE)} for f in given.folders)
    rows = []
    for place in sorted({*old, *new}):
        if place not in old or place not in new:
            rows.append([str(place.parent), "record", "only new" if place in new else "only old"])
            continue
        before, after = Evaluation.load(old[place]), Evaluation.load(new[place])
        found = changes(before, after, given.tolerance)
        rows += [[str(place.parent), what, change] for what, change in found]
    if rows:
        table(["record", "what", "change"], rows)
    alike = len({*old} & {*new} - {Path(row[0]) / FILE for row in rows})
    print(f"{alike} of {len({*old, *new})} records are alike within {given.tolerance:g}.")
    return int(bool(rows))


if __name__ == "__main__":
    sys.exit(main())
