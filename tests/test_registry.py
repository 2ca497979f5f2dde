"""A registry is a mapping that can grow: it answers like any other, and names what it knows."""

from collections.abc import Mapping

import pytest

from topospike.conversion import METHODS
from topospike.errors import ConfigError
from topospike.evolve import RULES
from topospike.measure import ENERGY_MODELS
from topospike.models import MODELS
from topospike.pruning import PRUNING_METHODS
from topospike.registry import Registry


@pytest.mark.parametrize("table", [METHODS, RULES, PRUNING_METHODS, MODELS, ENERGY_MODELS])
def test_it_answers_like_any_mapping(table: Registry) -> None:
    assert isinstance(table, Mapping)
    name = next(iter(table))
    assert name in table
    assert table.get(name) is table[name]
    for strange in ("no-such", None, 3):
        assert strange not in table
        assert table.get(strange) is None
        assert table.get(strange, 1) == 1
    assert dict(table.items()) == {key: table[key] for key in table.keys()}  # noqa: SIM118
    with pytest.raises(ConfigError, match=r"unknown .* Known: "):
        _ = table["no-such"]


def test_an_entry_can_be_added_once() -> None:
    table = Registry("thing", {"one": 1})
    assert table.register("two", 2) == 2
    assert dict(table) == {"one": 1, "two": 2}
    with pytest.raises(ConfigError, match="thing 'two' already"):
        table.register("two", 3)
    assert table["two"] == 2
