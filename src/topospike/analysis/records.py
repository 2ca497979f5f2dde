"""Stage analyse: the parts of a topology report, plain numbers that know how to become JSON.

A value that is undefined (no fit, no null, no embedding) is None, never NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from topospike.errors import ShapeError
from topospike.files.ranges import Amount, Count, Share


@dataclass(frozen=True, slots=True)
class MaskMeasures:
    """One masked layer on its own, as a bipartite graph; a conv layer unfolded.

    ``inputs`` counts the columns, which for a conv layer are (input channel, tap) pairs. ``gamma``
    pools the non-zero degrees of both sides; None where fewer than two distinct ones are.
    """

    name: str
    kind: str
    shape: tuple[Count, ...]
    links: Count
    density: Share
    outputs: Count
    inputs: Count
    active_outputs: Count
    active_inputs: Count
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

    degree: tuple[Count, ...]
    share: tuple[Amount, ...]
    fit_degree: tuple[Count, ...]
    fit_share: tuple[Amount, ...]

    def __post_init__(self) -> None:
        if len(self.degree) != len(self.share) or len(self.fit_degree) != len(self.fit_share):
            raise ShapeError("degrees and shares differ in number")


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

    node: tuple[Count, ...]
    theta: tuple[float, ...]
    r: tuple[float, ...]
    layer: tuple[Count, ...]
    degree: tuple[Count, ...]
    edges: tuple[tuple[Count, Count], ...]
    links: Count
    gamma: float
    weighting: str
    reduction: str
    angles: str
    landmarks: Count | None = None

    def __post_init__(self) -> None:
        nodes = len(self.node)
        if any(len(c) != nodes for c in (self.theta, self.r, self.layer, self.degree)):
            raise ShapeError("the columns of the disk differ in length")
        if any(end >= nodes for edge in self.edges for end in edge):
            raise ShapeError(f"an edge of the disk ends at a node beyond its {nodes}")
