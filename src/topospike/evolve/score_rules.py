r"""Stage 2 (evolve): the link-prediction rules as data.

Every rule weighs a common neighbour z of the absent pair (u, v) by a function of two integers:
``shared``, the number of neighbours z has in common with the seed on its own side, and ``degree``,
the degree of z. With iLCL = shared and eLCL = degree - shared - 1 (the -1 is z's own link to the
other seed), the Cannistraci-Hebb weights are

.. math:: CH2: (1 + iLCL) / (1 + eLCL), \quad CH3: 1 / (1 + eLCL).

A node-based rule (suffix ``n``) adds these weights over common neighbours; a path-based rule
(suffix ``p``) adds the geometric mean of the two weights over paths of length 3.
This module does not touch masks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from topospike.registry import Registry

# A torch tensor or a NumPy array: the formulas below are written once and serve both.
Array = Any


@dataclass(frozen=True, slots=True)
class ScoreRule:
    """A link-prediction rule: the weight of one common neighbour, and what is summed.

    Attributes
    ----------
    numerator
        ``numerator(shared)``, element by element; 0 where ``shared`` is 0.
    denominator
        ``denominator(shared, degree)``, at least 1, a new array.
    paths
        ``True`` sums over paths of length 3, ``False`` over common neighbours.
    """

    name: str
    numerator: Callable[[Array], Array]
    denominator: Callable[[Array, Array], Array]
    paths: bool

    def weight(self, shared: Array, degree: Array) -> Array:
        """Return the weight of a common neighbour; 0 where nothing is shared."""
        return self.numerator(shared) / self.denominator(shared, degree)


def one(shared: Array) -> Array:
    """Return 1 where something is shared, else 0 (shared neighbours are whole numbers)."""
    return shared.clip(max=1)


def one_and_internal(shared: Array) -> Array:
    """Return 1 + iLCL where something is shared, else 0."""
    return shared + one(shared)


def internal(shared: Array) -> Array:
    """Return iLCL."""
    return shared


def one_and_external(shared: Array, degree: Array) -> Array:
    """Return 1 + eLCL; the clip only meets pairs that are never absent links."""
    return (degree - shared).clip(1)


def degree_alone(shared: Array, degree: Array) -> Array:
    """Return the degree, at least 1."""
    return degree.clip(1)


SCORE_RULES: Registry[ScoreRule] = Registry(
    "score rule",
    {
        rule.name: rule
        for rule in (
            ScoreRule("CH2-L3n", one_and_internal, one_and_external, paths=False),
            ScoreRule("CH3-L3n", one, one_and_external, paths=False),
            ScoreRule("CH2-L3p", one_and_internal, one_and_external, paths=True),
            ScoreRule("CH3-L3p", one, one_and_external, paths=True),
            ScoreRule("CH1-L3p", internal, degree_alone, paths=True),
            ScoreRule("RA-L3p", one, degree_alone, paths=True),
        )
    },
)
