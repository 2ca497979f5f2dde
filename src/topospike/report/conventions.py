"""What the energies count: the formula with its prices, and every convention in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from topospike.report.chart import Table
from topospike.report.units import NARROW

CONVENTION_NAMES: Mapping[str, str] = {
    "first_layer": "first layer",
    "pooled": "average pools",
    "padding": "padding tokens",
    "links": "links counted",
    "energy_model": "energy model",
    "mac_joule": "one multiply-accumulate (MAC)",
    "ac_joule": "one accumulate (AC)",
}


@dataclass(frozen=True, slots=True)
class Formula:
    """The two prices in E(t) = N_MAC(t) E_MAC + N_SOP(t) E_AC, ready to print."""

    mac: str
    accumulate: str


def picojoule(joules: float) -> str:
    r"""Write the price of one operation with all the digits it was given.

    Examples
    --------
    >>> picojoule(4.6e-12), picojoule(9e-13)
    ('4.6\u202fpJ', '0.9\u202fpJ')
    """
    return f"{joules * 1e12:.6g}{NARROW}pJ"


def energy_formula(conventions: Mapping[str, str | float]) -> Formula | None:
    """Return the formula with the prices of this run, or ``None`` if they were not recorded."""
    mac, accumulate = conventions.get("mac_joule"), conventions.get("ac_joule")
    if not isinstance(mac, int | float) or not isinstance(accumulate, int | float):
        return None
    return Formula(picojoule(mac), picojoule(accumulate))


def convention_table(conventions: Mapping[str, str | float]) -> Table:
    """Return every convention of an evaluation with the sentence that defines it."""
    rows = tuple(
        (CONVENTION_NAMES.get(name, name), in_words(name, value))
        for name, value in conventions.items()
    )
    return Table("Counting conventions of this run.", ("convention", "meaning"), rows)


def in_words(name: str, value: str | float) -> str:
    """Explain one convention; a value nobody has described is shown as it is."""
    # Imported here: the package behind it loads torch, which reading a run folder does not need.
    from topospike.measure.conventions import CHOICES
    from topospike.measure.energy import ENERGY_MODELS

    if isinstance(value, int | float):
        return picojoule(value) if name.endswith("_joule") else str(value)
    if name == "energy_model" and value in set(ENERGY_MODELS):
        return f"{value}: {ENERGY_MODELS[value].source}"
    described = CHOICES.get(name, {}).get(value)
    return f"{value}: {described}" if described else value
