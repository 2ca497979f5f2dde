"""Stage direct: spiking neurons that carry a gradient through depth and time.

Membrane before firing m, after it v, input x, threshold theta, one step::

    if     m = v + x
    lif    m = v + (x - v) / tau
    plif   m = v + (x - v) sigmoid(w), w trained, one number a population (at first 1 / tau)
    fire   s = 1 where m > theta (or m >= theta, not strict), else 0
    reset  hard: v = m (1 - s);  soft: v = m - theta s

    dL/dm = (dL/ds) h(m - theta) + (dL/dv) dv/dm
    dv/dm = 1 - s (hard) or 1 (soft);  not detached, dL/ds gains (dL/dv) (-m or -theta)

A population remembers its membrane between the steps of one batch. When to forget it, and how many
steps there are, is known to `topospike.direct.network`.

A spike is a step function of u = membrane - threshold; backward, its derivative (zero almost
everywhere) is replaced by a bump h(u) around the threshold, of width set by a parameter a:

    arctan        (a/2) / (1 + (pi a u / 2)^2)            area 1
    triangular    a - a^2 |u| on |u| <= 1/a               area 1
    rectangular   1/a on |u| < a/2                        Wu et al. (2018), h1
    root          sqrt(a)/2 - a |u| / 4, where positive   Wu et al. (2018), h2
    sigmoid       a f(1 - f), f = 1 / (1 + exp(-a u))     Wu et al. (2018), h3 with scale 1/a
    gaussian      exp(-u^2 / 2a) / sqrt(2 pi a)           Wu et al. (2018), h4
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.recipe import NeuronSettings
from topospike.registry import Registry, suggestion

KINDS = ("if", "lif", "plif")
RESETS = ("hard", "soft")


def check_neuron(settings: NeuronSettings) -> None:
    """Raise `ConfigError` for a neuron that cannot be built; names the field and what it may be.

    Examples
    --------
    >>> check_neuron(NeuronSettings(kind="pliff"))
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: neuron kind='pliff' is unknown. Known: if, lif, plif. Did you mean 'plif'?
    """  # noqa: E501
    for field, known in (("kind", KINDS), ("reset", RESETS)):
        value = getattr(settings, field)
        if value not in known:
            raise ConfigError(
                f"neuron {field}={value!r} is unknown. Known: {', '.join(known)}."
                f"{suggestion(value, known)}"
            )
    surrogate = SURROGATES[settings.surrogate]
    requirements = (
        ("threshold", settings.threshold > 0, "above 0"),
        ("surrogate_width", settings.surrogate_width > 0, "above 0"),
        ("tau", settings.kind == "if" or settings.tau >= 1, "1 or more (1 forgets at once)"),
        ("tau", settings.kind != "plif" or settings.tau > 1, "above 1 for a plif neuron"),
        (
            "train_width",
            not settings.train_width or surrogate.by_width is not None,
            "false: only the arctan surrogate has a width that can be trained",
        ),
    )
    for field, holds, allowed in requirements:
        if not holds:
            raise ConfigError(
                f"neuron {field}={getattr(settings, field)!r} is not possible with "
                f"kind={settings.kind!r}, surrogate={settings.surrogate!r}; it must be {allowed}."
            )


def charge(
    x: Float[Tensor, "*shape"],
    v: Float[Tensor, "*shape"] | None,
    settings: NeuronSettings,
    gain: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*shape"]:
    """Return the membrane before firing; ``gain`` is a plif neuron's sigmoid(w).

    Examples
    --------
    >>> charge(torch.tensor([3.0]), torch.tensor([1.0]), NeuronSettings(kind="lif", tau=2.0))
    tensor([2.])
    """
    drive = x if v is None else x - v
    if settings.kind == "if":
        return x if v is None else v + x
    drive = drive / settings.tau if gain is None else drive * gain
    return drive if v is None else drive.add_(v)


def fires(m: Float[Tensor, "*shape"], settings: NeuronSettings) -> Tensor:
    """Tell where the membrane is above the threshold (or on it, if not strict)."""
    return m > settings.threshold if settings.strict else m >= settings.threshold


def after_reset(
    m: Float[Tensor, "*shape"], fired: Tensor, settings: NeuronSettings
) -> Float[Tensor, "*shape"]:
    """Return the membrane after firing."""
    if settings.reset == "hard":
        return m.masked_fill(fired, 0)
    return m - settings.threshold * fired.to(m.dtype)


class NeuronStep(torch.autograd.Function):
    """One step of a population, with the backward formulas of this module."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        v: Tensor | None,
        gain: Tensor | None,
        width: Tensor,
        settings: NeuronSettings,
    ) -> tuple[Tensor, Tensor]:
        """Return spikes (0 or 1, in the dtype of ``x``) and the membrane after the reset."""
        ctx.set_materialize_grads(False)
        m = charge(x, v, settings, gain)
        fired = fires(m, settings)
        ctx.save_for_backward(m, v, gain, width)
        ctx.settings = settings
        return fired.to(x.dtype), after_reset(m, fired, settings)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """Return the gradients of input, membrane, gain and width."""
        by_spike, by_reset = gradients
        m, v, gain, width = ctx.saved_tensors
        settings: NeuronSettings = ctx.settings
        surrogate: Surrogate = SURROGATES[settings.surrogate]
        u = m - settings.threshold
        if by_reset is not None and not settings.detach_reset:
            through = -by_reset * (m if settings.reset == "hard" else settings.threshold)
            by_spike = through if by_spike is None else by_spike + through
        by_m = torch.zeros_like(m)
        if by_reset is not None:
            by_m = kept_through_reset(by_reset, m, settings)
        by_width = None
        if by_spike is not None:
            by_m = torch.addcmul(by_m, by_spike, surrogate.slope(u, width))
            if ctx.needs_input_grad[3] and surrogate.by_width is not None:
                by_width = (by_spike * surrogate.by_width(u, width)).sum()
        if settings.kind == "if":
            return by_m, None if v is None else by_m, None, by_width, None
        by_gain = None
        if ctx.needs_input_grad[2]:
            # m - v = (x - v) gain
            by_gain = (by_m * (m if v is None else m - v)).sum() / gain
        by_x = by_m / settings.tau if gain is None else by_m * gain
        by_v = None if v is None else by_m - by_x
        return by_x, by_v, by_gain, by_width, None


