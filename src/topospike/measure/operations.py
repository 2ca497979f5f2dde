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
from topospike.measure.fanout import (
    constants_on_path,
    counts_at_sites,
    events_at,
    link_counts,
    probe_shapes,
)
from topospike.snn.coding import SiteState
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.snn.wiring import WeightLayerInput


@dataclass(frozen=True)
class CountedLayer:
    """A weight layer with its link counts, ready for counting.

    ``links`` has the operand's shape, ``at_sites`` the sites' shapes; both without batch axis.
    """

    wiring: WeightLayerInput
    macs: float
    macs_dense: float
    links: Tensor | None
    at_sites: dict[fx.Node, Tensor]


def existing_links(snn: SpikingNetwork, layer: WeightLayerInput, weight: Tensor) -> Tensor:
    """Return the mask of a layer, all true where the topology lists no mask for it."""
    owner = layer.name.split("#")[0]
    try:
        mask = snn.ann.get_buffer(f"{owner}.weight_mask")
    except AttributeError:
        return torch.ones_like(weight, dtype=torch.bool)
    return mask


def prepare_layers(
    snn: SpikingNetwork, image: Tensor, conventions: Conventions
) -> list[CountedLayer]:
    """Work out the link counts of every weight layer from one image's shapes."""
    values = probe_shapes(snn.ann, image[:1])
    return [prepare(snn, layer, values, conventions) for layer in snn.weight_layers]


def prepare(
    snn: SpikingNetwork,
    layer: WeightLayerInput,
    values: dict[fx.Node, Any],
    conventions: Conventions,
) -> CountedLayer:
    """Work out the link counts of one weight layer."""
    if len(layer.operands) == 2:
        operand = values[layer.operand]
        macs = float(values[layer.node].numel() * operand.shape[-1])
        return CountedLayer(layer, macs, macs, None, {})
    (weight,) = (values[n] for n in layer.node.args[:2] if n is not layer.operand)  # pyright: ignore[reportArgumentType]
    mask = existing_links(snn, layer, weight)
    everything = torch.ones_like(mask)
    operand = values[layer.operand]
    dense = link_counts(layer, everything, operand)
    links = dense if bool(mask.all()) else link_counts(layer, mask, operand)
    counted = dense if conventions.links == "dense" else links
    at_sites = {}
    if layer.fed_by == "spikes" and (conventions.pooled == "fold" or not layer.pooled):
        at_sites = {
            site: count[0] for site, count in counts_at_sites(layer, counted, values).items()
        }
    return CountedLayer(layer, float(links.sum()), float(dense.sum()), counted[0], at_sites)


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


def images_firing(spikes: Tensor) -> Tensor:
    """Return in how many images of a batch each neuron fired, float32, shape of one image.

    Fifteen times faster than ``count_nonzero(dim=0)``, which adds up eight-byte integers.

    Examples
    --------
    >>> images_firing(torch.tensor([[0.5, 0.0], [-1.0, 0.0], [0.0, 0.25]])).tolist()
    [2.0, 1.0]
    """
    rows = spikes.flatten(1)
    step = ROWS_AT_ONCE if rows.device.type == "cpu" else max(1, len(rows))
    fired = torch.empty(rows[:step].shape, dtype=torch.float32, device=rows.device)
    total = fired.new_zeros(rows.shape[1])
    for part in rows.split(step):
        total += torch.ne(part, 0, out=fired[: len(part)]).sum(0)
    return total.view(spikes.shape[1:])


def weighted_sum(counts: Tensor, links: Tensor) -> float:
    """Return the sum of counts times links, exact in float64."""
    return float(torch.dot(counts.flatten().double(), links.flatten()))


