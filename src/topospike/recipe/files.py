"""Recipes: from the name of a recipe and a few overrides to one frozen `Recipe`.

A recipe is a YAML file whose keys are the fields of `topospike.recipe.Recipe`: one of those the
package brings, named without its ending, or any path. Overrides are applied key by key; a key that
does not exist is an error that names the nearest one that does. This module runs nothing.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import os
import re
from argparse import ArgumentError, Namespace
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from topospike.errors import ConfigError, TopospikeError, require
from topospike.files.reading import UNREADABLE, read_bytes, reason, shortened
from topospike.recipe import Recipe
from topospike.registry import suggestion

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

MOST_BYTES = 2**20
MOST_NESTED = 12
MOST_VALUES = 10_000
MOST_CHARACTERS = 1000


def packaged_recipes() -> tuple[str, ...]:
    """Return the names of the recipes that come with the package, sorted."""
    entries = (files("topospike") / "recipes").iterdir()
    names = (entry.name for entry in entries)
    return tuple(sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml")))


def resolve(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe, apply the overrides, and check every key and range.

    Parameters
    ----------
    name_or_path
        Name of a packaged recipe, or the path of a YAML file.
    overrides
        Nested mapping of the keys to replace; a sequence replaces the whole sequence.

    Returns
    -------
    Recipe
        Complete and frozen; what neither the file nor the overrides name has its default.

    Raises
    ------
    ConfigError
        No such recipe, no YAML, an unknown key, a value of the wrong type or out of range.

    Examples
    --------
    >>> resolve("demo", {"train": {"epochs": 2}}).train.epochs
    2
    """
    given = read_recipe(name_or_path)
    return recipe_from(merged(given, overrides or {}), source=f"recipe {name_or_path!r}")


def read_recipe(name_or_path: str) -> dict[str, Any]:
    """Read the mapping in a recipe file and check its keys; ``name`` defaults to the file's."""
    if name_or_path in packaged_recipes():
        text = (files("topospike") / "recipes" / f"{name_or_path}.yaml").read_text()
        name = name_or_path
    else:
        path = Path(name_or_path)
        text, name = read_text(path), path.stem
    source = f"recipe {name_or_path!r}"
    require("yaml", purpose="reading recipes")
    import yaml

    try:
        given = yaml.load(text, Loader=unique_keys(yaml))  # a SafeLoader
    except (yaml.YAMLError, *UNREADABLE) as error:
        raise ConfigError(f"{source} is not valid YAML: {reason(error)}") from error
    check_size(given, source)
    if not isinstance(given, dict):
        raise ConfigError(
            f"{source} holds {type(given).__name__}; a mapping of recipe keys is required, such "
            "as 'train: {epochs: 10}'."
        )
    check_keys(given, Recipe, source)
    return {"name": name, **given}


def unique_keys(yaml: Any) -> Any:
    """Return PyYAML's safe loader, but that a key given twice is an error and not overwritten."""

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            seen: set[str] = set()
            twice = [key for key in keys if key in seen or seen.add(key)]
            if twice:
                said = f"the key {shortened(twice[0], 60)!r} is given twice"
                raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)
            return super().construct_mapping(node, deep)

    return Loader


def read_text(path: Path) -> str:
    """Read a recipe file, or say which recipes there are."""
    if os.path.lexists(path):
        try:
            return read_bytes(path, most=MOST_BYTES, remedy="Give a YAML file.").decode()
        except (TopospikeError, UnicodeDecodeError) as error:
            raise ConfigError(f"no recipe can be read from {path}: {reason(error)}") from error
    known = packaged_recipes()
    raise ConfigError(
        f"no recipe {shortened(str(path), 100)!r}: it is neither a file nor one of "
        f"{', '.join(known)}."
        f"{suggestion(str(path), known)}"
    )


def recipe_from(given: Mapping[str, Any], *, source: str) -> Recipe:
    """Build a `Recipe` from nested plain values; what is not given keeps its default."""
    check_size(given, source)
    check_keys(given, Recipe, source)
    parser = recipe_parser()
    try:
        fields = parser.instantiate(parser.parse_object(dict(given)))
        return Recipe(**vars(fields))
    except ConfigError:
        raise
    except (ArgumentError, *UNREADABLE) as error:
        raise ConfigError(f"{source}: {shortened(readable(str(error)))}") from error