def kept_through_reset(by_reset: Tensor, m: Tensor, settings: NeuronSettings) -> Tensor:
    """Return the part of the gradient that reaches m past the reset, the reset held constant."""
    return by_reset.masked_fill(fires(m, settings), 0) if settings.reset == "hard" else by_reset


class SpikingNeuron(nn.Module):
    """A population of neurons in the place of one activation.

    Parameters
    ----------
    settings
        Kind, threshold, leak, reset and surrogate; see `topospike.recipe.NeuronSettings`.

    Attributes
    ----------
    w : Parameter or None
        Of a plif neuron: the leak is sigmoid(w).
    width : Tensor
        Width of the surrogate, a parameter if it is trained.
    membrane : Tensor or None
        State of the batch at work, not of the model: never in ``state_dict``.

    Raises
    ------
    ConfigError
        If the settings do not fit together.

    Notes
    -----
    Parametric leaks are those of Fang et al. (ICCV 2021), as used by Han et al. (2022); training
    through time by surrogates follows Wu et al. (2018). There the leak acts on the old membrane
    alone, ``m = tau v + x``, and the input is not scaled.

    Examples
    --------
    >>> neuron = SpikingNeuron(NeuronSettings(kind="if", threshold=1.0))
    >>> [neuron(torch.tensor([0.75])).item() for _ in range(4)]
    [0.0, 1.0, 0.0, 1.0]
    """

    width: Tensor

    def __init__(self, settings: NeuronSettings) -> None:
        super().__init__()
        check_neuron(settings)
        self.settings = settings
        self.w = None
        if settings.kind == "plif":
            self.w = nn.Parameter(torch.tensor(-math.log(settings.tau - 1)))
        width = torch.tensor(float(settings.surrogate_width))
        if settings.train_width:
            self.width = nn.Parameter(width)
        else:
            self.register_buffer("width", width)
        self.membrane: Tensor | None = None
        self.is_capturing = False

    @property
    def gain(self) -> Tensor | None:
        """Share of the way to its input that a plif membrane goes in a step."""
        return None if self.w is None else torch.sigmoid(self.w)

    def reset(self) -> None:
        """Forget the batch at work: the next step starts from rest."""
        self.membrane = None

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Take one time step and return the spikes, 0 or 1.

        While the graph is being captured a ReLU marks the place instead.
        """
        if self.is_capturing:
            return torch.relu(x)
        spikes, self.membrane = NeuronStep.apply(
            x, self.membrane, self.gain, self.width, self.settings
        )  # pyright: ignore[reportGeneralTypeIssues]
        return spikes

    def extra_repr(self) -> str:
        """Name kind and threshold when the network is printed."""
        return f"{self.settings.kind}, threshold={self.settings.threshold}"


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
