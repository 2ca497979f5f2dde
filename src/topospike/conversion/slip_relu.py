"""Convert: SlipReLU, a blend of the clipped ReLU and the quantised activation of QCFS.

    y = a theta clip(x / theta + d1 / N, 0, 1)
        + (1 - a) theta clip(floor(N x / theta + d2) / N, 0, 1)

The clipped part keeps a slope between the steps, which helps training; at inference a plain
integrate-and-fire neuron takes its place, started at d2 theta. The training loop is elsewhere.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.conversion.qcfs import QCFS, Order, qcfs
from topospike.errors import ConfigError


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
        As in `topospike.conversion.qcfs.qcfs`.
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


class SlipReLU(QCFS):
    """SlipReLU with a trainable threshold (Jiang et al., ICML 2023).

    Parameters
    ----------
    steps, theta_init, channels, positive_map, order
        As in `topospike.conversion.qcfs.QCFS`; the original learns theta itself (``none``).
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
