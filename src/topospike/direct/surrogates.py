"""Stage direct: the curves that stand for the derivative of a spike.

A spike is a step function of u = membrane - threshold; backward, its derivative (zero almost
everywhere) is replaced by a bump h(u) around the threshold, of width set by a parameter a:

    arctan        (a/2) / (1 + (pi a u / 2)^2)            area 1
    triangular    a - a^2 |u| on |u| <= 1/a               area 1
    rectangular   1/a on |u| < a/2                        Wu et al. (2018), h1
    root          sqrt(a)/2 - a |u| / 4, where positive   Wu et al. (2018), h2
    sigmoid       a f(1 - f), f = 1 / (1 + exp(-a u))     Wu et al. (2018), h3 with scale 1/a
    gaussian      exp(-u^2 / 2a) / sqrt(2 pi a)           Wu et al. (2018), h4

Forward values, resets and time belong to `topospike.direct.neurons`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.registry import Registry


def arctan(u: Tensor, width: Tensor) -> Tensor:
    """Return the derivative of ``arctan(pi a u / 2) / pi``."""
    return (width / 2) / (u * (math.pi / 2 * width)).square_().add_(1)


def arctan_by_width(u: Tensor, width: Tensor) -> Tensor:
    """Return the derivative of ``arctan(pi a u / 2) / pi`` with respect to a."""
    return (u / 2) / (u * (math.pi / 2 * width)).square_().add_(1)


def triangular(u: Tensor, width: Tensor) -> Tensor:
    """Return a triangle of height a and half-width 1/a."""
    return (width - width * width * u.abs()).clamp_(min=0)


def rectangular(u: Tensor, width: Tensor) -> Tensor:
    """Return a rectangle of width a and height 1/a."""
    return (u.abs() < width / 2).to(u.dtype) / width


def root(u: Tensor, width: Tensor) -> Tensor:
    """Return a triangle of height sqrt(a)/2 and half-width 2/sqrt(a)."""
    return (torch.sqrt(width) / 2 - width / 4 * u.abs()).clamp_(min=0)


def sigmoid(u: Tensor, width: Tensor) -> Tensor:
    """Return the derivative of the logistic function of a u."""
    f = torch.sigmoid(u * width)
    return width * f * (1 - f)


def gaussian(u: Tensor, width: Tensor) -> Tensor:
    """Return the normal density of variance a."""
    return torch.exp(-u * u / (2 * width)) / torch.sqrt(2 * math.pi * width)


Curve = Callable[[Float[Tensor, "*shape"], Float[Tensor, ""]], Float[Tensor, "*shape"]]


@dataclass(frozen=True, slots=True)
class Surrogate:
    """A curve, and for a width that can be trained the derivative of its integral by that width.

    Examples
    --------
    >>> SURROGATES["triangular"].slope(torch.tensor([0.0, 0.25, 1.0]), torch.tensor(2.0))
    tensor([2., 1., 0.])
    """

    slope: Curve
    by_width: Curve | None = None


SURROGATES: Registry[Surrogate] = Registry(
    "surrogate gradient",
    {
        "arctan": Surrogate(arctan, arctan_by_width),
        "triangular": Surrogate(triangular),
        "rectangular": Surrogate(rectangular),
        "root": Surrogate(root),
        "sigmoid": Surrogate(sigmoid),
        "gaussian": Surrogate(gaussian),
    },
)
