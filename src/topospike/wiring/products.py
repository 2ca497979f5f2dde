"""Products of two activations: how many multiplications, and which of them a mask leaves out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor, fx

from topospike.wiring.images import BATCHES, Probes, mixed_images, sizes_of
from topospike.wiring.layers import CONVOLUTIONS, Layer
from topospike.wiring.masking import Overwriting, masks_before, masks_behind, vanishes


def with_products(layer: Layer, probes: Probes, timeless: set[fx.Node]) -> Layer:
    """Add the multiplications of a product of two activations, and the masks over it."""
    left, right = layer.operands
    macs = []
    for probe in probes:
        output, factor = probe.values[layer.node], probe.values[right]
        macs.append(output.numel() * summands(layer, probe.values[left], factor) / probe.images)
    if macs[0] != macs[1]:
        raise mixed_images(f"the product {layer.name}", sizes_of(layer.node, probes))
    layer = replace(layer, macs=macs[0], macs_dense=macs[0])
    if layer.node.target in CONVOLUTIONS or probes[0].values[layer.node].ndim < 2:
        return layer

    def sizes(node: fx.Node) -> tuple[Any, ...]:
        return sizes_of(node, probes)

    before, dtype = masks_before(left, timeless, sizes), left.meta["val"].dtype
    hiding = tuple(mask for mask in before if vanishes(known(mask.put, probes), dtype))
    return replace(
        layer,
        overwritten=at_work(masks_behind(layer.node, timeless, sizes), probes),
        silent=at_work(hiding, probes),
    )


def known(put: float | fx.Node, probes: Probes) -> Any:
    """Return a number, or the value of a constant; of what depends on the image its shape alone."""
    return probes[0].values[put] if isinstance(put, fx.Node) else put


def at_work(masks: tuple[Overwriting, ...], probes: Probes) -> tuple[Overwriting, ...]:
    """Return the masks without those that are known to overwrite nothing (a bias, a gain)."""

    def is_empty(mask: Overwriting) -> bool:
        value = probes[0].values[mask.node]
        return not value.is_meta and not bool(mask.covers(value, BATCHES[0], mask.size).any())

    return tuple(mask for mask in masks if not is_empty(mask))


def summands(layer: Layer, left: Tensor, right: Tensor) -> int:
    """Return how many products each output of a layer adds up."""
    return right[0].numel() if layer.node.target in CONVOLUTIONS else left.shape[-1]
