"""Data stage: anything in the Hugging Face layout, opened through ``datasets``.

A source is a folder of parquet files as on the hub, a folder of images (``train/cat/1.png``), or a
hub id (``owner/name``). A folder is looked up as given, then under the environment variable
``TOPOSPIKE_DATA``; a local folder never needs a network. This module opens and checks; decoding is
done by `topospike.data.decode`.
"""

from __future__ import annotations

import os
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from topospike.data.columns import image_column, label_column
from topospike.data.decode import Frame, channels_of, frame_size, open_picture
from topospike.data.images import EncodedImages, PictureReader
from topospike.errors import ConfigError, MissingDataError, require
from topospike.recipe import DataSettings
from topospike.registry import suggestion

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

DATA_FOLDER_VARIABLE = "TOPOSPIKE_DATA"
INSPECTED_IMAGES = 256


@dataclass(frozen=True)
class HubSplits:
    """The two splits of a dataset, opened but not decoded."""

    train: EncodedImages
    test: EncodedImages
    classes: int
    label_names: tuple[str, ...] | None


def find_source(source: str) -> Path | str:
    """Return the folder a source means, or the hub id itself.

    Parameters
    ----------
    source
        A path, or ``owner/name`` on the hub. Of a hub id, a folder ``owner/name`` or ``name``
        under ``TOPOSPIKE_DATA`` is preferred to a download.

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
        if place.is_dir():
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
        raise MissingDataError(f"split {name!r} of {source!r} has no images; choose another split")
    return dataset[name]


def open_source(settings: DataSettings) -> HubSplits:
    """Open the training and the test split of ``settings.source`` and check their columns.

    Raises
    ------
    MissingDataError
        If source, split or column is missing, or labels are hidden (-1) or too large.
    ConfigError
        If training and test split are the same.
    """
    if settings.train_split == settings.test_split:
        raise ConfigError(
            f"data.train_split and data.test_split are both {settings.train_split!r}; the test "
            "split must hold images that are not trained on"
        )
    dataset = open_dataset(settings.source)
    pair = [
        split_of(dataset, settings.train_split, option="train_split", source=settings.source),
        split_of(dataset, settings.test_split, option="test_split", source=settings.source),
    ]
    names = (settings.train_split, settings.test_split)
    places = [f"split {name!r} of {settings.source!r}" for name in names]
    columns = [
        (
            image_column(split.features, settings.image_column, place=place),
            label_column(split.features, settings.label_column, place=place),
        )
        for split, place in zip(pair, places, strict=True)
    ]
    label_names = getattr(pair[0].features[columns[0][1]], "names", None)
    labels = [np.asarray(pair[i][columns[i][1]], dtype=np.int64) for i in range(2)]
    classes = len(label_names) if label_names else int(labels[0].max()) + 1
    for values, place in zip(labels, places, strict=True):
        check_labels(values, classes, place)
    raw = [undecoded(pair[i], columns[i][0]) for i in range(2)]
    frame = common_frame(raw[0], columns[0][0], settings)
    train, test = (
        EncodedImages(
            PictureReader(
                raw[i],
                image_column=columns[i][0],
                split=names[i],
                frame=frame,
                rows=np.arange(len(raw[i])),
            ),
            labels[i],
        )
        for i in range(2)
    )
    return HubSplits(train, test, classes, tuple(label_names) if label_names else None)


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
    if settings.channels not in (None, 1, 3):
        raise ConfigError(f"data.channels = {settings.channels} must be 1, 3 or null")
    encoded = split[: min(INSPECTED_IMAGES, len(split))][column]
    pictures = [
        open_picture(example, place=f"image {row} of split {settings.train_split!r}")
        for row, example in enumerate(encoded)
    ]
    size = (pictures[0].height, pictures[0].width)
    if settings.image_size is not None:
        if min(settings.image_size) < 1:
            raise ConfigError(f"data.image_size = {settings.image_size} must be positive")
        size = frame_size(settings.image_size)
    return Frame(
        channels=settings.channels or channels_of(Counter(p.mode for p in pictures)),
        height=size[0],
        width=size[1],
        resize=settings.image_size is not None,
        convert=settings.channels is not None,
    )
