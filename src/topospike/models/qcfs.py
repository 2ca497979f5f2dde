"""The quantised activation of QCFS, trained into an ANN before rate-coded conversion.

    y = theta clip(floor(x L / theta + 1/2) / L, 0, 1)

Its L + 1 levels are the values an integrate-and-fire neuron (threshold theta, starting at
theta / 2) decodes to after L steps of constant input. theta is a parameter, kept positive by a map,
one per layer (S-QCFS) or per channel (CS-QCFS). SlipReLU blends it with the clipped ReLU, which
keeps a slope between the steps and so helps training::

    y = a theta clip(x / theta + d1 / N, 0, 1)
        + (1 - a) theta clip(floor(N x / theta + d2) / N, 0, 1)

How an activation gets into a model, its training and the conversion are elsewhere.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from topospike.errors import ConfigError, ShapeError
from topospike.registry import Registry, suggestion

Order = Literal["floor_first", "clamp_first"]


class QuantisedClip(torch.autograd.Function):
    """QCFS with its straight-through gradients in closed form; keeps only x and theta."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, theta: Tensor, steps: int, order: Order, shift: float
    ) -> Tensor:
        """Compute y in the wider dtype of x and theta, return it in that of x."""
        ctx.save_for_backward(x, theta)
        ctx.settings = (steps, order, shift)
        level = relative_to(theta, x).mul_(steps).add_(shift).floor_().clamp_(0, steps)
        return level.div_(steps).mul_(theta).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Differentiate as if floor had slope 1."""
        x, theta = ctx.saved_tensors
        steps, order, shift = ctx.settings
        (grad,) = grad_outputs
        ratio = relative_to(theta, x)
        level = (ratio * steps).add_(shift).floor_().div_(steps)
        gate = level if order == "floor_first" else ratio
        # 1 where the clip left the gate alone, as floats: mixing bool and float is slow.
        inside = torch.eq(gate, gate.clamp(0, 1), out=torch.empty_like(gate))
        grad_x, grad_theta = None, None
        if ctx.needs_input_grad[1]:
            slope = level.clamp_(0, 1).addcmul_(inside, ratio, value=-1)
            grad_theta = slope.mul_(grad).sum_to_size(theta.shape).to(theta.dtype)
        if ctx.needs_input_grad[0]:
            grad_x = inside.mul_(grad).to(x.dtype)
        return grad_x, grad_theta, None, None, None


def relative_to(theta: Tensor, x: Tensor) -> Tensor:
    """Return x / theta in the wider of the two dtypes."""
    return x.to(torch.promote_types(x.dtype, theta.dtype)) / theta


def qcfs(
    x: Float[Tensor, "*shape"],
    theta: Float[Tensor, "*#shape"],
    *,
    steps: int,
    order: Order = "floor_first",
    shift: float = 0.5,
) -> Float[Tensor, "*shape"]:
    """Quantise, clip, shift: the activation whose levels a spiking neuron can emit.

    Parameters
    ----------
    x
        Pre-activation, any shape.
    theta
        Positive threshold, of as many axes as ``x`` or none, broadcastable to it.
    steps
        Quantisation steps L, at least 1.
    order
        Which gradient: ``floor_first`` (the formula of the paper) passes it where the rounded
        value lies in [0, 1], ``clamp_first`` (the authors' newer code) where x / theta does. The
        values are the same.
    shift
        Added before the floor; 1/2 makes the error vanish on average.

    Raises
    ------
    ConfigError
        If ``steps`` or ``order`` is invalid.

    Notes
    -----
    Bu et al. (ICLR 2022), eq. for the forward pass above (ties round up). With floor's slope taken
    as 1 and q the quantity that is clipped (the rounded one, or x / theta)::

        dy/dx     = 1 where 0 <= q <= 1, else 0
        dy/dtheta = (y - x) / theta where 0 <= q <= 1;  0 below;  1 above

    Unlike a chain of elementary operations this stores only x and theta for the backward pass.
    theta is not checked here: a value <= 0 makes no sense and conversion refuses it.

    Examples
    --------
    >>> qcfs(torch.tensor([-0.25, 0.25, 0.75, 2.5]), torch.tensor(2.0), steps=4)
    tensor([0.0000, 0.5000, 1.0000, 2.0000])
    """
    check_steps(steps)
    if order not in get_args(Order):
        known = get_args(Order)
        raise ConfigError(
            f"unknown order {order!r}. Known: {', '.join(known)}.{suggestion(order, known)}"
        )
    result: Tensor = QuantisedClip.apply(x, theta, steps, order, shift)
    return result


def slip_relu(
    x: Float[Tensor, "*shape"],
    theta: Float[Tensor, "*#shape"],
    *,
    steps: int,
    slope: float = 0.5,
    relu_shift: float = 0.0,
    step_shift: float = 0.5,
) -> Float[Tensor, "*shape"]:
    """Blend a clipped ReLU with QCFS.

    Parameters
    ----------
    x, theta, steps
        As in `qcfs`.
    slope
        Share a of the clipped ReLU: 0 is QCFS, 1 the clipped ReLU.
    relu_shift, step_shift
        Shifts d1 and d2 of the two parts, in steps.

    Notes
    -----
    Jiang et al. (ICML 2023), formula above. At inference an integrate-and-fire neuron that starts
    at d2 theta.

    Examples
    --------
    >>> slip_relu(torch.tensor([0.3, 2.0]), torch.tensor(1.0), steps=2)
    tensor([0.4000, 1.0000])
    """
    smooth = theta * torch.clamp(x / theta + relu_shift / steps, 0.0, 1.0)
    return slope * smooth + (1.0 - slope) * qcfs(x, theta, steps=steps, shift=step_shift)


@dataclass(frozen=True, slots=True)
class PositiveMap:
    """A differentiable map of a free parameter beta to a threshold theta, and its inverse."""

    forward: Callable[[Tensor], Tensor]
    inverse: Callable[[float], float]


SQRT_FLOOR = 0.01

POSITIVE_MAPS: Registry[PositiveMap] = Registry(
    "positive map",
    {
        "softplus": PositiveMap(functional.softplus, lambda t: t + math.log(-math.expm1(-t))),
        # (beta + sqrt(beta^2 + 0.01)) / 2
        "sqrt": PositiveMap(
            lambda beta: 0.5 * (beta + (beta.square() + SQRT_FLOOR).sqrt()),
            lambda t: t - 0.25 * SQRT_FLOOR / t,
        ),
        "none": PositiveMap(lambda beta: beta, lambda t: t),
    },
)
"""Maps beta -> theta: ``softplus``, ``sqrt``, or ``none`` (theta itself, which may cross zero)."""


class QCFS(nn.Module):
    """The QCFS activation with a trainable threshold, per layer or per channel.

    Parameters
    ----------
    steps
        Quantisation steps L, at least 1. A plain attribute: it may be changed at any time.
    theta_init
        Threshold to start from.
    channels
        ``None`` for one threshold (S-QCFS); C for one per channel, axis 1 (CS-QCFS).
    positive_map
        How beta becomes theta: ``softplus`` (CS-QCFS), ``sqrt``, or ``none`` (the original QCFS).
    order
        See `qcfs`.

    Attributes
    ----------
    initial_membrane : float
        Where the spiking neuron in its place starts, as a share of theta.
    beta : Parameter
        Scalar or (C,); ``theta = map(beta)``. Weight decay pulls beta, not theta, to 0: under
        softplus that is theta towards ln 2.

    Raises
    ------
    ConfigError
        If an option is invalid.

    Examples
    --------
    >>> activation = QCFS(4, theta_init=2.0)
    >>> round(activation.theta.item(), 4)
    2.0
    >>> activation.per_channel(3)(torch.ones(1, 3, 2, 2)).shape
    torch.Size([1, 3, 2, 2])
    """

    def __init__(
        self,
        steps: int,
        *,
        theta_init: float = 8.0,
        channels: int | None = None,
        positive_map: str = "softplus",
        order: Order = "floor_first",
    ) -> None:
        super().__init__()
        check_steps(steps)
        self.steps = steps
        self.order: Order = order
        self.positive_map = positive_map
        self.initial_membrane = 0.5
        self.beta = nn.Parameter(torch.empty(() if channels is None else (channels,)))
        self.start_at(theta_init)

    @property
    def theta(self) -> Float[Tensor, "*unit"]:
        """The threshold: scalar or (C,)."""
        return POSITIVE_MAPS[self.positive_map].forward(self.beta)

    @torch.no_grad()
    def start_at(self, theta_init: float) -> None:
        """Set every threshold to one positive value."""
        if not 0.0 < theta_init < math.inf:
            raise ConfigError(f"theta_init is {theta_init}; a threshold must be positive.")
        self.beta.fill_(POSITIVE_MAPS[self.positive_map].inverse(theta_init))

    def forward(self, x: Float[Tensor, "batch ..."]) -> Float[Tensor, "batch ..."]:
        """Apply the activation to x, batch first and channels on axis 1."""
        theta = self.theta
        if theta.ndim:
            if x.ndim < 2 or x.shape[1] != len(theta):
                raise ShapeError(
                    f"QCFS has {len(theta)} channel thresholds but got an input of shape "
                    f"{tuple(x.shape)}; channels must be axis 1."
                )
            theta = theta.reshape(1, -1, *(1 for _ in x.shape[2:]))
        return self.quantise(x, theta)

    def quantise(
        self, x: Float[Tensor, "*shape"], theta: Float[Tensor, "*#shape"]
    ) -> Float[Tensor, "*shape"]:
        """Apply `qcfs` with a threshold that broadcasts to x."""
        return qcfs(x, theta, steps=self.steps, order=self.order)

    def per_channel(self, channels: int) -> QCFS:
        """Return the channel-wise activation that computes the same function as this one.

        Every channel starts from this layer's beta: the second stage of CS-QCFS.
        """
        if self.beta.ndim:
            raise ConfigError(f"QCFS already has {len(self.beta)} channel thresholds.")
        twin = copy.deepcopy(self)
        beta = self.beta.detach().expand(channels).clone()
        twin.beta = nn.Parameter(beta, requires_grad=self.beta.requires_grad)
        return twin

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an activation like this one, but for its threshold."""
        return {
            "steps": self.steps,
            "channels": len(self.beta) if self.beta.ndim else None,
            "positive_map": self.positive_map,
            "order": self.order,
        }

    def extra_repr(self) -> str:
        """Show the settings when the module is printed."""
        shape = "layer" if self.beta.ndim == 0 else f"{len(self.beta)} channels"
        return f"steps={self.steps}, {shape}, {self.positive_map}, {self.order}"


class SlipReLU(QCFS):
    """SlipReLU with a trainable threshold (Jiang et al., ICML 2023).

    Parameters
    ----------
    steps, theta_init, channels, positive_map, order
        As in `QCFS`; the original learns theta itself (``none``).
    slope, relu_shift, step_shift
        a, d1 and d2 of `slip_relu`; the defaults are those of the authors' code.

    Raises
    ------
    ConfigError
        If an option is invalid.

    Examples
    --------
    >>> SlipReLU(2, theta_init=1.0)(torch.tensor([0.3, 2.0])).tolist()
    [0.4000000059604645, 1.0]
    """

    def __init__(
        self,
        steps: int = 16,
        *,
        theta_init: float = 8.0,
        channels: int | None = None,
        positive_map: str = "none",
        order: Order = "floor_first",
        slope: float = 0.5,
        relu_shift: float = 0.0,
        step_shift: float = 0.5,
    ) -> None:
        if order != "floor_first":
            raise ConfigError(f"order is {order!r}; SlipReLU is defined floor_first only.")
        super().__init__(steps, theta_init=theta_init, channels=channels, positive_map=positive_map)
        for name, value in (("slope", slope), ("step_shift", step_shift)):
            if not 0.0 <= value <= 1.0:
                raise ConfigError(f"{name} is {value}; it must lie in [0, 1].")
        self.slope = slope
        self.relu_shift = relu_shift
        self.initial_membrane = step_shift

    def quantise(
        self, x: Float[Tensor, "*shape"], theta: Float[Tensor, "*#shape"]
    ) -> Float[Tensor, "*shape"]:
        """Apply `slip_relu` with a threshold that broadcasts to x."""
        return slip_relu(
            x,
            theta,
            steps=self.steps,
            slope=self.slope,
            relu_shift=self.relu_shift,
            step_shift=self.initial_membrane,
        )

    def settings(self) -> dict[str, Any]:
        """Return the arguments that make an activation like this one, but for its threshold."""
        return {
            **super().settings(),
            "slope": self.slope,
            "relu_shift": self.relu_shift,
            "step_shift": self.initial_membrane,
        }


def check_steps(steps: int) -> None:
    """Raise `ConfigError` unless ``steps`` is a usable number of quantisation steps."""
    if steps < 1:
        raise ConfigError(f"steps is {steps}; QCFS needs at least one quantisation step (L >= 1).")


@dataclass(frozen=True, slots=True)
class ActivationKind:
    """One member of the QCFS family: its activation, its map to theta, and who has thresholds."""

    activation: type[QCFS]
    positive_map: str
    per_channel: bool
    source: str


ACTIVATION_KINDS: Registry[ActivationKind] = Registry(
    "kind of quantised activation",
    {
        "qcfs": ActivationKind(QCFS, "none", False, "Bu et al., ICLR 2022"),
        "s-qcfs": ActivationKind(QCFS, "softplus", False, "Yang et al., Neural Networks 2025"),
        "cs-qcfs": ActivationKind(QCFS, "softplus", True, "Yang et al., Neural Networks 2025"),
        "slip-relu": ActivationKind(SlipReLU, "none", False, "Jiang et al., ICML 2023"),
    },
)
