"""How networks, methods, layers and time steps look: names, colours, dashes, symbols.

One language for every figure: the colour says which network, the dash and the symbol say which
conversion, the ramp red -> yellow -> blue says how deep a layer lies. All colours keep a contrast
of 3 against the light and the dark page.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

DENSE_COLOUR = "#5f7d9c"
NETWORK_COLOURS = (
    "#d1432f",
    "#8a5bd1",
    "#2b8a6b",
    "#a9791c",
    "#2f7cc0",
    "#b5489a",
    "#6d7f22",
    "#108594",
)
NEUTRAL_COLOUR = "#80858c"
CHANGE_COLOURS = {"removed": "#d1432f", "percolated": "#a9791c", "grown": "#2b8a6b"}
DASHES = ("solid", "dash", "dot", "dashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up")
LAYER_RAMP = ((0.0, (214, 47, 39)), (0.5, (240, 196, 25)), (1.0, (43, 98, 196)))
DEPTH_RAMP = ((0.0, (16, 133, 148)), (0.5, (126, 98, 208)), (1.0, (204, 82, 38)))

KNOWN_NAMES: Mapping[str, str] = {
    "dense": "dense",
    "cht": "CHT",
    "chts": "CHTs",
    "chtss": "CHTss",
    "ch-snn": "CH-SNN",
    "set": "SET",
    "rigl": "RigL",
    "mest": "MEST",
    "gmp": "GMP",
    "granet": "GraNet",
    "static": "static sparse",
    "dcgs": "DCGS",
    "qcfs": "QCFS",
    "cs-qcfs": "CS-QCFS",
    "srp": "SRP",
    "slip-relu": "SlipReLU",
}


@dataclass(frozen=True, slots=True)
class Style:
    """How one series is drawn."""

    colour: str
    dash: str = "solid"
    symbol: str = "circle"


def display_name(name: str) -> str:
    """Return the name of a network or method as the literature writes it.

    Examples
    --------
    >>> display_name("chts"), display_name("my-method")
    ('CHTs', 'my-method')
    """
    return KNOWN_NAMES.get(name, name)


def shortened(name: str, longest: int) -> str:
    """Cut the middle out of a name that is too long for an axis.

    Examples
    --------
    >>> shortened("encoder.layer.10.attention.query", 20), shortened("fc", 20)
    ('encoder.l…tion.query', 'fc')
    """
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[head + 1 - longest :]}"


@runtime_checkable
class Converted(Protocol):
    """Anything that belongs to one network converted by one method."""

    @property
    def network(self) -> str:
        """Name of the network."""
        ...

    @property
    def method(self) -> str:
        """Name of the conversion method."""
        ...


def names_of(records: Sequence[Converted]) -> tuple[list[str], list[str]]:
    """Return the networks and the methods in order of appearance."""
    networks = list(dict.fromkeys(record.network for record in records))
    methods = list(dict.fromkeys(record.method for record in records))
    return networks, methods


def series_name(network: str, method: str) -> str:
    """Return the name of a converted network.

    Examples
    --------
    >>> series_name("chts", "qcfs")
    'CHTs · QCFS'
    """
    return f"{display_name(network)} · {display_name(method)}"


def network_colour(network: str, networks: Sequence[str]) -> str:
    """Return the colour of a network: slate for the dense twin, red for the first sparse one."""
    if network == "dense":
        return DENSE_COLOUR
    sparse = [name for name in networks if name != "dense"]
    return NETWORK_COLOURS[sparse.index(network) % len(NETWORK_COLOURS)]


def series_style(
    network: str, method: str, *, networks: Sequence[str], methods: Sequence[str]
) -> Style:
    """Return colour by network, dash and symbol by method."""
    place = list(methods).index(method) % len(DASHES)
    return Style(network_colour(network, networks), DASHES[place], SYMBOLS[place])


def ramp_colour(
    place: int, total: int, ramp: Sequence[tuple[float, tuple[int, int, int]]] = LAYER_RAMP
) -> str:
    """Return the colour of item ``place`` of ``total`` on a ramp, linear in RGB between its stops.

    Examples
    --------
    >>> [ramp_colour(layer, 3) for layer in range(3)]
    ['#d62f27', '#f0c419', '#2b62c4']
    """
    position = place / (total - 1) if total > 1 else 0.0
    for (left, start), (right, end) in itertools.pairwise(ramp):
        if position <= right:
            share = (position - left) / (right - left)
            mixed = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
            return "#" + "".join(f"{channel:02x}" for channel in mixed)
    raise AssertionError("a ramp ends at 1")


def time_ticks(last: int) -> list[int]:
    """Return the powers of two up to ``last``, the ticks of every time axis.

    Examples
    --------
    >>> time_ticks(12)
    [1, 2, 4, 8]
    """
    return [2**power for power in range(last.bit_length())]
