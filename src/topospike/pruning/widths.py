r"""Stage prune: from the sparsity of a layer's weights to the number of channels that stay.

Pruning a share q of both the inputs and the outputs of a layer leaves :math:`(1 - q)^2` of its
weights, so a trunk of convolutions reaches sparsity s with :math:`q = 1 - \sqrt{1 - s}` in every
group. Hidden linear layers are few and their targets high, so each is solved for by itself, given
the inputs its predecessors leave it. Plain arithmetic; knows no tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from topospike.errors import ConfigError

ROUNDING_GUARD = 1e-6


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
