r"""Convert: sigma-delta spiking, our own method; a network falls silent when it has the answer.

DCGS's graded spikes with constant gain. Every step a neuron sends the signed power of two nearest
to what its decoded output lacks, and its readers add that as it is::

    u = r_in - r_out        s = Q(u)        r_out += s

An error below :math:`1.5\,\theta` shrinks to a third a step, down to three quarters of the smallest
threshold :math:`\lambda = \theta / 2^{n-1}`, below which a neuron is silent. Once no neuron fires
none fires again while the input stays, so the energy of an answer is finite and a run can end by
itself. A new input may follow with the state kept: what has not changed costs nothing.

How fine the ladder has to be is a property of the network. It is chosen on calibration images by
evaluating the ANN once with every activation rounded to its site's :math:`\lambda`, which is where
a silent network stands.

Sources: the ladder and the graph rules are those of DCGS (Huang et al., ICML 2025); loops of
rounded differences between layers are those of O'Connor and Welling (ICLR 2017) and of Lava's SDNN.
The ladder inside the loop, coarse-to-fine levels and levels chosen by tolerance are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from topospike.conversion.methods.dcgs import GradedMethod
from topospike.conversion.methods.method import ThresholdRule, number, whole
from topospike.errors import ConfigError
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.executors.steps import Visitor
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import MAX_LEVELS, MultiThreshold, Neuron
from topospike.snn.records import Settled
from topospike.snn.site import Site

COARSER_AT_FIRST = (3, 2, 1)
"""Levels fewer at the first steps: what they say is corrected by the next ones anyway."""

TOLERANCE = 0.03
"""Relative error of the outputs at silence that the levels of a network are chosen for."""

FURTHER = 1.5
"""How much further from the activations than the nearest multiples a silent network may be."""

FLOOR = 0.25
"""Least threshold of a channel, as a share of the site's largest.

A neuron moves by at most its threshold a step. That of a channel hardly active in calibration would
be next to nothing, and an image that does excite it would take hundreds of steps.
"""

IMAGES = 32
"""Calibration images that levels are chosen on."""


def coarse_to_fine(name: str, value: Any) -> None:
    """Check that an option is a sequence of numbers of levels."""
    if not isinstance(value, tuple):
        raise ConfigError(
            f"{name} is {value!r}; the levels of the first steps are required, such as (5, 6, 7), "
            "or () for all levels at every step."
        )
    for levels in value:
        whole(1, MAX_LEVELS)(name, levels)


@dataclass(frozen=True, kw_only=True)
class SigmaDeltaMethod(GradedMethod):
    """Signed powers of two in a sigma-delta loop: few steps, then silence. No training.

    Parameters
    ----------
    solver, granularity, quantisation_levels, percentile, scale, scheme, stat
        As in `GradedMethod`; thresholds are a quantile, one a channel (at operand sites: times 4,
        one a site).
    levels
        Positive thresholds n of a neuron. ``None``: chosen by ``tolerance``.
    schedule
        Levels of the first steps, coarse to fine. ``None``: three, two and one fewer than n.
    tolerance
        Relative error of the outputs that activations rounded to the levels may leave on
        calibration images: the fewest that keep to it are chosen for the network, then fewer still
        for each site that can do with them. ``None``: 0.03, for the network as a whole. The silent
        network itself must come within 1.5 times that (its values are within three quarters of a
        level, rounded ones within one half); else every site gets more levels.
    pixels
        Put sites on the inputs as well, so that no layer is fed numbers: the first one then costs
        accumulates for what changes in the picture, instead of a MAC for each link and picture.

    Notes
    -----
    An event carries ``log2(2 n)`` bits and is counted as one accumulate, as in DCGS. Shifting by
    the exponent is free on hardware that has shifters only.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    >>> snn = ts.convert(model, "sigma-delta", calibration=[x])
    >>> record = snn.settle(x)
    >>> bool(record.silent.all()), int(record.steps.max()) < 16
    (True, True)
    """

    name = "sigma-delta"
    source = "topospike; ladder of Huang et al., ICML 2025"
    exports = frozenset({"csr"})
    beyond = "spikes of several sizes that correct a held value"

    ranges = GradedMethod.ranges | {
        "schedule": coarse_to_fine,
        "tolerance": number(0.0, 1.0),
    }

    solver: str | None = "percentile"
    schedule: tuple[int, ...] | None = None
    tolerance: float | None = None
    pixels: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.pixels, bool):
            raise ConfigError(f"pixels is {self.pixels!r}; true or false is required.")
        super().__post_init__()

    @property
    def sites_on_inputs(self) -> bool:
        """Whether the inputs arrive as spikes."""
        return self.pixels

    def site_coding(self) -> Coding:
        """Return coding with constant gain."""
        return CODINGS["sigma-delta"]

    def site_neuron(self, gated: bool) -> Neuron | None:
        """Return the firing rule; its levels may be chosen anew in `finish`."""
        return self.neuron_with(self.levels or MAX_LEVELS // 2, gated)

    def threshold_rule(self, timesteps: int, *, gated: bool) -> ThresholdRule:
        """Return the rule of its kind, with no threshold far below the others of a site."""
        return replace(super().threshold_rule(timesteps, gated=gated), floor=FLOOR)

    def neuron_with(self, levels: int, gated: bool) -> MultiThreshold:
        """Return the firing rule with so many levels, and fewer at the first steps."""
        schedule = self.schedule
        if schedule is None:
            schedule = tuple(levels - fewer for fewer in COARSER_AT_FIRST)
        capped = tuple(max(1, min(levels, early)) for early in schedule)
        return MultiThreshold(levels, gated=gated, schedule=capped)

    def finish(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> SpikingNetwork:
        """Choose the levels, and say in the report what they leave of the ANN's outputs."""
        ladder = Ladder(snn, tuple(tensor[:IMAGES] for tensor in images))
        chosen = dict.fromkeys(snn.sites, self.levels or 0)
        if self.levels is None:
            chosen = dict.fromkeys(snn.sites, ladder.fewest(self.tolerance or TOLERANCE))
            if self.tolerance is not None:
                chosen = ladder.fewer_by_site(chosen, self.tolerance)
        run = self.settled(snn, chosen, ladder.images)
        allowed = FURTHER * (self.tolerance or TOLERANCE)
        while (
            self.levels is None
            and min(chosen.values()) < MAX_LEVELS
            and ladder.distance(run.logits[-1]) > allowed
        ):
            chosen = {name: min(levels + 1, MAX_LEVELS) for name, levels in chosen.items()}
            run = self.settled(snn, chosen, ladder.images)
        levels = max(chosen.values())
        advice = (*snn.report.advice, ladder.in_words(chosen, run))
        snn.report = replace(snn.report, levels=levels, advice=advice)
        return snn

    def settled(
        self, snn: SpikingNetwork, levels: Mapping[str, int], images: tuple[Tensor, ...]
    ) -> Settled:
        """Give every site its levels, and run images until nothing fires."""
        for name, site in snn.sites.items():
            site.neuron = self.neuron_with(levels[name], site.gated)
        return snn.settle(images)


