"""Stage prune: whole channels and neurons (DepGraph, Fang et al. 2023).

The network keeps its shape: what is removed becomes rows and columns without links, and its
entries in biases and norms become 0. Such a network computes what the smaller one computes, trains
as it trains, costs as many operations, and can be converted and analysed beside any other sparse
one; removed channels are isolated nodes. `shrink` makes the smaller network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.pruning.coupling import ChannelGroup, Coupling, Member
from topospike.pruning.layers import check_dense
from topospike.pruning.report import LayerPruning
from topospike.pruning.selection import check_sparsity
from topospike.pruning.widths import (
    HiddenLayer,
    channels_left,
    equal_neurons_left,
    neurons_left,
)
from topospike.topology import Layer, register_mask, weight_layers

WIDTH_RULES = ("layer", "total")


@dataclass
class Cut:
    """What is removed from a network so far: masks of layers, entries of biases and norms."""

    masks: dict[str, Tensor] = field(default_factory=dict)
    silenced: dict[str, set[int]] = field(default_factory=dict)
    removed: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def take(self, members: Iterable[Member], shapes: Mapping[str, torch.Size]) -> None:
        """Take the rows, columns and entries of some channels out."""
        for name, role, indices in ((m.name, m.role, list(m.indices)) for m in members):
            if role != "norm":
                mask = self.masks.setdefault(name, torch.ones(shapes[name], dtype=torch.bool))
                mask[(slice(None),) * (role == "in") + (indices,)] = False
            if role != "in":
                self.silenced.setdefault(name, set()).update(indices)


def prune_channels(
    model: nn.Module,
    example: Tensor,
    target: Mapping[str, float],
    *,
    widths: str = "layer",
    tolerance: float = 0.005,
) -> tuple[tuple[LayerPruning, ...], dict[str, tuple[int, int]]]:
    """Remove the least important channels of every group, as masks in place.

    Parameters
    ----------
    model
        Dense model.
    example : Tensor, shape (batch, ...)
        Some images.
    target
        Sparsity of the weights by kind; a kind that is not listed keeps its channels.
    widths
        ``layer``: each hidden linear layer meets its sparsity; ``total``: all together do, with
        equal widths.
    tolerance
        How far the sparsity of all layers of a kind may lie from its target.

    Returns
    -------
    tuple
        The record of every layer that lost links, and (left, all) channels by layer.

    Raises
    ------
    ConfigError
        If a group would lose all its channels, or a target is missed by more than ``tolerance``.

    Notes
    -----
    Importance is the mean over a group's members of the squared norm of a channel's weights, of
    the dense network for all groups; local, in one step, without sparse learning.
    """
    layers = weight_layers(model, example)
    check_targets(target, widths, layers)
    classifier = [layer.name for layer in layers if layer.is_classifier]
    coupling = Coupling(model, example, keep=classifier)
    shapes = {layer.name: layer.weight.shape for layer in layers}
    cut = Cut()
    for group in (group for group in coupling.groups if group.kind == "conv"):
        if target.get("conv"):
            left = channels_left(group.channels, target["conv"], layer=group.root)
            remove_least(cut, coupling, group, left, shapes)
    if target.get("linear"):
        hidden = in_order([group for group in coupling.groups if group.kind == "linear"])
        cut_hidden(cut, coupling, hidden, target["linear"], shapes, rule=widths)
    records = tuple(record(layer, cut) for layer in layers if layer.name in cut.masks)
    check_reached(layers, cut, target, tolerance)
    install(model, cut)
    return records, {
        name: (shapes[name][0] - len(indices), shapes[name][0])
        for name, indices in cut.removed.items()
    }


def remove_least(
    cut: Cut,
    coupling: Coupling,
    group: ChannelGroup,
    left: int,
    shapes: Mapping[str, torch.Size],
) -> None:
    """Take the channels with the smallest scores out, the lower index first among equals."""
    order = group.scores.sort(stable=True).indices
    indices = tuple(sorted(order[: group.channels - left].tolist()))
    if indices:
        cut.take(coupling.affected(group.root, indices), shapes)
    cut.removed |= dict.fromkeys(group.makers(), indices)


def cut_hidden(
    cut: Cut,
    coupling: Coupling,
    groups: list[ChannelGroup],
    sparsity: float,
    shapes: Mapping[str, torch.Size],
    *,
    rule: str,
) -> None:
    """Cut the hidden linear layers, each after those that feed it."""
    fed = {name for group in groups for name in group.readers()}
    equal = None
    if rule == "total" and groups:
        roots = [(group.root, shapes[group.root]) for group in groups]
        equal = equal_neurons_left(
            [
                HiddenLayer(
                    shape[1], shape[0], None if name in fed else columns_left(cut, name, shape)
                )
                for name, shape in roots
            ],
            sparsity,
        )
    for group in groups:
        outputs, inputs = shapes[group.root][:2]
        if equal is None:
            left_in = columns_left(cut, group.root, shapes[group.root])
            left = neurons_left(inputs, outputs, left_in, sparsity, layer=group.root)
        else:
            left = min(equal, outputs)
        remove_least(cut, coupling, group, left, shapes)


def in_order(groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Sort groups of linear layers so that each comes after those whose channels it reads."""
    waiting, ordered = list(groups), []
    while waiting:
        ready = [group for group in waiting if not reads_from(group, waiting)] or waiting[:1]
        ordered += ready
        waiting = [group for group in waiting if group not in ready]
    return ordered


