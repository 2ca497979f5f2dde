r"""Convert: how a gradient passes through the steps of a site.

Spikes are steps of the membrane u, whose derivative is zero almost everywhere. Backward, a spike
counts as

.. math:: \frac{\partial s}{\partial u} = h(u), \qquad h = 1 \text{ where } s \text{ can follow } u

IF neurons: the rectangle of width :math:`\theta` around the threshold (Wu et al. 2018, h1), of area
1 in units of :math:`\theta`. Staircases, several thresholds or whole numbers: 1 from the lowest to
the highest value they can send, the straight-through estimator (Bengio et al. 2013). Forward values
are those of the simulation, to the bit; everything else of a step is differentiated as it is
written, so the gradient runs through decoded values, hence through time.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topospike.conversion.layer_by_layer import LayerByLayer
from topospike.conversion.shifts import ShiftedSite
from topospike.snn.coding import SiteState
from topospike.snn.neurons import (
    Identity,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
    Uniform,
)
from topospike.snn.site import START, Rule, Site, decoded_of, written_out


def slope(neuron: Neuron, u: Tensor, theta: Tensor) -> Tensor:
    """Return h(u), which stands for the derivative of a spike.

    Examples
    --------
    >>> from topospike.snn.neurons import IntegrateAndFire
    >>> u = torch.tensor([0.4, 0.6, 1.4, 1.6])
    >>> slope(IntegrateAndFire(), u, torch.tensor(1.0))
    tensor([0., 1., 1., 0.])
    >>> slope(Uniform(4, gated=True), u - 0.5, torch.tensor(1.0))
    tensor([1., 1., 1., 0.])
    """
    if isinstance(neuron, Identity):
        return torch.ones_like(u)
    if isinstance(neuron, MultiThreshold):
        follows = u.abs() <= 1.5 * theta
    elif isinstance(neuron, Uniform):
        half = theta / (2 * neuron.levels)
        lowest = -half if neuron.gated else -theta
        follows = (u >= lowest) & (u <= theta)
    else:
        follows = (u - theta).abs() <= theta / 2
        if isinstance(neuron, SignedIntegrateAndFire):
            follows = follows | (u.abs() <= theta / 2)
    return (follows & (theta > 0)).to(u.dtype)


def followed(values: Tensor, u: Tensor, h: Tensor) -> Tensor:
    """Return values whose gradient by u is h."""
    return values + h * (u - u.detach())


def fire(neuron: Neuron, u: Tensor, theta: Tensor, available: Tensor | None) -> Tensor:
    """Let a neuron fire, with a gradient."""
    seen = u.detach()
    held = None if available is None else available.detach()
    return followed(neuron.fire(seen, theta, held), u, slope(neuron, seen, theta))


@dataclass(frozen=True, slots=True)
class GradientRule(Rule):
    """The step of a site by the formulas of its coding, with a gradient."""

    def __call__(self, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Return the state after step t."""
        return written_out(self.site, t, r_in, state, fire)


def step_with_gradient(site: Site, t: int, r_in: Tensor, state: SiteState) -> SiteState:
    """Return the state of a site after step t, as `topospike.snn.site.site_step`."""
    return site.coding.step(GradientRule(site), t, r_in, state)


def whole_answer(site: Site, r_in: Tensor) -> Tensor:
    """Return what a site of layers that wait sends in all its steps, with a gradient."""
    sent, _ = site.coding.presimulate(site, r_in.detach())
    shift, factor = (site.shift, site.scale) if isinstance(site, ShiftedSite) else (0.0, 1.0)
    h = slope(site.neuron, r_in.detach() + shift, site.threshold)
    return followed(sent, r_in, h * factor)


class Trajectory:
    """The sites of a network during one run of which a gradient is wanted.

    Called with a site and its input it takes the site's next step, for `Visitor`.

    Parameters
    ----------
    states
        What sites start from, where that is not rest.
    """

    def __init__(self, states: dict[Site, SiteState] | None = None) -> None:
        self.t = 0
        self.states = dict(states or {})

    def __call__(self, site: Site, r_in: Tensor) -> Tensor:
        """Take a step."""
        if isinstance(site.coding, LayerByLayer):
            return whole_answer(site, r_in)
        state = step_with_gradient(site, self.t, r_in, self.states.get(site, START))
        self.states[site] = state
        return decoded_of(state)