def check_size(given: Any, source: str) -> None:
    """Raise a `ConfigError` for what no recipe needs: deep nesting, thousands of values, long ones.

    Aliases of YAML count as often as they are used: a few lines of them can stand for billions.

    Examples
    --------
    >>> check_size([[[[[[[[[[[[[[]]]]]]]]]]]]]], "this")
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: this: it is nested more than 12 deep; a recipe needs less.
    """
    left, seen = [(given, 0)], 0
    while left:
        value, depth = left.pop()
        seen += 1
        if depth > MOST_NESTED:
            raise ConfigError(
                f"{source}: it is nested more than {MOST_NESTED} deep; a recipe needs less."
            )
        if seen > MOST_VALUES:
            raise ConfigError(
                f"{source}: it has more than {MOST_VALUES} values; a recipe needs less."
            )
        if isinstance(value, int) and value.bit_length() > 63:
            raise ConfigError(
                f"{source}: it has a number of {value.bit_length()} bits; at most 63 are used."
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{source}: it has the number {value}; finite numbers are required.")
        if isinstance(value, str) and len(value) > MOST_CHARACTERS:
            raise ConfigError(
                f"{source}: a text has {len(value)} characters; at most {MOST_CHARACTERS} are used."
            )
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or len(key) > MOST_CHARACTERS:
                    raise ConfigError(
                        f"{source}: a key is {shortened(repr(key), 60)}; a name is required."
                    )
            left += [(item, depth + 1) for item in value.values()]
        elif isinstance(value, (list, tuple)):
            left += [(item, depth + 1) for item in value]


@functools.cache
def recipe_parser() -> ArgumentParser:
    """Return the parser that turns plain values into typed ones."""
    require("jsonargparse", purpose="checking recipes")
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    return parser


def to_yaml(recipe: Recipe) -> str:
    """Write a recipe as the YAML file that gives it back.

    Examples
    --------
    >>> print(to_yaml(Recipe(name="x")).splitlines()[0])
    name: x
    """
    require("yaml", purpose="writing recipes")
    import yaml

    return yaml.safe_dump(to_plain(recipe), sort_keys=False, width=100)


def to_plain(value: Any) -> Any:
    """Turn dataclasses, namespaces and tuples into the mappings and lists of YAML and JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Namespace):
        return {key: to_plain(item) for key, item in vars(value).items()}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(item) for item in value]
    return value


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``overrides`` laid over it, mapping by mapping.

    Examples
    --------
    >>> merged({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 4}})
    {'a': 1, 'b': {'c': 2, 'd': 4}}
    """
    result = dict(base)
    for key, value in overrides.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = merged(below, value)
        result[key] = value
    return result


def check_keys(given: Mapping[str, Any], owner: type, source: str, place: str = "") -> None:
    """Raise a `ConfigError` for a key that is no field of ``owner``, and for null where none is."""
    hints = get_type_hints(owner)
    for key, value in given.items():
        where = f"{place}{key}"
        if key not in hints:
            if "options" in hints:
                hint = nearest(key, hints).replace("'", f"'{place}", 1)
                hint = hint or f" Options of the method go under '{place}options'."
            else:
                known = [f"{place}{name}" for name in hints]
                hint = nearest(where, known + list(dotted_names(Recipe)))
            raise ConfigError(f"{source}: unknown key {where!r}.{hint}")
        if value is None and type(None) not in get_args(hints[key]):
            raise ConfigError(
                f"{source}: {where!r} is null; a value is required. Leave the key out for its "
                "default."
            )
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"{source}: {where!r} is {shortened(repr(value), 60)}; a mapping of "
                    f"{', '.join(get_type_hints(hints[key]))} is required."
                )
            check_keys(value, hints[key], source, f"{where}.")
        item_type = next(iter(get_args(hints[key])), None)
        if dataclasses.is_dataclass(item_type) and isinstance(item_type, type):
            check_items(value, item_type, source, where)


def check_items(given: Any, owner: type, source: str, place: str) -> None:
    """Check the keys of every mapping in a sequence of settings."""
    if not isinstance(given, (list, tuple)):
        raise ConfigError(
            f"{source}: {place!r} is {shortened(repr(given), 60)}; a list of mappings is "
            f"required, such as '{place}: [{{{next(iter(get_type_hints(owner)))}: ...}}]'."
        )
    for index, item in enumerate(given):
        if not isinstance(item, Mapping):
            raise ConfigError(
                f"{source}: {place}[{index}] is {shortened(repr(item), 60)}; a mapping is required."
            )
        check_keys(item, owner, source, f"{place}[{index}].")


@functools.cache
def dotted_names(owner: type) -> tuple[str, ...]:
    """Return every key a recipe can have, dotted, such as ``train.epochs``."""
    names: list[str] = []
    for name, hint in get_type_hints(owner).items():
        names.append(name)
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            names += [f"{name}.{below}" for below in dotted_names(hint)]
    return tuple(names)


def nearest(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'train.epochs'?``: by the whole key, or else by its last part.

    Examples
    --------
    >>> nearest("epochs", ["name", "train.epochs"]), nearest("trian.epochs", ["train.epochs"])
    (" Did you mean 'train.epochs'?", " Did you mean 'train.epochs'?")
    """
    known = list(known)
    if near := difflib.get_close_matches(given, known, n=1, cutoff=0.75):
        return f" Did you mean {near[0]!r}?"
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(known)}
    near = difflib.get_close_matches(given.rpartition(".")[2], list(by_last_part), n=1, cutoff=0.7)
    return f" Did you mean {by_last_part[near[0]]!r}?" if near else ""


def readable(message: str) -> str:
    """Put a parser's message on one line and drop the parser's own vocabulary."""
    message = " ".join(message.split())
    message = re.sub(r"Problem with given class_path '[^']+': ", "", message)
    message = re.sub(r'Parser key "([^"]+)":', r"\1:", message)
    message = re.sub(r"<class '(\w+)'>", r"\1", message).replace("NoneType", "null")
    message = re.sub(r"Expected an? (\w+)\. Got value: (.*)", r"\1 required, got \2", message)
    union = re.search(r"Does not validate against any of the Union .*?: \[(.*)\] Errors: ", message)
    if union:
        value = message.rpartition("Given value: ")[2]
        wanted = union[1].replace(", null", " or null")
        message = f"{message[: union.start()]}{wanted} required, got {value}"
    return message
