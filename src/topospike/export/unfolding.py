"""Export: the links of an event form, one by one, between single neurons.

A chip has no convolutions and no pools: it has neurons and links. Each pathway of the folded event
form (`topospike.export.folding`) is a linear map; sending one spike from each neuron in turn gives
the weight of every link. Which links exist is not read off the weights, for a link may weigh
exactly 0 (often so after rounding to few bits): the same map is built from the masks.

A chip adds a step at every layer, so a shortcut past layers would bring its spikes too early. They
pass through relays, populations as large as the one they come from that send on what they receive,
one for each step to wait.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from topospike.conversion.methods.method import require_export
from topospike.errors import ConversionError
from topospike.export.event_form import event_form
from topospike.export.event_network import Axons, EventNetwork
from topospike.export.folding import fold
from topospike.snn.coding import Rate
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import IntegrateAndFire
from topospike.wiring.graph import fetch

MOST_LINKS = 5_000_000
"""Single links that are made at most; a simulator builds 10^6 in some ten seconds."""

AT_ONCE = 256
"""Neurons whose links are found together."""


@dataclass(frozen=True, eq=False)
class Projection:
    """The links from one population to another.

    ``source`` and ``target`` are int64 (links,), neurons counted in C order; ``weight`` is of
    spikes and thresholds of size 1. ``is_layer`` is False for shortcuts and relays, whose events
    are no operations of the network.
    """

    before: str
    after: str
    source: Tensor
    target: Tensor
    weight: Tensor
    is_layer: bool = True

    def __call__(self, spikes: Tensor, neurons: int) -> Tensor:
        """Return what spikes (time, neurons before) add to so many neurons: (time, neurons)."""
        ends = torch.stack((self.target, self.source))
        shape = (neurons, spikes.shape[1])
        matrix = torch.sparse_coo_tensor(ends, self.weight.to(spikes), shape, check_invariants=True)
        return (matrix @ spikes.T).T


@dataclass(frozen=True, eq=False)
class UnfoldedNetwork:
    """Populations of neurons by name, in order, with the links between them.

    Attributes
    ----------
    shapes
        Shape of each population; the last, ``readout``, adds up and never fires.
    starts
        Membrane of each neuron before the first step, in thresholds.
    depths
        Steps by which each population is behind the first.
    projections
        The links.
    relays
        Relay -> the population whose spikes it sends on.
    network
        The folded network, for what is constant in time.
    """

    shapes: dict[str, tuple[int, ...]]
    starts: dict[str, float]
    depths: dict[str, int]
    projections: list[Projection]
    relays: dict[str, str]
    network: EventNetwork

    @property
    def sizes(self) -> dict[str, int]:
        """Neurons of each population."""
        return {name: math.prod(shape) for name, shape in self.shapes.items()}

    @property
    def links(self) -> int:
        """How many links there are."""
        return sum(len(projection.source) for projection in self.projections)

    def with_relays(self, trains: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Add the spikes of the relays to those of the sites; time is each population's own."""
        return {**trains, **{relay: trains[source] for relay, source in self.relays.items()}}

    def events_beside_layers(self, trains: Mapping[str, Tensor]) -> int:
        """Return the synaptic events of shortcuts and relays, given the spikes of all."""
        return sum(
            int(trains[links.before].sum(0)[links.source].sum())
            for links in self.projections
            if not links.is_layer
        )

    @torch.no_grad()
    def drives(self, x: Tensor) -> dict[str, Tensor]:
        """Return what every neuron is given at each step whatever fires: (images, neurons).

        Biases, and in the populations that read the image what it adds.
        """
        found = {}
        for name, size in self.sizes.items():
            drive = x.new_zeros(len(x), size)
            for axons in () if name in self.relays else self.network.axons_of(name):
                shape = x.shape[1:] if axons.source is None else self.shapes[axons.source]
                drive += axons.constant(x.new_zeros(1, *shape)).flatten(1)
                if axons.source is None:
                    drive += axons(x).flatten(1)
            found[name] = drive
        return found

    @torch.no_grad()
    def membranes(
        self, trains: Mapping[str, Tensor], drives: Mapping[str, Tensor], timesteps: int
    ) -> dict[str, Tensor]:
        """Return the membranes just before neurons fire, in thresholds: (time, neurons) each.

        ``trains`` has the spikes of an image, (time, neurons) for each population that fires;
        ``drives`` what each neuron is given at every step, (neurons,). Time is each layer's own.
        """
        sent = {name: train.to(drives[name]).cumsum(0) for name, train in trains.items()}
        steps = torch.arange(1, timesteps + 1).unsqueeze(1)
        found = {}
        for name, drive in drives.items():
            found[name] = steps * drive + self.starts.get(name, 0.0)
            if name in sent:
                found[name][1:] -= sent[name][:-1]
        for links in self.projections:
            found[links.after] += links(sent[links.before], self.sizes[links.after])
        return found


