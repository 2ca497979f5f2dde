"""Where a text comes from, and its tokens.

Python's own help texts are embedded: half a megabyte of English that every installation has.
Otherwise files of plain text, or a column of strings in anything Hugging Face ``datasets`` reads.
Documents are put one behind the other, a newline (or the tokenizer's end mark) between them. Tokens
are held in memory: a byte each for bytes, four for those of a tokenizer.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Shaped
from torch import Tensor

from topospike.data.hub import find_column, find_source, open_dataset, split_of
from topospike.errors import CheckpointError, ConfigError, MissingDataError, require
from topospike.files.reading import read_bytes
from topospike.recipe import DataSettings

EMBEDDED = "pydoc-topics"
BYTES = 256
AT_ONCE = 1000
MOST_BYTES = 2**34
"""Of one text file."""


@dataclass(frozen=True)
class Corpus:
    """The tokens to train on and those of the test, before anything is cut."""

    train: Shaped[Tensor, " _"]  # parts have lengths of their own
    test: Shaped[Tensor, " _"]
    vocabulary: int


def topics() -> list[str]:
    """Return the help texts that ``help()`` shows in Python, in the order of their names.

    They are part of Python, so another version of it may have others.

    Examples
    --------
    >>> len("".join(topics())) > 400_000
    True
    """
    from pydoc_data.topics import topics as by_name

    return [by_name[name] for name in sorted(by_name)]


def open_corpus(settings: DataSettings) -> Corpus:
    """Read the text that the settings name and turn it into tokens.

    Raises
    ------
    MissingDataError
        If a file, a split, a column or the tokenizer is missing, or a file is not UTF-8.
    ConfigError
        If the source has no test split and none is cut off, or the tokenizer has no end mark.
    """
    coder = tokenizer_of(settings)
    fraction = settings.text.test_fraction
    if fraction:
        (whole,) = documents_of(settings, (settings.train_split,))
        tokens = tokens_of(whole, coder)
        cut = len(tokens) - round(fraction * len(tokens))
        train, test = tokens[:cut], tokens[cut:]
    else:
        splits = documents_of(settings, (settings.train_split, settings.test_split))
        train, test = (tokens_of(documents, coder) for documents in splits)
    return Corpus(train, test, BYTES if coder is None else len(coder))


def documents_of(settings: DataSettings, splits: tuple[str, ...]) -> list[Iterable[str]]:
    """Return the documents of each split; of one split alone, files have no part in its name."""
    if settings.source == EMBEDDED:
        if len(splits) > 1:
            raise ConfigError(
                f"data.text.test_fraction is 0 and {EMBEDDED!r} has no test split; cut the test "
                "off its end, for example with 0.1."
            )
        return [topics()]
    place = find_source(settings.source, file_allowed=True)
    if isinstance(place, Path) and place.is_file():
        if len(splits) > 1:
            raise ConfigError(
                f"data.text.test_fraction is 0 and data.source = {settings.source!r} is one file; "
                "cut the test off its end, for example with 0.1, or give a folder."
            )
        return [map(content, [place])]
    if isinstance(place, Path) and (files := sorted(place.rglob("*.txt"))):
        return [map(content, files_of(files, name, place, splits)) for name in splits]
    return list(columns_of(settings, splits))


def files_of(files: list[Path], split: str, place: Path, splits: tuple[str, ...]) -> list[Path]:
    """Return the files of a split, those whose path in the folder begins with its name."""
    if len(splits) == 1:
        return files
    found = [file for file in files if str(file.relative_to(place)).startswith(split)]
    if not found:
        raise MissingDataError(
            f"{place} has {len(files)} text files, and none whose name begins with {split!r}; "
            "rename them, or cut the test off the end of all of them with data.text.test_fraction."
        )
    return found


def content(file: Path) -> str:
    """Read a file of plain text."""
    try:
        return read_bytes(file, most=MOST_BYTES).decode("utf-8")
    except (CheckpointError, UnicodeDecodeError) as error:
        raise MissingDataError(
            f"{file} cannot be read as text ({error}); UTF-8 is required. Convert the file."
        ) from error


def columns_of(settings: DataSettings, splits: tuple[str, ...]) -> Iterator[Iterable[str]]:
    """Yield the text column of the splits of a dataset."""
    dataset, source = open_dataset(settings.source), settings.source
    for option, name in zip(("train_split", "test_split"), splits, strict=False):
        split = split_of(dataset, name, option=option, source=source)
        place = f"split {name!r} of {source!r}"
        column = find_column(split.features, "text", settings.text.column, place=place)
        yield (row or "" for row in split[column])


def tokenizer_of(settings: DataSettings) -> Any:
    """Load the tokenizer, which must know how to end a document; ``None`` for bytes."""
    name = settings.text.tokenizer
    if name is None:
        return None
    require("transformers", purpose=f"the tokenizer {name!r}")
    from transformers import AutoTokenizer

    try:
        coder: Any = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise MissingDataError(
            f"data.text.tokenizer = {name!r} cannot be loaded ({reason}). Give a folder that holds "
            "a tokenizer, a hub id, or null for bytes."
        ) from error
    if coder.eos_token_id is None:
        raise ConfigError(
            f"data.text.tokenizer = {name!r} has no end-of-text token, which is put between "
            "documents; choose another one, or null for bytes."
        )
    return coder


def tokens_of(documents: Iterable[str], coder: Any) -> Shaped[Tensor, " token"]:
    """Return the tokens of documents put one behind the other.

    Examples
    --------
    >>> tokens_of(["ab", "c"], None).tolist()
    [97, 98, 10, 99]
    """
    if coder is None:
        whole = "\n".join(documents).encode()
        return torch.from_numpy(np.frombuffer(whole, dtype=np.uint8).copy())
    parts, rest = [np.zeros(0, np.int32)], iter(documents)
    while several := list(itertools.islice(rest, AT_ONCE)):
        found = coder(several, add_special_tokens=False, verbose=False)["input_ids"]
        ended = (np.array([*ids, coder.eos_token_id], dtype=np.int32) for ids in found)
        parts.append(np.concatenate(list(ended)))
    return torch.from_numpy(np.concatenate(parts))
