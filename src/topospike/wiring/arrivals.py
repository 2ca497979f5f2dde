"""What an event of the input costs in the layers that see the input.

Frames of counts are spikes of the pixels: each crosses every existing link that leaves its pixel.
The links are found as for a site (`topospike.wiring.fanout`), the input in its place: padding,
stride, borders, and an average or a reshape before the layer are exact. Where something that is not
linear lies between (a norm, a max-pool, another layer), the layer stays a multiply-accumulate for
each link and frame, and says so.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import fx

from topospike.wiring.fanout import Probes, Wiring, links_leaving, with_feeds
from topospike.wiring.graph import nodes_downstream_of_input, timeless_nodes
from topospike.wiring.images import BATCHES, Probe
from topospike.wiring.layers import Layer, in_order
from topospike.wiring.linear_maps import is_linear, is_number


@torch.inference_mode(False)
@torch.enable_grad()  # links are found by derivatives
def with_arrivals(wiring: Wiring, network: fx.GraphModule) -> Wiring:
    """Return the wiring with what an event of the input costs, in `Layer.arrivals`.

    Parameters
    ----------
    wiring
        Of `topospike.wiring.wire`.
    network
        The graph it was found in.
    """
    if not any(layer.fed_by == "image" for layer in wiring.layers):
        return wiring
    from_image, timeless = nodes_downstream_of_input(network.graph), timeless_nodes(network)
    changing = {n for n in network.graph.nodes if n in from_image or n not in timeless}
    probes = tuple(Probe(network, images, changing) for images in BATCHES)
    order = {node: position for position, node in enumerate(network.graph.nodes)}
    layers = tuple(
        arrivals_at(layer, from_image, probes, order) if layer.fed_by == "image" else layer
        for layer in wiring.layers
    )
    return replace(wiring, layers=layers)


def arrivals_at(
    layer: Layer, from_image: dict[fx.Node, None], probes: Probes, order: dict[fx.Node, int]
) -> Layer:
    """Add what an event of the input costs in one layer."""
    sources: set[fx.Node] = set()
    path: set[fx.Node] = set()
    waiting = [*layer.operands]
    while waiting:
        node = waiting.pop()
        if node in path or node in sources or node not in from_image or is_number(node):
            continue
        if node.op == "placeholder":
            sources.add(node)
        elif is_linear(node, from_image.__contains__):
            path.add(node)
            waiting.extend(node.all_input_nodes)
        else:
            return replace(layer, reason=f"{node.target} lies between the input and the layer")
    if layer.weight is None or layer.links is None:
        return layer
    seen = replace(
        layer, fed_by="spikes", sites=in_order(sources, order), path=in_order(path, order)
    )
    everything = torch.ones_like(layer.links)
    dense = tuple(links_leaving(seen, everything, probe.values) for probe in probes)
    counts = (
        tuple(links_leaving(seen, layer.links, probe.values) for probe in probes)
        if layer.is_sparse
        else dense
    )
    names = {node: str(node.target) for node in sources}
    found = with_feeds(seen, counts, dense, probes, names)
    if found.fed_by == "graded":
        return replace(layer, reason=found.reason)
    return replace(layer, arrivals=found.feeds, reason="events of the input")
