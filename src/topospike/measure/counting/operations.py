"""Count the operations of a spiking network while it runs: integers, per layer and time step.

A synaptic operation (SOP) is one event crossing one existing link. For a layer fed by spikes the
count of a step is ``sum over neurons of (images in which it fired) * (links that leave it)``: one
pass over the spikes, no second convolution. Layers fed by the image cost MACs. What remains (a
max-pool between, graded values) is decided by `Conventions` and named in the conversion report.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from topospike.contracts import LayerOperations
from topospike.measure.counting.conventions import Conventions
from topospike.measure.counting.firing import (
    SiteSums,
    firing_sums,
    images_firing,
    in_memory_order,
    weighted_sum,
)
from topospike.measure.counting.products import entries_used, factors, meetings, multiplications
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import Block, StepRecord
from topospike.snn.site import Site
from topospike.wiring.fanout import constants_on_path, events_at
from topospike.wiring.graph import fetch
from topospike.wiring.images import ImageAxis, Places, memory_order
from topospike.wiring.layers import Feed, Layer


@dataclass(frozen=True)
class CountedLayer:
    """A weight layer under one set of conventions: what is counted of its wiring.

    ``leaving`` has the operand's shape for one image, ``feeds`` has the fan-outs of sites that are
    counted by these, ``at_inputs`` those of input tensors, where the input is events.
    """

    wiring: Layer
    leaving: Tensor | None
    feeds: tuple[Feed, ...]
    at_inputs: dict[str, Tensor]


def counted(layer: Layer, conventions: Conventions, device: torch.device) -> CountedLayer:
    """Choose from the wiring of a layer what these conventions count, where the spikes are."""
    dense = conventions.links == "dense"
    folded = conventions.pooled == "fold" or not layer.pooled
    leaving = layer.leaving_dense if dense else layer.leaving
    return CountedLayer(
        layer,
        None if leaving is None else leaving.to(device),
        layer.feeds if folded else (),
        {
            feed.site: (feed.fan_out_dense if dense else feed.fan_out).to(device)
            for feed in layer.arrivals
        },
    )


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
        self.network, self.dense = snn.ann, conventions.links == "dense"
        device, sites = snn.like.device, snn.sites.values()
        self.layers = [counted(layer, conventions, device) for layer in snn.wiring]
        self.differential = not any(s.coding.averages for s in sites)
        self.input, self.names = snn.report.input, snn.inputs.names
        self.tokens, self.populations = snn.tokens, snn.populations
        self.passes_spikes = all(s.coding.name == "spikes" for s in sites)
        called = {node for layer in self.layers for node in layer.wiring.sites}
        self.site_of: dict[fx.Node, Site] = {
            node: module
            for node in called
            if isinstance(module := snn.ann.get_submodule(str(node.target)), Site)
        }
        # float64 holds whole numbers exactly up to 9e15
        self.sops = torch.zeros(len(self.layers), timesteps, dtype=torch.float64)
        self.macs = torch.zeros(len(self.layers), timesteps, dtype=torch.float64)
        self.spikes = torch.zeros(len(self.populations), timesteps, dtype=torch.float64)
        self.sums = self._sums()
        self.arrived = torch.zeros(timesteps, dtype=torch.float64)
        self.ann_macs = torch.zeros(len(self.layers), 2, dtype=torch.float64)  # existing, all links
        self.real_tokens = 0.0
        needed = [node for layer in self.layers for node in self._needs(layer)]
        self.watched = tuple(dict.fromkeys(needed))
        self.sent = tuple(n for layer in self.layers if looks_at(layer) for n in layer.wiring.sites)
        self._before: dict[fx.Node, Tensor] = {}
        self.images = self._batch = 0
        self.real: Tensor | None = None
        self._used: dict[fx.Node, Tensor | None] = {}
        self._macs: list[float] = []

    def _sums(self) -> list[SiteSums]:
        """Return what is summed of each site's spikes: once for all layers that it feeds."""
        found: dict[tuple[str, ImageAxis], SiteSums] = {}

        def of(site: str, images: ImageAxis) -> SiteSums:
            return found.setdefault((site, images), SiteSums(site, images, dense=self.dense))

        for (name, lying), total in zip(self.populations.items(), self.spikes, strict=True):
            of(name, lying.images).neurons = total
        for layer, total in zip(self.layers, self.sops, strict=True):
            for feed in layer.feeds:
                of(feed.site, feed.images).feeds.append((feed, total))
        return list(found.values())

    def _needs(self, layer: CountedLayer) -> list[fx.Node]:
        """Return the nodes whose values must be looked at to count this layer."""
        kind = layer.wiring.fed_by
        looked_at = self.input == "image" and self.conventions.first_layer == "ac"
        if kind == "maxpool" or (kind == "image" and looked_at):
            return [layer.wiring.operand]
        masks = [mask.node for mask in (*layer.wiring.overwritten, *layer.wiring.silent)]
        masks = [node for node in masks if node.op != "get_attr"]
        if kind == "product":
            return [*layer.wiring.operands, *sizes_on_path(layer.wiring), *masks]
        if layer.wiring.weight is None and (masks or layer.wiring.places is not None):
            return [*layer.wiring.operands, *masks]
        if kind == "spikes" and not layer.feeds:
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

    def begin_batch(self, images: int, inputs: tuple[Tensor, ...] = ()) -> None:
        """Start a new run over ``images`` images; ``inputs`` say which of their tokens are real."""
        self.images += images
        self._batch = images
        self._before, self._used, self._macs = {}, {}, []
        self.real = None
        if self.tokens is not None and inputs:
            real = self.tokens.real(dict(zip(self.names, inputs, strict=True)))
            tokens = images * self.tokens.length if real is None else float(real.sum())
            self.real_tokens += tokens
            self.real = real if self.conventions.padding == "left_out" else None

    def begin_frame(self, images: int) -> None:
        """Count a new frame of ``images`` streams from nothing; what they hold is kept."""
        self.images = self._batch = images
        self._used, self._macs = {}, []
        for counts in (self.sops, self.macs, self.ann_macs, self.spikes):
            counts.zero_()

    def observe(self, block: Block, watched: tuple[fx.Node, ...] | None = None) -> None:
        """Add the operations of some steps, whose values are of ``watched`` (``self.watched``)."""
        self._kept = block.kept
        for sums in self.sums:
            counted = self.counted(self.populations[sums.site].places)
            sums.add(block.kept[sums.site], counted, block.steps[0].t, len(block.steps))
        for place, step in enumerate(block.steps):
            self._place = place, len(block.steps)
            self._observe(step, dict(zip(watched or self.watched, step.values, strict=True)))

    def _observe(self, step: StepRecord, values: dict[fx.Node, Any]) -> None:
        """Add what a step costs in layers of which more is looked at than who fired."""
        moment = self._moment = step.moment
        if not self._macs:
            self._begin(values)
        if moment is not None and moment.arrived is not None and self.input == "events":
            self.arrived[step.t - 1] += sum(float(self._entries(x).sum()) for x in moment.arrived)
        for index, layer in enumerate(self.layers):
            if not layer.feeds:
                sops, macs = self._operations(index, layer, step.t, values)
                self.sops[index, step.t - 1] += float(sops)
                self.macs[index, step.t - 1] += float(macs)
        # the sites overwrite their outputs at the next step
        kept = {
            operand
            for layer in self.layers
            if layer.wiring.fed_by in ("maxpool", "product")
            for operand in layer.wiring.operands
        }
        self._before = {node: values[node].clone() for node in kept}

    def _begin(self, values: dict[fx.Node, Any]) -> None:
        """Find what the ANN would multiply for this batch, and what is left out of products."""
        for index, layer in enumerate(self.layers):
            wiring, dense = layer.wiring, layer.wiring.macs_dense * self._batch
            if wiring.weight is None:
                existing = dense = self._multiplied(wiring, values)
            elif self.real is None or wiring.places is None:
                existing = wiring.macs * self._batch
            else:
                counts = wiring.places.of_real(self.real)
                existing, dense = (
                    float((counts * links.to(counts.device)).sum())
                    for links in (wiring.leaving, wiring.leaving_dense)
                    if links is not None
                )
            self._macs.append(existing)
            self.ann_macs[index] += torch.tensor([existing, dense], dtype=torch.float64)

    def _multiplied(self, wiring: Layer, values: dict[fx.Node, Any]) -> float:
        """Return the multiplications of a product, and remember which of its entries are used."""
        masks = (*wiring.overwritten, *wiring.silent)
        if not masks and (self.real is None or wiring.places is None):
            return wiring.macs * self._batch
        known = {
            m.node: fetch(self.network, m.node) if m.node.op == "get_attr" else values[m.node]
            for m in masks
        }
        left, right = factors(wiring, values.__getitem__)
        result = torch.broadcast_shapes(left.shape[:-2], right.shape[:-2])
        shapes = left.shape, torch.Size((*result, left.shape[-2], right.shape[-1]))
        used = entries_used(wiring, known, self.real, self._batch, shapes[1])
        self._used[wiring.node] = used
        return multiplications(wiring, known, used, self._batch, shapes)

    def _operations(
        self,
        index: int,
        layer: CountedLayer,
        t: int,
        values: dict[fx.Node, Any],
    ) -> tuple[Tensor | float, Tensor | float]:
        kind = layer.wiring.fed_by
        if kind == "graded":
            return 0.0, self._macs[index]
        if kind == "image":
            return self._first_layer(layer, t, values, self._macs[index])
        if kind == "product":
            return self._product(layer.wiring, values), 0.0
        count = self._weighted(layer, self._arriving(layer.wiring, t, values))
        as_mac = layer.wiring.pooled and self.conventions.pooled == "mac"
        return (0.0, count) if as_mac else (count, 0.0)

    def _first_layer(
        self, layer: CountedLayer, t: int, values: dict[fx.Node, Any], macs: float
    ) -> tuple[Tensor | float, float]:
        convention = self.conventions.first_layer
        if self.input != "image":
            return self._frame(layer)
        if convention == "ac":
            repeated = t > 1 and self.differential
            nonzero = values[layer.wiring.operand] != 0
            return (0.0 if repeated else self._weighted(layer, nonzero)), 0.0
        charged = t == 1 or convention == "mac_per_step"
        return 0.0, macs if charged else 0.0

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
        used, kind = self._used.get(wiring.node), self.conventions.products
        left, right = factors(wiring, lambda operand: self._events(wiring, operand, values))
        if kind == "two_term":
            now = factors(wiring, lambda operand: values[operand] != 0)
            count = meetings(left, now[1], used)
        else:
            count = meetings(left, right, used)
        if kind == "single" or not self._before:
            return count
        held = factors(wiring, lambda operand: self._before[operand] != 0)
        if kind == "three_term":
            count = count + meetings(left, held[1], used)
        return count + meetings(held[0], right, used)

    def counted(self, places: Places | None) -> Tensor | None:
        """Tell which places of each image belong to real tokens; ``None``: all count."""
        return None if self.real is None or places is None else places.of_real(self.real)

    def _spikes(self, node: fx.Node) -> Tensor:
        spikes, (place, steps) = self._kept[self.site_of[node].name].spikes, self._place
        if spikes is None:
            raise RuntimeError(f"the spikes of {node.target} were not kept")
        return spikes if steps == 1 else spikes.chunk(steps)[place]

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

    def _weighted(self, layer: CountedLayer, events: Tensor) -> float:
        if layer.leaving is None or layer.wiring.images is None:
            raise RuntimeError(f"{layer.wiring.name} has no links to count")
        rows, counted = layer.wiring.images.by_image(events), self.counted(layer.wiring.places)
        rows = rows if counted is None else rows & counted
        links = layer.leaving.permute(memory_order(rows[0])).reshape(1, -1)
        return float(firing_sums(in_memory_order(rows), links)[1, 0])

    def per_image(self) -> tuple[LayerOperations, ...]:
        """Return cumulative operations per image for each layer."""
        sops = (self.sops.cumsum(1) / self.images).tolist()
        macs = (self.macs.cumsum(1) / self.images).tolist()
        of_ann = (self.ann_macs / self.images).tolist()
        return tuple(
            LayerOperations(
                name=layer.wiring.name,
                kind=layer.wiring.kind,
                input=self._fed_by(layer),
                macs=existing,
                macs_dense=dense,
                density=existing / dense if dense else 0.0,
                sops=tuple(accumulates),
                snn_macs=tuple(multiplies),
            )
            for layer, accumulates, multiplies, (existing, dense) in zip(
                self.layers, sops, macs, of_ann, strict=True
            )
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


def looks_at(layer: CountedLayer) -> bool:
    """Tell whether spikes are looked at to count a layer, and not only who has fired."""
    return layer.wiring.fed_by in ("spikes", "product") and not layer.feeds
