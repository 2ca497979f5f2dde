r"""Convert: thresholds balanced layer by layer on calibration images (LTB), no training.

A neuron of threshold :math:`\theta` that can tell N values apart errs twice: it cuts off what is
above :math:`\theta`, and rounds what is below to steps of :math:`\theta / N`. The balance of the
two, for every channel by itself, is where

.. math:: J(\theta) = E[(x - \theta)_+^2] + \frac{\theta^2}{12 N^2} P(x > 0)

is least. Layers follow one another in a pass, each seeing what the clipping before it lets through.

Source: Bu et al. (CVPR 2025, arXiv 2409.03368).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from topospike.conversion.methods.method import whole
from topospike.conversion.methods.qcfs import QCFSMethod
from topospike.models.inputs import rows_of
from topospike.snn.executors.steps import Visitor
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.thresholds.statistics import Granularity

FOR_STEPS = 8
"""Values that thresholds are balanced for where ``quantisation_levels`` does not say."""

BATCH = 64
"""Images looked at together."""

IMAGES = 128
"""Images that the delay is chosen on."""


@dataclass(frozen=True, kw_only=True)
class LTBMethod(QCFSMethod):
    """Integrate-and-fire neurons whose thresholds balance clipping against rounding.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale
        As in `Method`; the solver gives the thresholds to start from, and ``quantisation_levels``
        is N, the length of run they are balanced for (8).
    readout_delay
        Steps whose outputs the answer leaves out. ``None``: chosen on calibration images
        (`best_delay`); 0: none.
    passes
        How often the calibration images are gone through.

    Notes
    -----
    Bu et al. walk down the slope of J at a fixed rate, image by image; here a pass ends with a step
    of Newton's method, which needs no rate: J is convex.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.randn(256, 4, generator=torch.Generator().manual_seed(0))
    >>> snn = ts.convert(model, "ltb", calibration=[x], timesteps=8)
    >>> bool((snn.sites["1"].threshold <= torch.relu(model[0](x)).max(0).values).all())
    True
    """

    name = "ltb"
    source = "Bu et al., CVPR 2025"
    activations = None
    keeps_images = True
    chooses_thresholds = True

    ranges = QCFSMethod.ranges | {"passes": whole(1)}

    solver: str | None = "max"
    granularity: Granularity | None = "channel"
    readout_delay: int | None = None
    passes: int = 10

    def finish(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> SpikingNetwork:
        """Balance the thresholds of a network that was not trained for its own; choose t_d."""
        levels = self.quantisation_levels or FOR_STEPS
        sites = [site for site in snn.sites.values() if site.activation is None]
        for _ in range(self.passes):
            balanced_once(snn, sites, images, levels)
        if self.readout_delay is None:
            delay = best_delay(snn, tuple(tensor[:IMAGES] for tensor in images), levels)
            snn.report = replace(snn.report, readout_delay=delay)
            return snn
        return super().finish(snn, images)


@torch.no_grad()
def best_delay(snn: SpikingNetwork, images: tuple[Tensor, ...], timesteps: int) -> int:
    """Return the delay with which the answer after so many steps is nearest to the ANN's.

    The smallest of the best, of 0 to ``timesteps - 1``. The network must not have one yet.
    """
    outputs, exact = snn(images, timesteps).double(), snn.analog(images).double()
    means = [outputs[-1]] + [
        (timesteps * outputs[-1] - delay * outputs[delay - 1]) / (timesteps - delay)
        for delay in range(1, timesteps)
    ]
    return min(range(timesteps), key=lambda delay: float((means[delay] - exact).norm()))


@torch.no_grad()
def balanced_once(
    snn: SpikingNetwork, sites: list[Site], images: tuple[Tensor, ...], levels: int
) -> None:
    """Go through the images once, and move every threshold by one step of Newton's method."""
    tails: dict[Site, Tensor] = {}

    def clipped(site: Site, r_in: Tensor) -> Tensor:
        x = site(r_in)
        if site not in sites:
            return x
        tails[site] = tails.get(site, 0.0) + tail(x, site.threshold)
        return torch.minimum(x, site.threshold)

    for place in range(0, rows_of(images), BATCH):
        Visitor(snn.ann, clipped).run(*(tensor[place : place + BATCH] for tensor in images))
    for site in sites:
        above, excess, active = tails[site] / rows_of(images)
        site.threshold = balanced(site.threshold, above, excess, active, levels=levels)


def tail(x: Tensor, theta: Float[Tensor, "*unit"]) -> Tensor:
    """Return the share above theta, the mean excess and the share above 0, times the images."""
    axes = tuple(axis for axis in range(x.ndim) if axis >= theta.ndim or theta.shape[axis] == 1)
    over = x - theta
    parts = ((over > 0).to(x.dtype), over.clamp_min(0.0), (x > 0).to(x.dtype))
    return len(x) * torch.stack([part.mean(axes, keepdim=True) for part in parts])


def balanced(
    theta: Float[Tensor, "*unit"],
    above: Float[Tensor, "*unit"],
    excess: Float[Tensor, "*unit"],
    active: Float[Tensor, "*unit"],
    *,
    levels: int,
) -> Float[Tensor, "*unit"]:
    """Return theta after one step of Newton's method on J, of half of theta downwards at most.

    A unit that is never active keeps its threshold.

    Parameters
    ----------
    theta
        Thresholds.
    above, excess, active
        P(x > theta), E[(x - theta)+] and P(x > 0).
    levels
        N, values a neuron can tell apart.

    Examples
    --------
    Ten values told apart, x uniform on [0, 1]: J' = 0 where (1 - theta)^2 = theta / 600.

    >>> theta = torch.tensor(1.0, dtype=torch.float64)
    >>> for _ in range(20):
    ...     one = torch.ones_like(theta)
    ...     theta = balanced(theta, 1 - theta, (1 - theta) ** 2 / 2, one, levels=10)
    >>> round(theta.item(), 4), round(((1 - theta) ** 2 - theta / 600).item(), 9)
    (0.96, 0.0)
    """
    rounding = active / (6.0 * levels**2)
    slope = rounding * theta - 2.0 * excess
    curvature = (rounding + 2.0 * above).masked_fill(active == 0, torch.inf)
    return torch.maximum(theta - slope / curvature, theta / 2)
