"""Simulate: what arrives at a layer as whole numbers, each of them a spike code or a sum of codes.

A neuron emits multiples of its quantum q: an integrate-and-fire neuron theta itself, a neuron of n
levels multiples of ``theta / 2^(n-1)``. Where reshapes, average pools and zero padding lie between
a site and a layer, the operand is again whole numbers times one quantum for each input channel;
where sites of different quanta are added, or windows are uneven, it is not. The quantum is found by
sending ones through the layer's path (`topospike.wiring`), and a random signal says whether it
holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.snn.neurons import largest_code
from topospike.snn.site import Site
from topospike.wiring.fanout import events_at
from topospike.wiring.graph import nodes_downstream_of_input, timeless_nodes
from topospike.wiring.images import Probe
from topospike.wiring.layers import Layer

aten = torch.ops.aten

TOLERANCE = 1e-5
"""Relative difference up to which quanta are equal: the rounding of float32."""

FED_OTHERWISE = {
    "image": "fed by the image",
    "maxpool": "fed through a max-pool, whose decoded values have no common quantum",
    "product": "a product of two activations",
}


@dataclass(frozen=True, eq=False)
class Codes:
    """The whole numbers that arrive at a layer.

    Attributes
    ----------
    quantum : Tensor, float64, shape (inputs,)
        What 1 stands for in each input channel (feature of a linear layer); 1 where none arrives.
    largest : int
        Largest size of a code.
    signed : bool
        Whether a code may be negative.
    """

    quantum: Tensor
    largest: int
    signed: bool

    @property
    def fit(self) -> bool:
        """Whether the codes fit 8 bits."""
        return self.largest <= (127 if self.signed else 255)

    def of_weight(self, weight: Tensor) -> Tensor:
        """Return the quantum beside each entry of a weight (out, in of a group, ...)."""
        inputs = weight.shape[1]
        groups = len(self.quantum) // inputs
        rows = self.quantum.view(groups, inputs).repeat_interleave(len(weight) // groups, 0)
        return rows.view(*rows.shape, *(1 for _ in weight.shape[2:]))


def quantum_of(site: Site) -> tuple[Tensor, int, bool] | None:
    """Return a site's quantum, its largest code, and whether codes have signs; ``None`` if graded.

    Examples
    --------
    >>> from topospike.snn.coding import Rate
    >>> from topospike.snn.neurons import MultiThreshold
    >>> site = Site("a", gated=True, neuron=MultiThreshold(3, gated=True), coding=Rate())
    >>> site.threshold = torch.tensor(2.0)
    >>> quantum_of(site)
    (tensor(0.5000), 4, True)
    """
    most, signed = largest_code(site.neuron)
    return (site.threshold / most, most, signed) if most and site.threshold.numel() else None


class Quanta:
    """Finds the codes at the layers of one network."""

    def __init__(self, network: fx.GraphModule) -> None:
        timeless, of_image = timeless_nodes(network), nodes_downstream_of_input(network.graph)
        changing = {n for n in network.graph.nodes if n in of_image or n not in timeless}
        self.network = network
        self.values = Probe(network, 2, changing).values

    def at(self, layer: Layer) -> Codes | str:
        """Return the codes that arrive at a layer, or why there are none."""
        reason = FED_OTHERWISE.get(layer.fed_by) or (
            f"fed by real numbers: {layer.reason}" if layer.fed_by != "spikes" else ""
        )
        if not reason and layer.node.target not in (aten.linear.default, aten.conv2d.default):
            reason = f"{layer.node.target} has no product of whole numbers here"
        if not reason and plain_weight(layer, self.network) is None:
            reason = "its weight is computed, or shared with another layer"
        return reason or self._codes(layer)

    def _codes(self, layer: Layer) -> Codes | str:
        quanta: dict[fx.Node, Tensor] = {}
        most: list[int] = []
        signs: list[bool] = []
        for node in layer.sites:
            found = quantum_of(self.network.get_submodule(str(node.target)))  # pyright: ignore[reportArgumentType]
            if found is None:
                return "fed by graded spikes of any size"
            quantum = found[0].detach().double().cpu()
            quanta[node] = quantum.clamp_min(0).expand(self.values[node].shape)
            most.append(found[1])
            signs.append(found[2])
        ones = {node: (quantum > 0).double() for node, quantum in quanta.items()}
        drawn = torch.Generator().manual_seed(0)
        signal = {
            node: torch.randint(0, 8, one.shape, generator=drawn) * one
            for node, one in ones.items()
        }
        number = self._sent(layer, ones, ones=True)
        value = self._sent(layer, quanta, ones=False)
        unit = per_channel(layer, value / number.where(number > 0, torch.nan))
        if unit is None:
            return "fed by uneven averages: the quantum differs within an input channel"
        by_position = along(layer, unit)
        expected = self._sent(layer, signal, ones=True) * by_position
        coded = {node: signal[node] * quantum for node, quantum in quanta.items()}
        difference = self._sent(layer, coded, ones=False) - expected
        if bool((difference.abs() > TOLERANCE * by_position.abs() * number.clamp_min(1)).any()):
            return "fed by a sum of neurons of different quanta"
        largest = round(float(number.max())) * max(most)
        return Codes(unit, largest, any(signs))

    def _sent(self, layer: Layer, events: Mapping[fx.Node, Any], *, ones: bool) -> Tensor:
        return events_at(layer, layer.operand, events, self.values, ones=ones)


def plain_weight(layer: Layer, network: nn.Module) -> str | None:
    """Return the name of the parameter that is a layer's weight and no other's, or ``None``."""
    weight = layer.weight
    if weight is None or weight.op != "get_attr":
        return None
    parameters = dict(network.named_parameters(remove_duplicate=False))
    mine = parameters.get(str(weight.target))
    readers = [
        user
        for node in weight.graph.find_nodes(op="get_attr")
        if mine is not None and parameters.get(str(node.target)) is mine
        for user in node.users
    ]
    return str(weight.target) if readers == [layer.node] else None


def channel_axis(layer: Layer) -> int:
    """Return the axis of an operand along which a layer has its input channels."""
    return -3 if layer.node.target is aten.conv2d.default else -1


def per_channel(layer: Layer, units: Tensor) -> Tensor | None:
    """Return the one unit of each input channel, 1 of an empty one; ``None`` if it has several."""
    rows = units.movedim(channel_axis(layer), 0).flatten(1)
    empty = rows.isnan().all(1)
    low, high = (
        rows.where(~rows.isnan(), infinity).where(~empty[:, None], 1.0)
        for infinity in (torch.inf, -torch.inf)
    )
    low, high = low.amin(1), high.amax(1)
    return high if bool(((high - low) <= TOLERANCE * high.abs()).all()) else None


def along(layer: Layer, unit: Tensor) -> Tensor:
    """Return the units of the channels so that they broadcast over an operand."""
    return unit.view(-1, 1, 1) if channel_axis(layer) == -3 else unit
