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
    weight
        ``weight(shared, degree)``, element by element; only used where ``shared > 0``.
    paths
        ``True`` sums over paths of length 3, ``False`` over common neighbours.
    """

    name: str
    weight: Callable[[Array, Array], Array]
    paths: bool


def ch2(shared: Array, degree: Array) -> Array:
    """Return (1 + iLCL) / (1 + eLCL); the clip only meets pairs that are never absent links."""
    return (1 + shared) / (degree - shared).clip(1)


def ch3(shared: Array, degree: Array) -> Array:
    """Return 1 / (1 + eLCL)."""
    return 1 / (degree - shared).clip(1)


def ch1(shared: Array, degree: Array) -> Array:
    """Return iLCL / degree."""
    return shared / degree.clip(1)


def resource_allocation(shared: Array, degree: Array) -> Array:
    """Return 1 / degree, broadcast to the shape of ``shared``."""
    return (shared * 0 + 1) / degree.clip(1)


SCORE_RULES: Registry[ScoreRule] = Registry(
    "score rule",
    {
        rule.name: rule
        for rule in (
            ScoreRule("CH2-L3n", ch2, paths=False),
            ScoreRule("CH3-L3n", ch3, paths=False),
            ScoreRule("CH2-L3p", ch2, paths=True),
            ScoreRule("CH3-L3p", ch3, paths=True),
            ScoreRule("CH1-L3p", ch1, paths=True),
            ScoreRule("RA-L3p", resource_allocation, paths=True),
        )
    },
)
