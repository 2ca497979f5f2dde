"""Models: the linear layers at the end of a network, shared by all of them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


def linear_head(
    inputs: int, hidden: Sequence[int], classes: int, *, dropout: float = 0.0
) -> nn.Sequential:
    """Hidden linear layers with ReLU, and dropout if asked, then the classifier.

    Examples
    --------
    >>> linear_head(8, (4,), 2)
    Sequential(
      (0): Linear(in_features=8, out_features=4, bias=True)
      (1): ReLU()
      (2): Linear(in_features=4, out_features=2, bias=True)
    )
    """
    layers: list[nn.Module] = []
    for width in hidden:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, classes))


def kaiming_convolutions(model: nn.Module) -> None:
    """Draw all convolution weights from N(0, 2 / fan_out) and set their biases to 0, in place.

    The initialisation both CIFAR networks are trained from (He et al. 2015, fan-out mode).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
