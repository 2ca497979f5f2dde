"""Data stage: which column holds the images and which the classes.

A column named in the recipe is taken. Otherwise the type decides (``Image``, ``ClassLabel``), and
among several of one type the customary name; a choice that would be a guess is an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from topospike.errors import MissingDataError
from topospike.registry import suggestion

if TYPE_CHECKING:
    from datasets import Features

IMAGE_NAMES = ("image", "img", "picture")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "target")


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


def image_column(features: Features, wanted: str | None, *, place: str) -> str:
    """Find the column of images.

    Parameters
    ----------
    features
        Columns of the split and their types.
    wanted
        The name in the recipe, or ``None``.
    place
        Which split of what, for messages.

    Raises
    ------
    MissingDataError
        If the named column is absent or holds no images, if there is none, or several.
    """
    if wanted is not None:
        return checked(features, wanted, "image", holds_pictures(features.get(wanted)), place)
    typed = [name for name in features if type(features[name]).__name__ == "Image"]
    by_name = [name for name in IMAGE_NAMES if holds_pictures(features.get(name))]
    return chosen(features, typed, by_name, "image", place)


def label_column(features: Features, wanted: str | None, *, place: str) -> str:
    """Find the column of classes; parameters and errors as for `image_column`.

    Notes
    -----
    CIFAR-100 has two (``fine_label``, ``coarse_label``): the fine one is taken unless another is
    named.
    """
    if wanted is not None:
        return checked(features, wanted, "label", holds_classes(features.get(wanted)), place)
    typed = [name for name in features if type(features[name]).__name__ == "ClassLabel"]
    by_name = [name for name in LABEL_NAMES if holds_classes(features.get(name))]
    return chosen(features, typed, by_name, "label", place)


def checked(features: Features, wanted: str, kind: str, fits: bool, place: str) -> str:
    """Return ``wanted`` if it exists and has the right type."""
    if wanted not in features:
        raise MissingDataError(
            f"data.{kind}_column = {wanted!r} is not a column of {place}. "
            f"Columns: {described(features)}.{suggestion(wanted, features)}"
        )
    if not fits:
        need = "images" if kind == "image" else "classes (ClassLabel or integers)"
        raise MissingDataError(
            f"data.{kind}_column = {wanted!r} of {place} has type "
            f"{type_name(features[wanted])}, which holds no {need}. Columns: {described(features)}."
        )
    return wanted


def chosen(
    features: Features, typed: Sequence[str], by_name: Sequence[str], kind: str, place: str
) -> str:
    """Return the only column of the right type, else the first with a customary name."""
    if len(typed) == 1:
        return typed[0]
    for name in by_name:
        if not typed or name in typed:
            return name
    problem = f"several {kind} columns ({', '.join(typed)})" if typed else f"no {kind} column"
    raise MissingDataError(
        f"{place} has {problem}. Columns: {described(features)}. "
        f"Set data.{kind}_column to the one you mean"
    )
