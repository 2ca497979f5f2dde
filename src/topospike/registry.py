"""Name -> object tables whose errors list the names and suggest the nearest one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from topospike.errors import ConfigError

T = TypeVar("T")


def suggestion(given: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the known name nearest to ``given``, or an empty string."""
    near = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


class Registry(Mapping[str, T]):
    """A table of named objects of one kind, a mapping that can grow and never shrinks.

    Every choice made by name (methods of conversion, rules of evolution, models, ...) is looked up
    in one of these; what `register` adds is known to Python, recipes and the command line alike.

    Examples
    --------
    >>> rules = Registry("rule", {"set": 1, "chts": 2})
    >>> rules["chts"]
    2
    >>> rules["cths"]
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: unknown rule 'cths'. Known: chts, set. Did you mean 'chts'?

    A rule of one's own:

    >>> _ = rules.register("mine", 3)
    >>> "mine" in rules, "cths" in rules, rules.get("cths", 0)
    (True, False, 0)
    """

    def __init__(self, kind: str, table: Mapping[str, T]) -> None:
        self._kind = kind
        self._table = dict(table)

    def register(self, name: str, entry: T) -> T:
        """Add an entry under a new name and return it; `ConfigError` if the name is taken."""
        if name in self._table:
            raise ConfigError(
                f"there is a {self._kind} {name!r} already; register yours under another name."
            )
        self._table[name] = entry
        return entry

    def __getitem__(self, name: str) -> T:
        if name not in self._table:
            known = ", ".join(sorted(self._table))
            hint = suggestion(str(name), self._table)
            raise ConfigError(f"unknown {self._kind} {name!r}. Known: {known}.{hint}")
        return self._table[name]

    # The mapping's own versions of these two catch KeyError, which an unknown name does not raise.
    def __contains__(self, name: object) -> bool:
        return name in self._table

    def get(self, name: object, default: T | None = None) -> T | None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the entry of a name, or ``default``."""
        return self._table.get(name, default) if isinstance(name, str) else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
