r"""Convert: codings of layers that wait for the whole answer of the layer before.

With all of its input there, a neuron knows at once the whole number :math:`k` that its activation
is nearest to, and may send it in any order. Four ways, each in T steps:

``parallel``   k spikes, sorted to the end of the train (Hao et al., ICML 2025)
``phase``      the binary digits of k, the largest first (Kim et al. 2018; LAS, AAAI 2026)
``one-spike``  one spike, the earlier the larger k (Stanojevic et al. 2024; TTFSFormer, ICML 2025)
``graded``     one spike of size k at the first step (SFN 2025)

The error of uneven spike trains is gone: what is left is rounding. The price is latency, T steps
a layer, and that no answer comes before the last of them.

In decoded values the waiting is one evaluation of the network with every activation rounded; the T
steps then send what was found, and nothing else is evaluated. The methods that use these codings
are in `topospike.conversion.methods.waiting`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from topospike.conversion.methods.shifts import ShiftedSite
from topospike.errors import ConfigError
from topospike.snn.coding import Coding, SiteState
from topospike.snn.neurons import Neuron, Uniform
from topospike.snn.site import Rule, Site

MOST_DIGITS = 15
"""Binary digits that a float32 holds with room to spare."""


@dataclass(frozen=True)
class LayerByLayer(Coding):
    """Sends, in ``steps`` steps, whole numbers known before the first. Subclass: `part`.

    Parameters
    ----------
    steps
        T.

    Notes
    -----
    ``state.extra`` holds k; a decoded value is the sum of what was sent, in units of theta / levels
    of the site's `Uniform` neuron.
    """

    by_formula = False
    steps: int = 8

    @property
    def presimulation(self) -> int:
        """Return 1: one evaluation of the network finds every k."""
        return 1

    @property
    def complete_at(self) -> int:
        """Return T."""
        return self.steps

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return what is sent of k at step t = 1..steps; the parts of all steps add up to k."""
        raise NotImplementedError(f"{self.name} does not say what it sends")

    def silent_from(self, neuron: Neuron) -> float:
        """Return the step after the last part."""
        return self.steps + 1

    def bits(self, neuron: Neuron) -> float:
        """Return 1: time tells what a spike is worth."""
        return 1.0

    def presimulate(self, site: Site, r_in: Tensor) -> tuple[Tensor, SiteState]:
        """Round the activation, which is what later layers wait for."""
        seen = r_in + site.shift if isinstance(site, ShiftedSite) else r_in
        k = uniform(site).whole(seen, site.threshold)
        return k * unit_of(site, r_in), SiteState(extra=k)

    def step(self, rule: Rule, t: int, r_in: Tensor, state: SiteState) -> SiteState:
        """Send the part of step t."""
        decoded = torch.zeros_like(r_in) if state.decoded is None else state.decoded
        if t > self.steps:
            return SiteState(decoded, torch.zeros_like(r_in), None, state.extra)
        spikes = self.part(t, state.extra) * unit_of(rule.site, r_in)
        return SiteState(decoded + spikes, spikes, None, state.extra)


def uniform(site: Site) -> Uniform:
    """Return a site's neuron, which must have equally spaced values."""
    if not isinstance(site.neuron, Uniform):
        raise ConfigError(
            f"site {site.name} holds {site.neuron.name} neurons; {site.coding.name} coding needs "
            "Uniform ones."
        )
    return site.neuron


def unit_of(site: Site, like: Tensor) -> Tensor:
    """Return the value of k = 1."""
    unit = site.threshold.to(like.dtype) / uniform(site).levels
    return unit * site.scale if isinstance(site, ShiftedSite) else unit


class Parallel(LayerByLayer):
    """k spikes at the last k steps.

    Notes
    -----
    A spike at step x iff k >= T - x + 1 (Hao et al., ICML 2025).

    Examples
    --------
    >>> torch.stack([Parallel(3).part(t, torch.tensor([0.0, 1.0, 3.0])) for t in (1, 2, 3)])
    tensor([[0., 0., 1.],
            [0., 0., 1.],
            [0., 1., 1.]])
    """

    name = "parallel"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return 1 at the last k steps."""
        return torch.ge(k, self.steps - t + 1, out=torch.empty_like(k))


class Phase(LayerByLayer):
    """The binary digits of k, the largest first, all with its sign.

    Examples
    --------
    >>> torch.stack([Phase(3).part(t, torch.tensor([5.0, -7.0])) for t in (1, 2, 3)])
    tensor([[ 4., -4.],
            [ 0., -2.],
            [ 1., -1.]])
    """

    name = "phase"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return the digit of step t with its place value."""
        value = 2.0 ** (self.steps - t)
        return k.abs().div_(value).floor_().remainder_(2.0).mul_(value).mul_(k.sign())


class OneSpike(LayerByLayer):
    """One spike that stands for all of k, at the step that says how much it is.

    Notes
    -----
    At step T - |k| + 1, none for k = 0: no way to send values by spikes needs fewer events.

    Examples
    --------
    >>> torch.stack([OneSpike(3).part(t, torch.tensor([0.0, 2.0, -3.0])) for t in (1, 2, 3)])
    tensor([[ 0.,  0., -3.],
            [ 0.,  2.,  0.],
            [ 0.,  0.,  0.]])
    """

    name = "one-spike"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return k at its step."""
        return torch.where(k.abs() == self.steps - t + 1, k, 0.0)


class Graded(LayerByLayer):
    """One graded spike of size k, at the first step.

    Examples
    --------
    >>> Graded(1).part(1, torch.tensor([3.0])).item()
    3.0
    """

    name = "graded"

    def part(self, t: int, k: Tensor) -> Tensor:
        """Return k."""
        return k

    def bits(self, neuron: Neuron) -> float:
        """Return log2 of the values an event can have."""
        return super(LayerByLayer, self).bits(neuron) - (1.0 if neuron.gated else 0.0)