@torch.no_grad()
def unfold(snn: SpikingNetwork) -> UnfoldedNetwork:
    """Return a network as single neurons and links.

    Parameters
    ----------
    snn
        A network of integrate-and-fire neurons under rate coding (the methods of the QCFS family
        that do no more than their neurons do), of convolutions, linear layers, average pools.

    Raises
    ------
    ConversionError
        For other neurons; for what no links express (max-pools, products of activations); for more
        than five million links.

    Examples
    --------
    >>> import topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> unfolded = unfold(ts.convert(model, "qcfs", [torch.rand(32, 4)]))
    >>> unfolded.sizes, unfolded.links, unfolded.depths
    ({'1': 8, 'readout': 3}, 24, {'1': 0, 'readout': 1})
    """
    require_plain_neurons(snn)
    form, existing = fold(event_form(snn)), fold(event_form(links_for_weights(snn)))
    network, presence = EventNetwork(form, 1).eval(), EventNetwork(existing, 1).eval()
    unfolded = UnfoldedNetwork({}, {}, {}, [], {}, network)
    for population in form.populations:
        name, sources = population.name, [way.source for way in population.pathways if way.source]
        depth = max((unfolded.depths[source] + 1 for source in sources), default=0)
        ways = zip(
            population.pathways, network.axons_of(name), presence.axons_of(name), strict=True
        )
        for way, axons, present in ways:
            if way.source is None:
                continue
            before = relayed(unfolded, way.source, depth - 1)
            links = projection(
                before, name, axons, present, unfolded.shapes[before], unfolded.links
            )
            is_layer = not any(getattr(step, "is_shortcut", False) for step in way.steps)
            unfolded.projections.append(replace(links, is_layer=is_layer))
        unfolded.shapes[name], unfolded.depths[name] = population.shape, depth
        if population.site is not None:
            unfolded.starts[name] = population.site.neuron.initial_membrane
    return unfolded


def require_plain_neurons(snn: SpikingNetwork) -> None:
    """Raise unless every site is of integrate-and-fire neurons under rate coding."""
    require_export(snn.report, "event-network")
    for site in snn.sites.values():
        if type(site.neuron) is not IntegrateAndFire or type(site.coding) is not Rate:
            raise ConversionError(
                f"site {site.name} has {site.neuron.name} neurons under {site.coding.name} coding; "
                "the simulated chip has integrate-and-fire neurons whose spikes are all of one "
                "size. Convert with method='qcfs'."
            )


def links_for_weights(snn: SpikingNetwork) -> SpikingNetwork:
    """Return the network with 1 for every existing link, no biases, and thresholds of 1."""
    copied = copy.deepcopy(snn)
    for layer in copied.wiring:
        if layer.weight is not None and layer.weight.op == "get_attr" and layer.links is not None:
            fetch(copied.ann, layer.weight).copy_(layer.links)
    for site in copied.sites.values():
        site.threshold.fill_(1.0)
    return copied


def relayed(unfolded: UnfoldedNetwork, source: str, depth: int) -> str:
    """Return what has the spikes of ``source`` at a depth: itself, or a relay that is made."""
    last, size = source, unfolded.sizes[source]
    for behind in range(unfolded.depths[source] + 1, depth + 1):
        relay = f"{source} + {behind - unfolded.depths[source]}"
        if relay not in unfolded.relays:
            each = torch.arange(size)
            links = Projection(last, relay, each, each, torch.ones(size), is_layer=False)
            unfolded.projections.append(links)
            unfolded.relays[relay] = source
            unfolded.shapes[relay], unfolded.depths[relay] = unfolded.shapes[source], behind
            unfolded.starts[relay] = 0.0
        last = relay
    return last


def projection(
    before: str, after: str, axons: Axons, present: Axons, shape: tuple[int, ...], made: int
) -> Projection:
    """Return the links of one pathway, found by one spike from each neuron in turn."""
    neurons = math.prod(shape)
    like = next(axons.buffers(), next(axons.parameters(), torch.zeros(())))
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for begin in range(0, neurons, AT_ONCE):
        fired = torch.arange(begin, min(begin + AT_ONCE, neurons))
        spikes = torch.zeros(len(fired), neurons, dtype=like.dtype)
        spikes[torch.arange(len(fired)), fired] = 1
        spikes = spikes.view(-1, *shape).to(like.device)
        source, target = (present(spikes).flatten(1) != 0).nonzero(as_tuple=True)
        parts.append((source + begin, target, axons(spikes).flatten(1)[source, target]))
        made += len(source)
        if made > MOST_LINKS:
            raise ConversionError(
                f"the network has more than {MOST_LINKS:,} links once its layers are unfolded "
                f"({before} to {after}: {neurons:,} neurons); a simulated chip takes that "
                "many. Simulate a smaller network, or its linear layers alone."
            )
    source, target, weight = (torch.cat(part).cpu() for part in zip(*parts, strict=True))
    return Projection(before, after, source, target, weight)
