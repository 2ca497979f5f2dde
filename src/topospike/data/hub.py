"""Data stage: anything in the Hugging Face layout, opened through ``datasets``.

A source is a folder of parquet files as on the hub, a folder of images (``train/cat/1.png``), or a
hub id (``owner/name``). A folder is looked up as given, then under the environment variable
``TOPOSPIKE_DATA``; a local folder never needs a network. This module opens and checks, and decodes
nothing. A column named in the recipe is taken. Otherwise the type decides (``Image``,
``ClassLabel``), and among several of one type the customary name; a choice that would be a guess is
an error.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from topospike.data.images import (
    EncodedImages,
    Frame,
    channels_of,
    frame_size,
    open_picture,
)
from topospike.data.ondemand import Images
from topospike.errors import MissingDataError, require
from topospike.recipe import DataSettings
from topospike.registry import suggestion

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict, Features

DATA_FOLDER_VARIABLE = "TOPOSPIKE_DATA"
INSPECTED_IMAGES = 256


@dataclass(frozen=True)
class Source:
    """The two splits of a dataset, before anything is cut or decoded."""

    train: Images
    test: Images
    classes: int
    channels: int
    image_size: tuple[int, int]
    label_names: tuple[str, ...] | None


@dataclass(frozen=True)
class ColumnKind:
    """What a column of one kind holds, the option that names it, its type, customary names."""

    holds: str
    option: str
    fits: Callable[[object], bool]
    declared: str
    names: tuple[str, ...]


def find_source(source: str, *, file_allowed: bool = False) -> Path | str:
    """Return the folder a source means, or the hub id itself.

    Parameters
    ----------
    source
        A path, or ``owner/name`` on the hub. Of a hub id, a folder ``owner/name`` or ``name``
        under ``TOPOSPIKE_DATA`` is preferred to a download.
    file_allowed
        Whether a file will do too.

    Raises
    ------
    MissingDataError
        If it is neither a folder (here or under ``TOPOSPIKE_DATA``) nor can be a hub id; lists
        the places looked at and the folders that do exist.
    """
    given = Path(source).expanduser()
    root = os.environ.get(DATA_FOLDER_VARIABLE)
    is_hub_id = re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", source) is not None
    places = [given]
    if root and not given.is_absolute():
        places.append(Path(root).expanduser() / given)
        # a local copy of a hub dataset usually lies there without its owner's name
        places += [Path(root).expanduser() / given.name] if is_hub_id else []
    for place in places:
        if place.is_dir() or (file_allowed and place.is_file()):
            return place
        if place.is_file():
            raise MissingDataError(
                f"data.source = {source!r} is a file ({place}); give the folder that contains it"
            )
    if is_hub_id:
        return source
    raise MissingDataError(f"data.source = {source!r} was not found. {looked_at(places, root)}")


def looked_at(places: list[Path], root: str | None) -> str:
    """Say where a folder was looked for and what to do."""
    text = f"Looked for the folder {' and '.join(str(place.absolute()) for place in places)}."
    if root is None:
        return (
            f"{text} The environment variable {DATA_FOLDER_VARIABLE} is not set; set it to the "
            "folder that holds your datasets, or give a full path, 'digits', or a hub id "
            "'owner/name'"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        return f"{text} {DATA_FOLDER_VARIABLE} = {root} is not a folder"
    known = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    hint = suggestion(places[0].name, known)
    return (
        f"{text} {DATA_FOLDER_VARIABLE} = {root} holds: {', '.join(known) or 'no folders'}.{hint}"
    )


@contextmanager
def quiet_unless_terminal() -> Iterator[None]:
    """Switch the progress bars of ``datasets`` off while nobody watches."""
    import datasets

    silence = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if silence:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            datasets.enable_progress_bars()


def open_dataset(source: str) -> DatasetDict:
    """Open all splits of a source.

    Raises
    ------
    MissingDataError
        If the folder has no data files, a file is damaged, or the hub cannot be reached.
    """
    place = find_source(source)
    require("datasets", "PIL", purpose=f"the dataset {source!r}")
    import datasets
    from datasets.exceptions import DatasetGenerationError

    with quiet_unless_terminal():
        try:
            return datasets.load_dataset(str(place))
        except (OSError, ValueError, DatasetGenerationError) as error:
            cause = error.__cause__ or error
            if isinstance(place, Path):
                advice = (
                    "It must hold parquet files or image folders named after their split, such "
                    "as train-00000-of-00001.parquet or train/<class>/<image>.png"
                )
                where = f"the folder {place.absolute()} cannot be read as a dataset"
            else:
                folder = os.environ.get(DATA_FOLDER_VARIABLE, "not set")
                advice = "Check the name and the network, or give a local folder"
                where = (
                    f"there is no such folder here or under {DATA_FOLDER_VARIABLE} ({folder}), "
                    "and the hub has not given it"
                )
            raise MissingDataError(
                f"data.source = {source!r}: {where}: {type(cause).__name__}: {cause}. {advice}"
            ) from error


def split_of(dataset: DatasetDict, name: str, *, option: str, source: str) -> Dataset:
    """Return one split, which must exist and not be empty."""
    if name not in dataset:
        raise MissingDataError(
            f"data.{option} = {name!r} is not a split of {source!r}. "
            f"Splits: {', '.join(sorted(map(str, dataset)))}.{suggestion(name, map(str, dataset))}"
        )
    if len(dataset[name]) == 0:
        raise MissingDataError(f"split {name!r} of {source!r} has no rows; choose another split")
    return dataset[name]


def open_source(settings: DataSettings) -> Source:
    """Open the training and the test split of ``settings.source`` and check their columns.

    Raises
    ------
    MissingDataError
        If source, split or column is missing, or labels are hidden (-1) or too large.
    """
    dataset, source = open_dataset(settings.source), settings.source
    names = {"train_split": settings.train_split, "test_split": settings.test_split}
    opened = []
    for option, name in names.items():
        split = split_of(dataset, name, option=option, source=source)
        place = f"split {name!r} of {source!r}"
        column = find_column(split.features, "image", settings.image_column, place=place)
        target = find_column(split.features, "label", settings.label_column, place=place)
        opened.append((split, name, column, np.asarray(split[target], dtype=np.int64), target))
    first, _, column, labels, target = opened[0]
    label_names = getattr(first.features[target], "names", None)
    classes = len(label_names) if label_names else int(labels.max()) + 1
    frame = common_frame(undecoded(first, column), column, settings)
    images = []
    for split, name, column, labels, _ in opened:
        check_labels(labels, classes, f"split {name!r} of {source!r}")
        raw = undecoded(split, column)
        images.append(EncodedImages(raw, labels, image_column=column, split=name, frame=frame))
    height, width = settings.image_size or (frame.height, frame.width)
    return Source(
        *images,
        classes=classes,
        channels=frame.channels,
        image_size=(height, width),
        label_names=tuple(label_names) if label_names else None,
    )


def undecoded(split: Dataset, column: str) -> Dataset:
    """Keep the image column only, as encoded bytes."""
    import datasets

    return split.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def check_labels(labels: Int64[np.ndarray, " image"], classes: int, place: str) -> None:
    """Refuse hidden (-1) and unknown classes."""
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise MissingDataError(
            f"{place}: image {wrong[0]} has label {labels[wrong[0]]}, outside 0..{classes - 1}. "
            "A label of -1 means that this split hides its classes; choose another one, for "
            "example data.test_split: validation"
        )


def common_frame(split: Dataset, column: str, settings: DataSettings) -> Frame:
    """Decide the form of decoded pictures from the first ones and the settings."""
    encoded = split[: min(INSPECTED_IMAGES, len(split))][column]
    pictures = [
        open_picture(example, place=f"image {row} of split {settings.train_split!r}")
        for row, example in enumerate(encoded)
    ]
    size = (pictures[0].height, pictures[0].width)
    if settings.image_size is not None:
        size = frame_size(settings.image_size)
    return Frame(
        channels=settings.channels or channels_of(Counter(p.mode for p in pictures)),
        height=size[0],
        width=size[1],
        resize=settings.image_size is not None,
        convert=settings.channels is not None,
    )


def described(features: Features) -> str:
    """List columns with their types, as in ``img (Image), label (ClassLabel)``."""
    return ", ".join(f"{name} ({type_name(features[name])})" for name in features) or "none"


def type_name(feature: object) -> str:
    """``Image``, ``ClassLabel``, or the plain type of a value, such as ``int64``."""
    return (
        str(getattr(feature, "dtype", None) or type(feature).__name__)
        if is_value(feature)
        else type(feature).__name__
    )


def is_value(feature: object) -> bool:
    """Whether a feature is a plain value (number, string, bytes)."""
    return type(feature).__name__ == "Value"


def holds_pictures(feature: object) -> bool:
    """Whether a feature is an image, or looks like the bytes of one."""
    if type(feature).__name__ == "Image":
        return True
    if isinstance(feature, dict):
        return set(feature) == {"bytes", "path"}
    return is_value(feature) and type_name(feature) in ("binary", "large_binary")


def holds_classes(feature: object) -> bool:
    """Whether a feature is a class label or an integer."""
    if type(feature).__name__ == "ClassLabel":
        return True
    return is_value(feature) and type_name(feature).startswith(("int", "uint"))


def holds_text(feature: object) -> bool:
    """Whether a feature is a string."""
    return is_value(feature) and type_name(feature) in ("string", "large_string")


COLUMNS = {
    "image": ColumnKind(
        "images", "image_column", holds_pictures, "Image", ("image", "img", "picture")
    ),
    "label": ColumnKind(
        "classes (ClassLabel or integers)",
        "label_column",
        holds_classes,
        "ClassLabel",
        ("label", "labels", "fine_label", "class", "target"),
    ),
    "text": ColumnKind(
        "text (strings)", "text.column", holds_text, "no type of its own", ("text", "content")
    ),
}


def find_column(features: Features, kind: str, wanted: str | None, *, place: str) -> str:
    """Find the column of images, of classes or of text.

    Parameters
    ----------
    features
        Columns of the split and their types.
    kind
        ``image``, ``label`` or ``text``.
    wanted
        The name in the recipe, or ``None``.
    place
        Which split of what, for messages.

    Raises
    ------
    MissingDataError
        If the named column is absent or holds something else, if there is none, or several.

    Notes
    -----
    CIFAR-100 has two label columns (``fine_label``, ``coarse_label``): the fine one is taken unless
    another is named.
    """
    column, listed = COLUMNS[kind], f"Columns: {described(features)}."
    if wanted is not None and wanted not in features:
        raise MissingDataError(
            f"data.{column.option} = {wanted!r} is not a column of {place}. {listed}"
            f"{suggestion(wanted, features)}"
        )
    if wanted is not None and not column.fits(features[wanted]):
        raise MissingDataError(
            f"data.{column.option} = {wanted!r} of {place} has type {type_name(features[wanted])}, "
            f"which holds no {column.holds}. {listed}"
        )
    if wanted is not None:
        return wanted
    declared = [name for name in features if type(features[name]).__name__ == column.declared]
    if len(declared) == 1:
        return declared[0]
    for name in column.names:
        if column.fits(features.get(name)) and (not declared or name in declared):
            return name
    problem = f"several {kind} columns ({', '.join(declared)})" if declared else f"no {kind} column"
    raise MissingDataError(
        f"{place} has {problem}. {listed} Set data.{column.option} to the one you mean"
    )
