"""Stage analyse: the parts of a topology report, plain numbers that know how to become JSON.

A value that is undefined (no fit, no null, no embedding) is None, never NaN.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

PLAIN = (int, float, str, bool)


@dataclass(frozen=True, slots=True)
class MaskMeasures:
    """One masked layer on its own, as a bipartite graph; a conv layer unfolded.

    ``inputs`` counts the columns, which for a conv layer are (input channel, tap) pairs. ``gamma``
    pools the non-zero degrees of both sides; None where fewer than two distinct ones are.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    links: int
    density: float
    outputs: int
    inputs: int
    active_outputs: int
    active_inputs: int
    gini_outputs: float
    gini_inputs: float
    gamma: float | None
    xmin: int | None
    n_tail: int | None
    at_bound: bool | None


@dataclass(frozen=True, slots=True)
class DegreeDistribution:
    """Share of the active nodes with degree >= k at every distinct degree, and the fitted line.

    ``fit_degree`` runs from xmin to the largest degree; both fit tuples are empty without a fit.
    """

    degree: tuple[int, ...]
    share: tuple[float, ...]
    fit_degree: tuple[int, ...]
    fit_share: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Disk:
    """The largest component in the native hyperbolic disk, ready to draw.

    Attributes
    ----------
    node
        Index of each embedded node in the whole graph (layer after layer).
    theta, r, layer, degree
        Angle in radians, radius (rim at 2 ln N), layer and degree of each embedded node.
    edges
        Links to draw, as pairs of positions in these columns; a random sample above a limit.
    links
        All links of the component.
    gamma
        Exponent of the component, which the radii use.
    landmarks
        Nodes the angles were computed from; None when it was all of them.
    """

    node: tuple[int, ...]
    theta: tuple[float, ...]
    r: tuple[float, ...]
    layer: tuple[int, ...]
    degree: tuple[int, ...]
    edges: tuple[tuple[int, int], ...]
    links: int
    gamma: float
    weighting: str
    reduction: str
    angles: str
    landmarks: int | None = None


def from_json(kind: Any, raw: Any) -> Any:
    """Rebuild a (nested) frozen record of type ``kind`` from what `to_json` made of it.

    Raises
    ------
    KeyError, TypeError
        If a field is missing, or is not what the record's annotation says.

    Examples
    --------
    >>> from_json(tuple[float, ...], [1.0, 2.0])
    (1.0, 2.0)
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        # A field added since the file was written keeps its default.
        fields = dataclasses.fields(kind)
        names = [f.name for f in fields if f.name in raw or f.default is dataclasses.MISSING]
        return kind(**{name: from_json(hints[name], raw[name]) for name in names})  # pyright: ignore[reportCallIssue]
    if origin in (Union, UnionType):
        (inner,) = [a for a in arguments if a is not type(None)]
        return None if raw is None else from_json(inner, raw)
    if origin is tuple:
        if not isinstance(raw, list):
            raise TypeError(f"a list is required, {type(raw).__name__} was found")
        if arguments[-1] is not Ellipsis:
            return tuple(from_json(a, item) for a, item in zip(arguments, raw, strict=True))
        if arguments[0] in PLAIN:
            return tuple(raw)
        return tuple(from_json(arguments[0], item) for item in raw)
    return raw
