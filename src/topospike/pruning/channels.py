r"""Stage prune: whole channels and neurons (DepGraph, Fang et al. 2023).

The network keeps its shape: what is removed becomes rows and columns without links, and its
entries in biases and norms become 0. Such a network computes what the smaller one computes, trains
as it trains, costs as many operations, and can be converted and analysed beside any other sparse
one; removed channels are isolated nodes. `shrink` makes the smaller network.

Pruning a share q of both the inputs and the outputs of a layer leaves :math:`(1 - q)^2` of its
weights, so a trunk of convolutions reaches sparsity s with :math:`q = 1 - \sqrt{1 - s}` in every
group. Hidden linear layers are few and their targets high, so each is solved for by itself, given
the inputs its predecessors leave it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.pruning.coupling import ChannelGroup, Coupling, Member, require_equal
from topospike.pruning.report import LayerPruning
from topospike.topology import Layer, register_mask, select, weight_layers
from topospike.topology.counts import ROUNDING_GUARD


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

    @torch.no_grad()
    def install(self, model: nn.Module) -> None:
        """Give the layers their masks, and set what belongs to removed channels to 0."""
        for name, mask in self.masks.items():
            register_mask(model.get_submodule(name), mask)
        for name, indices in self.silenced.items():
            module = model.get_submodule(name)
            places = torch.tensor(sorted(indices))
            for key in ("bias",) if name in self.masks else ("weight", "bias"):
                parameter = module._parameters.get(key)
                if parameter is not None:
                    parameter[places.to(parameter.device)] = 0.0


def prune_channels(
    model: nn.Module,
    example: Tensor,
    target: Mapping[str, float],
    *,
    widths: str = "layer",
    tolerance: float = 0.005,
) -> tuple[tuple[LayerPruning, ...], dict[str, tuple[int, int]]]:
    """Remove the least important channels of every group, as masks in place.

    Importance is the mean over a group's members of the squared norm of a channel's weights, of
    the dense network for all groups; local, in one step, without sparse learning. Channels that no
    layer reads, such as those of an output, all stay; so do those of a kind without a target.
    Returns the record of every layer that lost links, and (left, all) channels by layer.
    """
    layers = weight_layers(model, example)
    check_targets(target, layers)
    coupling = Coupling(model, example, keep=[x.name for x in layers if x.is_classifier])
    shapes = {layer.name: layer.weight.shape for layer in layers}
    cut = Cut()
    groups = [group for group in coupling.groups if group.readers()]
    for group in (group for group in groups if group.kind == "conv"):
        if target.get("conv"):
            left = channels_left(group.channels, target["conv"], layer=group.root)
            remove_least(cut, coupling, group, left, shapes)
    if target.get("linear"):
        hidden = in_order([group for group in groups if group.kind == "linear"])
        cut_hidden(cut, coupling, hidden, target["linear"], shapes, rule=widths)
    check_reached(layers, cut, target, tolerance)
    masked = copy.deepcopy(model)
    cut.install(masked)
    for group in groups:
        if cut.removed.get(group.root):
            coupling.remove(group.root, cut.removed[group.root])
    require_equal(coupling.twin, masked, example)
    cut.install(model)
    return tuple(
        record(layer, cut.masks[layer.name]) for layer in layers if layer.name in cut.masks
    ), {
        name: (shapes[name][0] - len(indices), shapes[name][0])
        for name, indices in cut.removed.items()
    }


def check_targets(target: Mapping[str, float], layers: list[Layer]) -> None:
    """Refuse options that do not fit structured pruning or this network."""
    for kind in target.keys() - {"conv", "linear"}:
        raise ConfigError(
            f"sparsity names {kind!r}; depgraph prunes channels that several layers share, so "
            "it takes numbers by kind only: sparsity={'conv': 0.78, 'linear': 0.99}."
        )
    if not select(layers, target):
        raise ConfigError(nothing_to_prune(layers, target))
    for layer in layers:
        if layer.mask is not None or layer.tied:
            other = f"is the same as {layer.tied[0]}" if layer.tied else "has a mask already"
            raise ConfigError(
                f"{layer.parameter} {other}. DepGraph removes channels from all layers, and starts "
                "from a dense network without shared weights; prune single links instead."
            )


def nothing_to_prune(layers: Sequence[Layer], sparsity: object) -> str:
    """Say which layers there are and how to select them."""
    found = ", ".join(
        f"{layer.name} ({'classifier' if layer.is_classifier else layer.kind})" for layer in layers
    )
    return (
        f"sparsity={sparsity!r} selects no layer. The layers are: {found or 'none'}. One number "
        "prunes linear layers other than the classifier; give sparsity={'conv': ..., 'linear': "
        "...} for convolutions, or name layers."
    )


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
    if indices and group.mixed_by:
        raise ConfigError(
            f"the channels of {group.root!r} reach {group.mixed_by!r}, a norm over channels: "
            "without some of them it divides by something else, so they cannot be removed. Prune "
            "single links instead, or normalise by batch."
        )
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
        hidden = [
            (*shapes[name], None if name in fed else columns_left(cut, name, shapes[name]))
            for name in (group.root for group in groups)
        ]
        equal = equal_neurons_left(
            [HiddenLayer(inputs, outputs, left) for outputs, inputs, left in hidden], sparsity
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


def record(layer: Layer, mask: Tensor) -> LayerPruning:
    """Say what was removed from a layer."""
    return LayerPruning(
        name=layer.name,
        kind=layer.kind,
        shape=tuple(mask.shape),
        links=int(mask.sum()),
        possible=mask.numel(),
        is_classifier=bool(layer.is_classifier),
    )


@dataclass(frozen=True, slots=True)
class HiddenLayer:
    """Size of a hidden linear layer, and the inputs left it (``None``: by the one before)."""

    inputs: int
    outputs: int
    inputs_left: int | None


def channels_left(channels: int, sparsity: float, *, layer: str) -> int:
    """Return how many channels of a group of convolutions stay.

    Raises
    ------
    ConfigError
        If none would.

    Examples
    --------
    >>> [channels_left(width, 0.78, layer="conv") for width in (64, 128, 256, 512)]
    [30, 60, 120, 240]
    """
    left = math.floor(channels * math.sqrt(1.0 - sparsity) + ROUNDING_GUARD)
    return require_some(left, channels, sparsity, layer=layer)


def neurons_left(
    inputs: int, outputs: int, inputs_left: int, sparsity: float, *, layer: str
) -> int:
    """Return how many outputs of a linear layer stay, so that its own sparsity is met.

    Raises
    ------
    ConfigError
        If none would.

    Examples
    --------
    >>> first = neurons_left(512, 512, 240, 0.99, layer="fc1")
    >>> first, neurons_left(512, 512, first, 0.99, layer="fc2")
    (11, 238)
    """
    left = round((1.0 - sparsity) * inputs * outputs / inputs_left)
    return require_some(min(left, outputs), outputs, sparsity, layer=layer)


def equal_neurons_left(layers: Sequence[HiddenLayer], sparsity: float) -> int:
    """Return the largest number of neurons in every hidden layer that meets their total sparsity.

    Raises
    ------
    ConfigError
        If not even one neuron a layer does.

    Examples
    --------
    >>> equal_neurons_left([HiddenLayer(512, 512, 240), HiddenLayer(512, 512, None)], 0.99)
    20
    """
    budget = (1.0 - sparsity) * sum(layer.inputs * layer.outputs for layer in layers)
    widest = max(layer.outputs for layer in layers)
    for width in range(widest, 0, -1):
        if weights_left(layers, width) <= budget + ROUNDING_GUARD:
            return width
    return require_some(0, widest, sparsity, layer="every hidden layer")


def weights_left(layers: Sequence[HiddenLayer], width: int) -> int:
    """Count the weights of hidden layers that keep ``width`` neurons each."""
    total = 0
    for layer in layers:
        inputs = min(width, layer.inputs) if layer.inputs_left is None else layer.inputs_left
        total += inputs * min(width, layer.outputs)
    return total


def require_some(left: int, width: int, sparsity: float, *, layer: str) -> int:
    """Raise `ConfigError` when nothing of a layer would stay."""
    if left < 1:
        raise ConfigError(
            f"{layer}: sparsity {sparsity:g} rounds to none of its {width} channels. Prune less, "
            "widen the layer, or prune single links instead."
        )
    return left
