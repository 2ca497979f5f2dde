"""Export: compare the spikes of a chip with those of the network here, neuron by neuron.

Two simulations of one network may part where a membrane meets its threshold to rounding: one fires
at this step, the other at the next, and whatever hears of it follows. So beside equality there is a
second test. The membranes that belong to a set of spikes follow from the links alone; a neuron that
fires below its threshold, or does not at it, is wrong by its distance from the threshold. Spikes
that differ are accepted if every wrong neuron, there or here, is so by less than the chip's
arithmetic resolves; each is then told as a tie. Anything else is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from topospike.errors import ConversionError
from topospike.export.unfolding import UnfoldedNetwork
from topospike.snn.network import SpikingNetwork

Trains = dict[str, Tensor]
"""Of each population, which neurons fire at each of its steps: (time, neurons), bool."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What the network here does with one image.

    ``drive`` is what every neuron is given at each step, ``membranes`` what they are just before
    they fire, in thresholds, ``fan_out`` how many links leave each neuron.
    """

    drive: dict[str, Tensor]
    trains: Trains
    membranes: dict[str, Tensor]
    fan_out: dict[str, Tensor]

    def events(self, trains: Trains) -> int:
        """Return the synaptic operations of some spikes."""
        each = ((trains[name].sum(0) * links).sum() for name, links in self.fan_out.items())
        return round(sum(float(events) for events in each))


def reference_run(
    snn: SpikingNetwork,
    network: UnfoldedNetwork,
    drive: dict[str, Tensor],
    x: Tensor,
    timesteps: int,
) -> Reference:
    """Simulate one image, a batch of one."""
    links = dict.fromkeys(snn.sites, x.new_zeros(()))
    for layer in snn.wiring:
        for feed in layer.feeds:
            links[feed.site] = links[feed.site] + feed.fan_out
    trains: dict[str, list[Tensor]] = {name: [] for name in snn.sites}
    fan_out = {}
    for step in snn.watch(x, timesteps):
        for name, state in step.sites.items():
            if state.spikes is None:
                raise RuntimeError(f"{name} has recorded no spikes")
            fired = snn.populations[name].images.by_image(state.spikes)[0] != 0
            fan_out[name] = (links[name] * torch.ones_like(fired)).flatten()
            trains[name].append(fired.flatten())
    stacked = network.with_relays({name: torch.stack(steps) for name, steps in trains.items()})
    return Reference(drive, stacked, network.membranes(stacked, drive, timesteps), fan_out)


def compare(
    image: int,
    network: UnfoldedNetwork,
    ours: Reference,
    theirs: Trains,
    resolution: Mapping[str, Tensor],
) -> tuple[str, ...]:
    """Return the ties of an image on a chip: none if its spikes equal ours.

    ``resolution`` has for each neuron the distance from its threshold, in thresholds, that the
    chip's arithmetic tells from 0.

    Raises
    ------
    ConversionError
        If a neuron fires, or does not, further from its threshold than that.
    """
    if all(torch.equal(train, theirs[name]) for name, train in ours.trains.items()):
        return ()
    timesteps = len(next(iter(theirs.values())))
    ties = []
    for trains, membranes in (
        (theirs, network.membranes(theirs, ours.drive, timesteps)),
        (ours.trains, ours.membranes),
    ):
        for name, train in trains.items():
            distance = (membranes[name] - 1).abs()
            wrong = (membranes[name] >= 1) != train
            for step, neuron in wrong.nonzero().tolist():
                where = (
                    f"image {image}, population {name}, neuron {neuron} at step {step + 1}: "
                    f"{float(distance[step, neuron]):.2g} of a threshold from it"
                )
                if distance[step, neuron] > resolution[name][neuron]:
                    raise ConversionError(
                        f"{where}, and the chip does not fire as the network here does. The chip's "
                        f"arithmetic resolves {float(resolution[name][neuron]):.2g} there, so this "
                        "is no rounding but a defect; please report it."
                    )
                ties.append(where)
    return tuple(dict.fromkeys(ties))


def require_same_count(image: int, events: int, counted: int) -> None:
    """Raise unless the chip has counted the synaptic operations of its spikes as we do."""
    if events != counted:
        raise ConversionError(
            f"image {image}: the chip counts {counted} synaptic events, the network {events}: "
            "links of one neuron meet in one neuron (overlapping pools, a pool before the "
            "activation)."
        )
