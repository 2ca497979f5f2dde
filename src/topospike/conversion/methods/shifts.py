r"""Convert: a shift and a scale for every channel, so that few levels keep what they can.

With T levels, and behind layers that were rounded themselves, a channel's values are wrong on
average as well. Each site therefore rounds :math:`r + \psi` and sends its levels times
:math:`\varphi`, fitted layer after layer on calibration images to the activations a of the ANN:

.. math:: E[q(r + \psi)] = E[a], \qquad \varphi = E[q a] / E[q^2]

where :math:`q(r) = \frac{\theta}{T} \mathrm{clip}(\lfloor T r / \theta + \frac12 \rfloor, 0, T)`,
and the shift stays 0 where the mean squared error is lower so; it never rises. A layer sees what
the fitted ones before it send. On a chip the shift is a bias and the scale belongs to the weights
behind.

Source: Hao et al. (ICML 2025, arXiv 2412.13610), distribution-aware calibration.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.snn.coding import Coding
from topospike.snn.executors.split import repeated
from topospike.snn.executors.steps import Visitor
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron
from topospike.snn.site import Site
from topospike.wiring.images import ImageAxis

IMAGES = 256
"""Images of the first calibration batch that shifts and scales are fitted on, at most."""

ROUNDS = 5
"""How often a shift is corrected."""


class ShiftedSite(Site):
    """A site that rounds its input shifted, and sends its levels scaled.

    Attributes
    ----------
    shift, scale : Tensor
        psi and phi, broadcastable to the activation; 0 and 1 until they are fitted.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str, *, gated: bool, neuron: Neuron, coding: Coding) -> None:
        super().__init__(name, gated=gated, neuron=neuron, coding=coding)
        self.register_buffer("shift", torch.zeros(()))
        self.register_buffer("scale", torch.ones(()))


@torch.no_grad()
def fit_shifts(snn: SpikingNetwork, images: tuple[Tensor, ...]) -> None:
    """Fit every site without a trained activation, in one pass over the images.

    The ANN and the network of rounded activations run side by side, as two halves of one batch.
    Sites whose images do not lie along the first axis stay as they are.
    """
    populations = snn.populations

    def visit(site: Site, r_in: Tensor) -> Tensor:
        exact, seen = r_in.chunk(2)
        target = site(exact)
        first = populations[site.name].images == ImageAxis(0, 1)
        if isinstance(site, ShiftedSite) and site.activation is None and first:
            site.shift, site.scale = fitted(site, seen, target)
        sent, _ = site.coding.presimulate(site, seen)
        return torch.cat([target, sent])

    Visitor(snn.ann, visit).run(*(repeated(tensor, 2) for tensor in images))


def fitted(
    site: Site, r_in: Float[Tensor, "batch ..."], target: Float[Tensor, "batch ..."]
) -> tuple[Float[Tensor, "*unit"], Float[Tensor, "*unit"]]:
    """Return shift and scale of a site, one for each of its thresholds.

    Parameters
    ----------
    site
        With `Uniform` neurons and thresholds.
    r_in
        What reaches it from layers that were rounded.
    target
        What the ANN has there.

    Examples
    --------
    Values that arrive a quarter too small are put right.

    >>> from topospike.snn.coding import Rate
    >>> from topospike.snn.neurons import Uniform
    >>> site = Site("a", gated=True, neuron=Uniform(4, gated=True), coding=Rate())
    >>> site.threshold = torch.ones(1, 1)
    >>> x = torch.tensor([[0.25], [0.5], [0.75]])
    >>> shift, scale = fitted(site, x - 0.25, x)
    >>> shift.item(), scale.item()
    (0.25, 1.0)
    """
    theta, neuron = site.threshold, site.neuron
    axes = tuple(axis for axis in range(r_in.ndim) if axis >= theta.ndim or theta.shape[axis] == 1)

    def mean(values: Tensor) -> Tensor:
        return values.mean(axes, keepdim=True)

    def rounded(shift: Tensor) -> Tensor:
        return neuron.fire(r_in + shift, theta)

    half = theta / (2 * neuron.levels)
    shift = none = torch.zeros_like(mean(r_in))
    for _ in range(ROUNDS):
        seen = r_in + shift
        moving = mean(((seen >= -half) & (seen < theta)).to(r_in.dtype))
        missing = mean(target - rounded(shift))
        shift = shift + torch.where(moving > 0, missing / moving, 0.0).clamp(-theta, theta)
    scale, error = best_scale(rounded(shift), target, mean)
    plain, plain_error = best_scale(rounded(none), target, mean)
    better = error < plain_error
    return torch.where(better, shift, none), torch.where(better, scale, plain)


def best_scale(
    sent: Tensor, target: Tensor, mean: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the factor by which what is sent comes nearest to the target, and the error left."""
    power = mean(sent.square())
    scale = torch.where(power > 0, mean(sent * target) / power, 1.0)
    return scale, mean((scale * sent - target).square())
