"""What an event costs: the links that leave each neuron, borders exact, images told apart.

Give a layer its mask for weights and drop the bias. It then adds up, for each output, the inputs
that have a link to it, and the derivative of the sum of all outputs is the number of links that
leave each input position. Stride, padding, dilation and groups need no case of their own. The same
derivative, carried on through the 0/1 form of the linear maps before the layer
(`topospike.wiring.linear_maps`), gives the fan-out of the neurons of a *site*.

Where several ways from one neuron can meet again (``y + pool(y)``), that sum counts a link once
for each way. Then every neuron is followed alone; if they are too many, the layer is a named MAC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from topospike.models.inputs import InputForm
from topospike.wiring.graph import nodes_downstream_of_input, site_calls, timeless_nodes
from topospike.wiring.images import (
    BATCHES,
    ImageAxis,
    Places,
    Probe,
    Probes,
    axis_of,
    image_axes,
    mixed_images,
    sizes_of,
)
from topospike.wiring.layers import (
    CONVOLUTIONS,
    LINEARS,
    Feed,
    Layer,
    find_weight_layers,
    nearest_layers,
    weight_name,
)
from topospike.wiring.linear_maps import (
    JOINING,
    NEGLIGIBLE,
    SUMS,
    WINDOWED,
    arguments_of,
    bound,
    may_copy,
    push,
)
from topospike.wiring.links import Links
from topospike.wiring.products import with_products
from topospike.wiring.tokens import TokenLabels, Tokens, token_labels, tokens_among

aten = torch.ops.aten

UNKNOWN_LINKS = "its weight is computed from masks in a way that leaves its links unknown"
SEVERAL_IMAGES = "events of one image reach the layer at another, or alternate between images"
TOO_MANY = "several ways from a neuron to the layer meet again, and there are too many to follow"

FOLLOWED_ALONE = 1 << 30
"""Neurons of a site times positions of an operand up to which every neuron is followed alone."""


@dataclass(frozen=True, eq=False)
class Population:
    """The neurons of one site.

    Attributes
    ----------
    node
        The node that calls the site.
    images : ImageAxis
        How the images of a batch lie in its values.
    neurons : int
        How many there are for one image.
    sources : tuple of str
        The weight layers nearest upstream, in execution order.
    places : Places or None
        Which token each neuron belongs to.
    """

    node: fx.Node
    images: ImageAxis
    neurons: int
    sources: tuple[str, ...]
    places: Places | None = None


@dataclass(frozen=True, eq=False)
class Wiring:
    """All weight layers in execution order, the populations of the sites, the tokens it reads."""

    layers: tuple[Layer, ...]
    populations: dict[str, Population]
    tokens: Tokens | None = None


@torch.inference_mode(False)
@torch.enable_grad()  # links are found by derivatives, wherever this is called
def wire(network: fx.GraphModule) -> Wiring:
    """Return the wiring of a network with sites: every layer with its links and what feeds it.

    Parameters
    ----------
    network
        The captured graph, sites placed, masks registered beside the parameters.

    Raises
    ------
    ConversionError
        If the images of a batch cannot be told apart at a site or a layer, or influence one
        another there: nothing could be counted per image.

    Notes
    -----
    The graph is run on two and on three blank images; a quantity that is not the same for each of
    them is no quantity of an image. A layer is ``graded`` (a MAC for each link at every step)
    where its links or its fan-out cannot be had exactly, and gives the reason.
    """
    timeless, from_image = timeless_nodes(network), nodes_downstream_of_input(network.graph)
    changing = {n for n in network.graph.nodes if n in from_image or n not in timeless}
    probes = tuple(Probe(network, images, changing) for images in BATCHES)
    links = Links(network, probes[0])
    tokens = tokens_among(InputForm.of(network))
    labels = TokenLabels({}) if tokens is None else token_labels(network.graph, tokens, probes[0])
    populations = {
        str(network.get_submodule(str(node.target)).name): population(node, probes, labels)
        for node in site_calls(network)
    }
    names = {population.node: name for name, population in populations.items()}
    layers = tuple(
        measured(layer, links, probes, names, timeless, labels)
        for layer in find_weight_layers(network)
    )
    (answer,) = next(iter(network.graph.find_nodes(op="output"))).all_input_nodes
    tokens = None if tokens is None else replace(tokens, answer=labels.places(answer, probes))
    return Wiring(layers, populations, tokens)


def population(node: fx.Node, probes: Probes, labels: TokenLabels) -> Population:
    """Describe the neurons of one site."""
    sizes = sizes_of(node, probes)
    images = axis_of(sizes)
    if images is None:
        raise mixed_images(f"the site {node.target}", sizes)
    sources = tuple(dict.fromkeys(weight_name(layer) for layer in nearest_layers(node)))
    places = labels.places(node, probes)
    return Population(node, images, sizes[0].numel() // BATCHES[0], sources, places)


def measured(
    layer: Layer,
    links: Links,
    probes: Probes,
    names: dict[fx.Node, str],
    timeless: set[fx.Node],
    labels: TokenLabels,
) -> Layer:
    """Add links, link counts, fan-outs and sizes to the description of a layer."""
    images = BATCHES[0]
    layer = replace(
        layer,
        inputs=sum(
            size.numel() // images for size, _ in (sizes_of(o, probes) for o in layer.operands)
        ),
        outputs=sizes_of(layer.node, probes)[0].numel() // images,
        places=labels.places(layer.node if layer.weight is None else layer.operand, probes),
    )
    weight = layer.weight
    if weight is None:
        return with_products(layer, probes, timeless)
    everything = torch.ones((), dtype=torch.bool).expand(probes[0].values[weight].shape)
    constant = weight not in probes[0].changing
    existing = links.of(weight) if constant else everything
    if existing is None:
        layer, existing = graded(layer, UNKNOWN_LINKS), everything
    dense = tuple(links_leaving(layer, everything, probe.values) for probe in probes)
    counts = (
        dense
        if bool(existing.all())
        else tuple(links_leaving(layer, existing, probe.values) for probe in probes)
    )
    axes = image_axes(counts)
    if not axes:
        raise mixed_images(f"the operand of layer {layer.name}", sizes_of(layer.operand, probes))
    leaving, leaving_dense = (axes[0].by_image(c[0])[0] for c in (counts, dense))
    layer = replace(
        layer,
        links=existing,
        leaving=leaving,
        leaving_dense=leaving if counts is dense else leaving_dense,
        images=axes[0],
        macs=float(leaving.sum()),
        macs_dense=float(leaving_dense.sum()),
        zeros=share_of_zeros(probes[0].values[weight], existing) if constant else 0.0,
    )
    return with_feeds(layer, counts, dense, probes, names) if layer.fed_by == "spikes" else layer


def graded(layer: Layer, reason: str) -> Layer:
    """Return a layer that is counted as MAC, and why."""
    return replace(layer, fed_by="graded", reason=reason)


def share_of_zeros(weight: Tensor, links: Tensor) -> float:
    """Return the share of existing links whose weight is exactly 0."""
    return int((links & (weight == 0)).sum()) / max(int(links.sum()), 1)


Values = Mapping[fx.Node, Any]


def links_leaving(layer: Layer, links: Tensor, values: Values) -> Tensor:
    """Return how many existing links leave each position of a layer's operand.

    Parameters
    ----------
    layer
        A layer with a weight.
    links : bool, shape of the weight
        Existing links.
    values
        Shapes of the nodes.

    Returns
    -------
    float64, shape of the operand
        Whole numbers.
    """
    size = values[layer.operand].shape
    if layer.node.target in CONVOLUTIONS:
        return convolution_links(layer.node, links, size)
    if layer.node.target in LINEARS and links.ndim == 2:
        return links.sum(0, dtype=torch.float64).expand(size)
    events = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    given = {layer.operand: events, layer.weight: links.double()}
    sides = (given[side] for side in layer.node.args[:2])  # pyright: ignore[reportArgumentType]
    (counts,) = torch.autograd.grad(layer.node.target(*sides).sum(), events)  # pyright: ignore[reportCallIssue]
    return counts


def convolution_links(node: fx.Node, links: Tensor, size: torch.Size) -> Tensor:
    """Return the links that leave each position of a convolution's operand.

    A tap of the kernel takes each position into at most one output, or past the border. So the
    count is a sum over taps: links of the channel at that tap, where the tap stays inside.
    """
    given = bound(node)
    operand, groups = ("input" if "input" in given else "self"), int(given["groups"])
    spatial, taps = size[2 - links.ndim :], links.shape[2:]
    transposed = given.get("transposed", "transpose" in str(node.target))
    if transposed:
        by_tap = links.sum(1, dtype=torch.float64)
    else:
        rows = links.reshape(groups, -1, *links.shape[1:])
        by_tap = rows.sum(1, dtype=torch.float64).flatten(0, 1)
    number = taps.numel()
    one_each = torch.eye(number, dtype=torch.float64).view(number, 1, *taps)
    inside = torch.zeros(1, number, *spatial, dtype=torch.float64, requires_grad=True)
    given |= {operand: inside, "weight": one_each, "bias": None, "groups": number}
    (stays,) = torch.autograd.grad(node.target(**given).sum(), inside)  # pyright: ignore[reportCallIssue]
    counts = by_tap.flatten(1) @ stays[0].flatten(1)
    return counts.view(-1, *spatial).expand(size)


def with_feeds(
    layer: Layer,
    counts: tuple[Tensor, ...],
    dense: tuple[Tensor, ...],
    probes: Probes,
    names: dict[fx.Node, str],
) -> Layer:
    """Add what an event of each site costs in a layer fed by spikes."""
    by_batch = [at_sites(layer, c, probe.values) for c, probe in zip(counts, probes, strict=True)]
    meeting = meeting_ways(layer, probes[0].values)
    feeds = []
    for node in layer.sites:
        axes = image_axes(tuple(reached[node] for reached in by_batch))
        if not axes:
            return graded(layer, SEVERAL_IMAGES)
        images = axes[0]
        found = [images.by_image(by_batch[0][node])[0]]
        if dense is not counts:
            found.append(images.by_image(at_sites(layer, dense[0], probes[0].values)[node])[0])
        if node in meeting:
            reached = found[0].numel() * counts[0].numel()
            if reached > FOLLOWED_ALONE:
                return graded(layer, TOO_MANY)
            leaving = (counts[0],) if dense is counts else (counts[0], dense[0])
            found = followed_alone(layer, node, images, leaving, probes[0])
        feeds.append(Feed(names[node], node, found[0], found[-1], images))
    return replace(layer, feeds=tuple(feeds))


def at_sites(layer: Layer, counts: Tensor, values: Values) -> dict[fx.Node, Tensor]:
    """Carry link counts from the operand back to the neurons of the sites that feed it.

    Averages count as sums here: a spike reaches every pooled cell it belongs to, and from each of
    them every link that leaves it.
    """
    sent = {
        node: torch.zeros(values[node].shape, dtype=torch.float64, requires_grad=True)
        for node in layer.sites
    }
    arriving = events_at(layer, layer.operand, sent, values, ones=True)
    found = torch.autograd.grad((arriving * counts).sum(), list(sent.values()))
    return dict(zip(sent, found, strict=True))


def followed_alone(
    layer: Layer, site: fx.Node, images: ImageAxis, counts: tuple[Tensor, ...], probe: Probe
) -> list[Tensor]:
    """Send one event from each neuron of a site in turn, and add up the links it crosses.

    With factors as they are: what cancels itself out on the way crosses no link.
    """
    values = probe.values
    silent = {n: torch.zeros(values[n].shape, dtype=torch.float64) for n in layer.sites}
    first = torch.zeros_like(images.by_image(silent[site]))
    neurons = first[0].numel()

    def crossed(neuron: Tensor) -> tuple[Tensor, ...]:
        event = torch.nn.functional.one_hot(neuron, neurons).double().view(first[0].shape)
        batch = torch.cat([event[None], first[1:]])
        sent = {**silent, site: images.together(batch)}
        arriving = events_at(layer, layer.operand, sent, values).abs() > NEGLIGIBLE
        return tuple((arriving * count).sum() for count in counts)

    chunk = max(1, (1 << 22) // counts[0].numel())
    found = torch.vmap(crossed, chunk_size=chunk)(torch.arange(neurons))
    return [links.view(first[0].shape) for links in found]


def meeting_ways(layer: Layer, values: Values) -> set[fx.Node]:
    """Return the sites of which one neuron may reach one position of the operand in several ways.

    That takes an operation that adds up, behind one that gave a neuron several positions, or two
    summands of one site. What may be so is taken to be so.
    """
    # node -> {site: whether one of its neurons may be at several positions of the node's value}
    spread: dict[fx.Node, dict[fx.Node, bool]] = {site: {site: False} for site in layer.sites}
    meeting: set[fx.Node] = set()
    for node in layer.path:
        parents = [argument for argument in arguments_of(node) if argument in spread]
        adds = node.target in SUMS | WINDOWED
        found: dict[fx.Node, bool] = {}
        for parent in parents:
            copies = may_copy(node, values[node], values[parent])
            for site, wide in spread[parent].items():
                if (adds and wide) or (site in found and node.target not in JOINING):
                    meeting.add(site)
                found[site] = site in found or wide or copies
        spread[node] = found
    return meeting


def events_at(
    layer: Layer,
    operand: fx.Node,
    at_sites: Mapping[fx.Node, Tensor],
    values: Mapping[fx.Node, Any],
    *,
    ones: bool = False,
) -> Tensor:
    """Push events from the sites to an operand.

    Parameters
    ----------
    layer
        The weight layer the events arrive at.
    operand
        Which of its operands.
    at_sites
        Site node -> events (numbers, or signed spike values).
    values
        Value of every other node the path reads.
    ones
        Whether factors count as 1; see `topospike.wiring.linear_maps.push`.
    """
    reached: dict[fx.Node, Any] = dict(at_sites)
    for node in layer.path:
        reached[node] = push(node, reached, values, ones=ones)
    return reached[operand]


def constants_on_path(layer: Layer) -> list[fx.Node]:
    """Return the nodes the path from the sites to the operand reads besides the sites."""
    inside = {*layer.path, *layer.sites}
    read = [parent for node in layer.path for parent in node.all_input_nodes]
    return [node for node in dict.fromkeys(read) if node not in inside]
