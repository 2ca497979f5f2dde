"""``record.json`` and ``stages.json`` of a run folder, each read in one place.

The record says who ran what, where, and for how long. It stays a mapping, since a page shows every
entry of it; what anything is computed from or depends on is checked here. A recipe in it is read by
`topospike.recipe.files`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, TypedDict

from topospike.files.ranges import Amount, Count, Order
from topospike.files.reading import converted, read_optional
from topospike.files.seal import FILE, OWN, RECORD, Stage, own_digest_checked, require_intact

REMEDY = "Delete it and repeat the command that made the run; finished stages are kept."
STAGES_REMEDY = (
    "Delete it to let every stage run again; training goes on from its checkpoints all the same."
)


class Settings(TypedDict, total=False):
    """What is looked up in any section of a recorded recipe."""

    name: str | None
    source: str
    method: str | None
    rule: str | None
    epochs: Count
    update_unit: str


class RecordedRecipe(TypedDict, total=False):
    """The sections of a recipe that pages and tables look into."""

    name: str
    data: Settings
    model: Settings
    train: Settings
    sparsity: Settings
    prune: Settings
    quantise: Settings
    direct: Settings
    convert: list[Settings]


class DataDescription(TypedDict, total=False):
    """The dataset, as it was loaded."""

    name: str
    train: Count
    validation: Count
    test: Count
    classes: Order
    channels: Count
    image_size: tuple[Count, Count]
    context: Count
    mean: list[float]
    std: list[float]


class Hardware(TypedDict, total=False):
    """The machine."""

    cpu: str
    threads: Count
    gpu: list[str]


class Recorded(TypedDict, total=False):
    """The record itself."""

    recipe: RecordedRecipe
    data: DataDescription | None
    hardware: Hardware
    seconds: dict[str, Amount]
    seed: Count
    started: str
    commit: str | None
    topology_digest: str | None
    warnings: list[str]


def read_run_record(folder: Path, *, strict: bool = False) -> dict[str, Any] | None:
    """Read the record of a run folder, ``None`` where there is none.

    ``strict``: one that was changed after it was written, or is of another run, is an error.

    Raises
    ------
    CheckpointError
        The file cannot be read, or an entry is not what it must be.
    """
    path = folder / RECORD
    if strict and os.path.lexists(path):
        require_intact(path)
    plain = read_optional(path, dict[str, Any], remedy=REMEDY)
    if plain is not None:
        plain.pop(OWN, None)  # records of earlier versions hold their own digest
        converted(plain, Recorded, path, remedy=REMEDY)
    return plain


def read_stages(folder: Path) -> dict[str, Stage]:
    """Read the stages of a folder; none when the file is missing."""
    path = folder / FILE
    prepare = own_digest_checked(path)
    return read_optional(path, dict[str, Stage], remedy=STAGES_REMEDY, prepare=prepare) or {}