class OperationCounter:
    """Counts operations over batches; feed it after each step of a simulation.

    Parameters
    ----------
    snn
        The spiking network.
    image : Tensor, shape (1 or more, ...)
        Any image of the right shape; only its shape matters.
    timesteps
        Length of the runs that will be observed.
    conventions
        What to count.
    """

    def __init__(
        self, snn: SpikingNetwork, image: Tensor, timesteps: int, conventions: Conventions
    ) -> None:
        self.conventions = conventions
        self.layers = prepare_layers(snn, image, conventions)
        self.differential = not any(s.coding.averages for s in snn.sites.values())
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
        needed = [node for layer in self.layers for node in self._needs(layer)]
        self.watched = list(dict.fromkeys(needed))
        self._before: dict[fx.Node, Tensor] = {}
        self.images = 0

    def _needs(self, layer: CountedLayer) -> list[fx.Node]:
        """Return the nodes whose values must be looked at to count this layer."""
        kind = layer.wiring.fed_by
        if kind == "maxpool" or (kind == "image" and self.conventions.first_layer == "ac"):
            return [layer.wiring.operand]
        if kind == "product":
            return [*layer.wiring.operands, *constants_on_path(layer.wiring)]
        if kind == "spikes" and not layer.at_sites:
            return constants_on_path(layer.wiring)
        return []

    def begin_batch(self, images: int) -> None:
        """Start a new run over ``images`` images."""
        self.images += images
        self._batch = images
        self._before = {}

    def observe(
        self,
        t: int,
        watched: tuple[Any, ...],
        held: Mapping[str, SiteState],
        fired: dict[Site, Tensor] | None = None,
    ) -> None:
        """Add the operations of step ``t``; ``watched`` are the values of ``self.watched``.

        ``held`` is the state of every site by name.
        ``fired`` keeps, for each site, in how many images its neurons fired at this step; what is
        missing is counted and added.
        """
        values = dict(zip(self.watched, watched, strict=True))
        fired = {} if fired is None else fired
        self._held = held
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
            return 0.0, layer.macs * self._batch
        if kind == "image":
            return self._first_layer(layer, t, values)
        if kind == "product":
            return self._product(layer.wiring, values), 0.0
        if layer.at_sites:
            return sum(
                weighted_sum(self._fired(node, fired), links)
                for node, links in layer.at_sites.items()
            ), 0.0
        count = self._weighted(layer, self._arriving(layer.wiring, t, values))
        as_mac = layer.wiring.pooled and self.conventions.pooled == "mac"
        return (0.0, count) if as_mac else (count, 0.0)

    def _first_layer(
        self, layer: CountedLayer, t: int, values: dict[fx.Node, Any]
    ) -> tuple[Tensor | float, float]:
        convention = self.conventions.first_layer
        if convention == "ac":
            repeated = t > 1 and self.differential
            nonzero = values[layer.wiring.operand] != 0
            return (0.0 if repeated else self._weighted(layer, nonzero)), 0.0
        charged = t == 1 or convention == "mac_per_step"
        return 0.0, layer.macs * self._batch if charged else 0.0

    def _product(self, wiring: WeightLayerInput, values: dict[fx.Node, Any]) -> Tensor | float:
        """Count a product of two activations: sum over k of (rows active in k) (columns active)."""
        spikes = {node: self._spikes(node) for node in wiring.sites}
        left, right = (
            events_at(wiring, operand, spikes, values) != 0 for operand in wiring.operands
        )
        count = meetings(left, right)
        if self.conventions.products == "three_term" and self._before:
            held_left, held_right = (self._before[operand] != 0 for operand in wiring.operands)
            count = count + meetings(left, held_right) + meetings(held_left, right)
        return count

    def _fired(self, node: fx.Node, fired: dict[Site, Tensor]) -> Tensor:
        """Return in how many images of the batch each neuron of a site fired at this step."""
        site = self.site_of[node]
        if site not in fired:
            fired[site] = images_firing(self._spikes(node))
        return fired[site]

    def _spikes(self, node: fx.Node) -> Tensor:
        spikes = self._held[self.site_of[node].name].spikes
        if spikes is None:
            raise RuntimeError(f"site {node.target} has not run")
        return spikes

    def _arriving(self, wiring: WeightLayerInput, t: int, values: dict[fx.Node, Any]) -> Tensor:
        """Tell where a non-zero number arrives at the layer at this step."""
        if wiring.fed_by == "maxpool":
            return self._changed(wiring.operand, values[wiring.operand], t)
        spikes = {node: self._spikes(node) for node in wiring.sites}
        return events_at(wiring, wiring.operand, spikes, values) != 0

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
        if layer.links is None:
            raise RuntimeError(f"{layer.wiring.name} has no links to count")
        return weighted_sum(images_firing(events), layer.links)

    def per_image(self) -> tuple[LayerOperations, ...]:
        """Return cumulative operations per image for each layer."""
        sops = (self.sops.cumsum(1) / self.images).tolist()
        macs = (self.macs.cumsum(1) / self.images).tolist()
        return tuple(
            LayerOperations(
                name=layer.wiring.name,
                kind=layer.wiring.kind,
                input=layer.wiring.fed_by,
                macs=layer.macs,
                macs_dense=layer.macs_dense,
                density=layer.macs / layer.macs_dense if layer.macs_dense else 0.0,
                sops=tuple(accumulates),
                snn_macs=tuple(multiplies),
            )
            for layer, accumulates, multiplies in zip(self.layers, sops, macs, strict=True)
        )

    def macs_per_image(self) -> list[float]:
        """Return the cumulative MACs of the spiking network per image, for each t."""
        return (self.macs.sum(0).cumsum(0) / self.images).tolist()
