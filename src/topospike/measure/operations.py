"""Count the operations of a spiking network while it runs: integers, per layer and time step.

A synaptic operation (SOP) is one event crossing one existing link. For a layer fed by spikes the
count of a step is ``sum over neurons of (images in which it fired) * (links that leave it)``: one
pass over the spikes, no second convolution. Layers fed by the image cost MACs. What remains (a
max-pool between, graded values) is decided by `Conventions` and named in the conversion report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from topospike.contracts import LayerOperations
from topospike.measure.conventions import Conventions
from topospike.snn.coding import SiteState
from topospike.snn.frames import Moment
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.wiring.fanout import constants_on_path, events_at
from topospike.wiring.graph import fetch
from topospike.wiring.images import ImageAxis
from topospike.wiring.layers import LINEARS, Layer


@dataclass(frozen=True)
class CountedLayer:
    """A weight layer under one set of conventions: what is counted of its wiring.

    ``leaving`` has the operand's shape for one image, ``at_sites`` the fan-out of each site,
    ``at_inputs`` that of each input tensor, where the input is events.
    """

    wiring: Layer
    leaving: Tensor | None
    at_sites: dict[fx.Node, tuple[Tensor, ImageAxis]]
    at_inputs: dict[str, Tensor]


def counted(layer: Layer, conventions: Conventions, device: torch.device) -> CountedLayer:
    """Choose from the wiring of a layer what these conventions count, where the spikes are."""
    dense = conventions.links == "dense"
    folded = conventions.pooled == "fold" or not layer.pooled
    leaving = layer.leaving_dense if dense else layer.leaving
    return CountedLayer(
        layer,
        None if leaving is None else leaving.to(device),
        {
            feed.node: ((feed.fan_out_dense if dense else feed.fan_out).to(device), feed.images)
            for feed in layer.feeds
            if folded
        },
        {
            feed.site: (feed.fan_out_dense if dense else feed.fan_out).to(device)
            for feed in layer.arrivals
        },
    )


def meetings(left: Tensor, right: Tensor) -> Tensor:
    """Return in how many multiplications of ``left @ right`` both factors are true.

    Examples
    --------
    >>> one = torch.tensor([[True, False], [True, True]])
    >>> meetings(one, one).item()
    4.0
    """
    return (left.double().sum(-2) * right.double().sum(-1)).sum()


ROWS_AT_ONCE = 8
"""Images compared at a time on a CPU: the comparison stays in its cache."""


FIRST = ImageAxis(0, 1)


def images_firing(spikes: Tensor, images: ImageAxis = FIRST) -> Tensor:
    """Return in how many images of a batch each neuron fired, float32, shape of one image.

    Fifteen times faster than ``count_nonzero(dim=0)``, which adds up eight-byte integers.

    Parameters
    ----------
    spikes
        Spikes of a batch.
    images
        How its images lie in them; by default along the first axis.

    Examples
    --------
    >>> images_firing(torch.tensor([[0.5, 0.0], [-1.0, 0.0], [0.0, 0.25]])).tolist()
    [2.0, 1.0]
    """
    by_image = images.by_image(spikes)
    rows = by_image.flatten(1)
    step = ROWS_AT_ONCE if rows.device.type == "cpu" else max(1, len(rows))
    fired = torch.empty(rows[:step].shape, dtype=torch.float32, device=rows.device)
    total = fired.new_zeros(rows.shape[1])
    for part in rows.split(step):
        total += torch.ne(part, 0, out=fired[: len(part)]).sum(0)
    return total.view(by_image.shape[1:])


def weighted_sum(counts: Tensor, links: Tensor) -> float:
    """Return the sum of counts times links, exact in float64."""
    return float(torch.dot(counts.flatten().double(), links.flatten()))


class OperationCounter:
    """Counts operations over batches; feed it after each step of a simulation.

    Parameters
    ----------
    snn
        The spiking network.
    timesteps
        Length of the runs that will be observed.
    conventions
        What to count.
    """

    def __init__(self, snn: SpikingNetwork, timesteps: int, conventions: Conventions) -> None:
        self.conventions = conventions = conventions.resolved(settles=snn.settles)
        self.network = snn.ann
        self.layers = [counted(layer, conventions, snn.like.device) for layer in snn.wiring]
        self.differential = not any(s.coding.averages for s in snn.sites.values())
        self.input, self.names = snn.report.input, snn.inputs.names
        self.passes_spikes = all(s.coding.name == "spikes" for s in snn.sites.values())
        called = {node for layer in self.layers for node in layer.wiring.sites}
        self.site_of: dict[fx.Node, Site] = {
            node: module
            for node in called
            if isinstance(module := snn.ann.get_submodule(str(node.target)), Site)
        }
        # float64 holds whole numbers exactly up to 9e15
        self.sops = torch.zeros(len(self.layers), timesteps, dtype=torch.float64)
        self.macs = torch.zeros(len(self.layers), timesteps, dtype=torch.float64)
        self.arrived = torch.zeros(timesteps, dtype=torch.float64)
        needed = [node for layer in self.layers for node in self._needs(layer)]
        self.watched = list(dict.fromkeys(needed))
        self._before: dict[fx.Node, Tensor] = {}
        self.images = 0

    def _needs(self, layer: CountedLayer) -> list[fx.Node]:
        """Return the nodes whose values must be looked at to count this layer."""
        kind = layer.wiring.fed_by
        looked_at = self.input == "image" and self.conventions.first_layer == "ac"
        if kind == "maxpool" or (kind == "image" and looked_at):
            return [layer.wiring.operand]
        if kind == "product":
            return [*layer.wiring.operands, *sizes_on_path(layer.wiring)]
        if kind == "spikes" and not layer.at_sites:
            return sizes_on_path(layer.wiring)
        return []

    def _events(self, wiring: Layer, operand: fx.Node, values: dict[fx.Node, Any]) -> Tensor:
        """Tell where a non-zero number of this step's spikes arrives at an operand."""
        spikes = {node: self._spikes(node) for node in wiring.sites}
        read = {
            node: fetch(self.network, node)
            for node in constants_on_path(wiring)
            if node.op == "get_attr"
        }
        return events_at(wiring, operand, spikes, {**values, **read}) != 0

    def begin_batch(self, images: int) -> None:
        """Start a new run over ``images`` images."""
        self.images += images
        self._batch = images
        self._before = {}

    def begin_frame(self, images: int) -> None:
        """Count a new frame of ``images`` streams from nothing; what they hold is kept."""
        self.images = self._batch = images
        self.sops.zero_()
        self.macs.zero_()

    def observe(
        self,
        t: int,
        watched: tuple[Any, ...],
        held: Mapping[str, SiteState],
        fired: dict[Site, Tensor] | None = None,
        moment: Moment | None = None,
    ) -> None:
        """Add the operations of step ``t``; ``watched`` are the values of ``self.watched``.

        ``held`` is the state of every site by name.
        ``fired`` keeps, for each site, in how many images its neurons fired at this step; what is
        missing is counted and added. ``moment`` is what was shown, of frames.
        """
        values = dict(zip(self.watched, watched, strict=True))
        fired = {} if fired is None else fired
        self._held, self._moment = held, moment
        if moment is not None and moment.arrived is not None and self.input == "events":
            self.arrived[t - 1] += sum(float(self._entries(x).sum()) for x in moment.arrived)
        for index, layer in enumerate(self.layers):
            sops, macs = self._operations(layer, t, values, fired)
            self.sops[index, t - 1] += float(sops)
            self.macs[index, t - 1] += float(macs)
        # the sites overwrite their outputs at the next step
        kept = {
            operand
            for layer in self.layers
            if layer.wiring.fed_by in ("maxpool", "product")
            for operand in layer.wiring.operands
        }
        self._before = {node: values[node].clone() for node in kept}

    def _operations(
        self,
        layer: CountedLayer,
        t: int,
        values: dict[fx.Node, Any],
        fired: dict[Site, Tensor],
    ) -> tuple[Tensor | float, Tensor | float]:
        kind = layer.wiring.fed_by
        if kind == "graded":
            return 0.0, layer.wiring.macs * self._batch
        if kind == "image":
            return self._first_layer(layer, t, values)
        if kind == "product":
            return self._product(layer.wiring, values), 0.0
        if layer.at_sites:
            return sum(
                weighted_sum(self._fired(node, images, fired), links)
                for node, (links, images) in layer.at_sites.items()
            ), 0.0
        count = self._weighted(layer, self._arriving(layer.wiring, t, values))
        as_mac = layer.wiring.pooled and self.conventions.pooled == "mac"
        return (0.0, count) if as_mac else (count, 0.0)

    def _first_layer(
        self, layer: CountedLayer, t: int, values: dict[fx.Node, Any]
    ) -> tuple[Tensor | float, float]:
        convention = self.conventions.first_layer
        if self.input != "image":
            return self._frame(layer)
        if convention == "ac":
            repeated = t > 1 and self.differential
            nonzero = values[layer.wiring.operand] != 0
            return (0.0 if repeated else self._weighted(layer, nonzero)), 0.0
        charged = t == 1 or convention == "mac_per_step"
        return 0.0, layer.wiring.macs * self._batch if charged else 0.0

    def _frame(self, layer: CountedLayer) -> tuple[float, float]:
        """Count what the frame that is shown costs in a layer that sees the input."""
        moment, convention = self._moment, self.conventions.first_layer
        if moment is None:
            raise RuntimeError(f"{layer.wiring.name}: what was shown is not known")
        frame = moment.shown if convention == "mac_per_step" else moment.arrived
        if frame is None:
            return 0.0, 0.0
        if not layer.at_inputs or (self.input == "frames" and convention != "ac"):
            return 0.0, layer.wiring.macs * self._batch
        entries = dict(zip(self.names, frame, strict=True))
        counts = ((self._entries(entries[name]), links) for name, links in layer.at_inputs.items())
        return sum(weighted_sum(count, links) for count, links in counts), 0.0

    def _entries(self, frame: Tensor) -> Tensor:
        """Return the events of a frame at each place, over all images of the batch."""
        nonzero = self.conventions.input_events == "nonzero" or self.input == "frames"
        nonzero = nonzero or self.conventions.first_layer == "ac"
        return images_firing(frame) if nonzero else frame.sum(0, dtype=torch.float64)

    def _product(self, wiring: Layer, values: dict[fx.Node, Any]) -> Tensor | float:
        """Count a product of two activations: sum over k of (rows active in k) (columns active)."""

        def side(place: int, active: Tensor) -> Tensor:
            turned = place == 1 and wiring.node.target in LINEARS  # y W^T
            return active.mT if turned else active

        operands = tuple(enumerate(wiring.operands))
        left, right = (side(i, self._events(wiring, operand, values)) for i, operand in operands)
        kind = self.conventions.products
        if kind == "two_term":
            held_now = side(1, values[wiring.operands[1]] != 0)
            count = meetings(left, held_now)
            if self._before:
                count = count + meetings(side(0, self._before[wiring.operands[0]] != 0), right)
            return count
        count = meetings(left, right)
        if kind == "three_term" and self._before:
            held_left, held_right = (side(i, self._before[operand] != 0) for i, operand in operands)
            count = count + meetings(left, held_right) + meetings(held_left, right)
        return count

    def _fired(self, node: fx.Node, images: ImageAxis, fired: dict[Site, Tensor]) -> Tensor:
        """Return in how many images of the batch each neuron of a site fired at this step."""
        site = self.site_of[node]
        if not images.leading:  # what a caller counts, it counts as if images came one by one
            return images_firing(self._spikes(node), images)
        if site not in fired:
            fired[site] = images_firing(self._spikes(node), images)
        return fired[site]

    def _spikes(self, node: fx.Node) -> Tensor:
        spikes = self._held[self.site_of[node].name].spikes
        if spikes is None:
            raise RuntimeError(f"site {node.target} has not run")
        return spikes

    def _arriving(self, wiring: Layer, t: int, values: dict[fx.Node, Any]) -> Tensor:
        """Tell where a non-zero number arrives at the layer at this step."""
        if wiring.fed_by == "maxpool":
            return self._changed(wiring.operand, values[wiring.operand], t)
        return self._events(wiring, wiring.operand, values)

    def _changed(self, node: fx.Node, value: Tensor, t: int) -> Tensor:
        """Tell where a non-zero number arrives: the stream behind the decoded value."""
        before = self._before.get(node)
        if before is None or self.passes_spikes:
            return value != 0
        if self.differential:
            # the decoded value of a silent path is recomputed from equal numbers, bit for bit
            return value != before
        stream = t * value - (t - 1) * before
        rounding = 4 * t * torch.finfo(value.dtype).eps * value.abs().max()
        return stream.abs() > rounding

    @staticmethod
    def _weighted(layer: CountedLayer, events: Tensor) -> float:
        if layer.leaving is None or layer.wiring.images is None:
            raise RuntimeError(f"{layer.wiring.name} has no links to count")
        return weighted_sum(images_firing(events, layer.wiring.images), layer.leaving)

    def per_image(self) -> tuple[LayerOperations, ...]:
        """Return cumulative operations per image for each layer."""
        sops = (self.sops.cumsum(1) / self.images).tolist()
        macs = (self.macs.cumsum(1) / self.images).tolist()
        return tuple(
            LayerOperations(
                name=layer.wiring.name,
                kind=layer.wiring.kind,
                input=self._fed_by(layer),
                macs=layer.wiring.macs,
                macs_dense=layer.wiring.macs_dense,
                density=(
                    layer.wiring.macs / layer.wiring.macs_dense if layer.wiring.macs_dense else 0.0
                ),
                sops=tuple(accumulates),
                snn_macs=tuple(multiplies),
            )
            for layer, accumulates, multiplies in zip(self.layers, sops, macs, strict=True)
        )

    def _fed_by(self, layer: CountedLayer) -> str:
        by_events = self.input == "events" and layer.at_inputs
        return "events" if by_events else layer.wiring.fed_by

    def events_per_image(self) -> tuple[float, ...]:
        """Return the cumulative events that have entered per image, for each t; of events alone."""
        if self.input != "events":
            return ()
        return tuple((self.arrived.cumsum(0) / self.images).tolist())

    def macs_per_image(self) -> list[float]:
        """Return the cumulative MACs of the spiking network per image, for each t."""
        return (self.macs.sum(0).cumsum(0) / self.images).tolist()


def sizes_on_path(wiring: Layer) -> list[fx.Node]:
    """Return what the path to a layer reads that has to be looked at in a run, not fetched."""
    return [node for node in constants_on_path(wiring) if node.op != "get_attr"]