def reads_from(group: ChannelGroup, others: list[ChannelGroup]) -> bool:
    """Tell whether the layers of a group read channels of another group."""
    makers = set(group.makers())
    return any(other is not group and makers.intersection(other.readers()) for other in others)


def columns_left(cut: Cut, name: str, shape: torch.Size) -> int:
    """Return how many inputs of a linear layer are left so far."""
    mask = cut.masks.get(name)
    return shape[1] if mask is None else int(mask.any(0).sum())


def check_targets(target: Mapping[str, float], widths: str, layers: list[Layer]) -> None:
    """Refuse options that do not fit structured pruning or this network."""
    for kind, sparsity in target.items():
        if kind not in ("conv", "linear"):
            raise ConfigError(
                f"sparsity names {kind!r}; depgraph prunes channels that several layers share, so "
                "it takes numbers by kind only: sparsity={'conv': 0.78, 'linear': 0.99}."
            )
        check_sparsity(sparsity)
    if widths not in WIDTH_RULES:
        raise ConfigError(f"widths is {widths!r}. Known: {', '.join(WIDTH_RULES)}.")
    if not any(target.get(layer.kind) for layer in layers if not layer.is_classifier):
        found = ", ".join(f"{layer.name} ({layer.kind})" for layer in layers) or "none"
        raise ConfigError(
            f"sparsity={dict(target)!r} selects no layer. Layers: {found}; the classifier keeps "
            "its outputs."
        )
    for layer in layers:
        check_dense(layer)


def check_reached(
    layers: list[Layer], cut: Cut, target: Mapping[str, float], tolerance: float
) -> None:
    """Raise unless all layers of a kind together came close enough to their target."""
    for kind, sparsity in target.items():
        masks = [
            (layer.weight.numel(), cut.masks.get(layer.name))
            for layer in layers
            if layer.kind == kind and not layer.is_classifier
        ]
        possible = sum(size for size, _ in masks)
        if not possible or not sparsity:
            continue
        links = sum(size if mask is None else int(mask.sum()) for size, mask in masks)
        reached = 1.0 - links / possible
        if abs(reached - sparsity) > tolerance:
            raise ConfigError(
                f"whole channels give the {kind} layers a sparsity of {reached:.4f} instead of "
                f"{sparsity:g}, more than the tolerance {tolerance:g} away. Widths are whole "
                "numbers: use a wider network, another sparsity, or a larger tolerance."
            )


def record(layer: Layer, cut: Cut) -> LayerPruning:
    """Say what was removed from a layer."""
    mask = cut.masks[layer.name]
    return LayerPruning(
        name=layer.name,
        kind=layer.kind,
        shape=tuple(mask.shape),
        links=int(mask.sum()),
        possible=mask.numel(),
        error_before=None,
        error_after=None,
        seconds=0.0,
        is_classifier=layer.is_classifier,
    )


@torch.no_grad()
def install(model: nn.Module, cut: Cut) -> None:
    """Give the layers their masks, and set what belongs to removed channels to 0."""
    for name, mask in cut.masks.items():
        register_mask(model.get_submodule(name), mask)
    for name, indices in cut.silenced.items():
        module = model.get_submodule(name)
        places = torch.tensor(sorted(indices))
        for key in ("bias",) if name in cut.masks else ("weight", "bias"):
            parameter = module._parameters.get(key)
            if parameter is not None:
                parameter[places.to(parameter.device)] = 0.0
