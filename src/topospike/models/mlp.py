"""Models: a multilayer perceptron, the network on which Cannistraci-Hebb training is studied.

Pixels, hidden linear layers with ReLU, classifier. No normalisation, no dropout (Zhang et al.
2025).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from topospike.models.heads import linear_head
from topospike.models.sizes import check_positive


class MLP(nn.Module):
    """Linear layers on flattened images; built by `mlp`."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        self.layers = layers

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        return self.layers(x.flatten(1))


def mlp(
    classes: int = 10,
    *,
    channels: int = 1,
    image_size: tuple[int, int] = (28, 28),
    hidden: Sequence[int] = (784, 784, 784),
) -> MLP:
    """Build a multilayer perceptron.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    hidden
        Widths of the hidden layers; empty gives a linear classifier.

    Raises
    ------
    ConfigError
        If a size is below 1.

    Examples
    --------
    >>> [layer.out_features for layer in mlp(10).layers if isinstance(layer, nn.Linear)]
    [784, 784, 784, 10]
    """
    check_positive("mlp", classes=classes, channels=channels, image_size=image_size, hidden=hidden)
    return MLP(linear_head(channels * prod(image_size), hidden, classes))