class Ladder:
    """What the outputs of a silent network would be with any number of levels at each site.

    At silence a decoded value lies within three quarters of its smallest threshold of the
    activation; here it is the multiple of that threshold nearest to it.

    Parameters
    ----------
    snn
        A network with thresholds.
    images
        Some calibration images, one tensor an input.
    """

    def __init__(self, snn: SpikingNetwork, images: tuple[Tensor, ...]) -> None:
        self.sites = list(snn.sites.values())
        # operations of one event of every neuron of each site
        self.leaving = dict.fromkeys(snn.sites, 0.0)
        for feed in (feed for layer in snn.wiring for feed in layer.feeds):
            self.leaving[feed.site] += float(feed.fan_out.sum())
        self.network = snn.ann
        self.images = images
        self.exact = self.outputs({})
        self.scale = float(self.exact.norm()) or 1.0

    @torch.no_grad()
    def outputs(self, levels: Mapping[str, int]) -> Tensor:
        """Return the outputs with the sites' activations rounded to so many levels."""

        def rounded(site: Site, r_in: Tensor) -> Tensor:
            value = site(r_in)
            if site.name not in levels:
                return value
            least = site.threshold / 2.0 ** (levels[site.name] - 1)
            return torch.where(least > 0, (value / least).round_().nan_to_num_() * least, 0.0)

        return Visitor(self.network, rounded).run(*self.images)

    def error(self, levels: Mapping[str, int]) -> float:
        """Return the relative error of the outputs with so many levels."""
        return self.distance(self.outputs(levels))

    def distance(self, outputs: Tensor) -> float:
        """Return the relative error of some outputs."""
        return float((outputs - self.exact).detach().norm()) / self.scale

    def fewest(self, tolerance: float) -> int:
        """Return the fewest levels for all sites that keep to the tolerance, or the most there are.

        The error of the outputs halves with every level once the rounding is fine.
        """
        names = [site.name for site in self.sites]
        for levels in range(2, MAX_LEVELS):
            if self.error(dict.fromkeys(names, levels)) <= tolerance:
                return levels
        return MAX_LEVELS

    def fewer_by_site(self, levels: Mapping[str, int], tolerance: float) -> dict[str, int]:
        """Take levels from the sites that save most for the error they add, while it is allowed."""
        chosen = dict(levels)
        gains = {name: self.gain(chosen, name) for name in chosen}
        for name in sorted(chosen, key=lambda name: -gains[name]):
            while chosen[name] > 1:
                fewer = {**chosen, name: chosen[name] - 1}
                if self.error(fewer) > tolerance:
                    break
                chosen = fewer
        return chosen

    def gain(self, levels: Mapping[str, int], name: str) -> float:
        """Return the operations that one level less at a site saves, for the error it adds."""
        fewer = {**levels, name: levels[name] - 1}
        added = self.error(fewer) ** 2 - self.error(levels) ** 2
        return self.leaving[name] / max(added, 1e-12)

    def in_words(self, levels: Mapping[str, int], run: Settled) -> str:
        """Say which levels were taken, and how near to the ANN the silent network really comes."""
        numbers = sorted(set(levels.values()))
        each = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]} to {numbers[-1]}"
        outputs = run.logits[-1]
        agreement = float((outputs.argmax(-1) == self.exact.argmax(-1)).float().mean())
        silent = (
            f"silent after {int(run.steps.max())} steps"
            if bool(run.silent.all())
            else (f"not all silent after {len(run.logits)} steps")
        )
        return (
            f"{each} levels a site ({math.log2(2 * numbers[-1]):.3g} bits an event at most): "
            f"{silent}; the outputs on {len(self.images[0])} calibration images are then within "
            f"{self.distance(outputs):.1%} of the ANN's, and {agreement:.1%} have the same largest "
            "entry."
        )
