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
    """A read-only table of named objects of one kind.

    Examples
    --------
    >>> rules = Registry("rule", {"set": 1, "chts": 2})
    >>> rules["chts"]
    2
    >>> rules["cths"]
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: unknown rule 'cths'. Known: chts, set. Did you mean 'chts'?
    """

    def __init__(self, kind: str, table: Mapping[str, T]) -> None:
        self._kind = kind
        self._table = dict(table)

    def __getitem__(self, name: str) -> T:
        if name not in self._table:
            known = ", ".join(sorted(self._table))
            hint = suggestion(name, self._table)
            raise ConfigError(f"unknown {self._kind} {name!r}. Known: {known}.{hint}")
        return self._table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
