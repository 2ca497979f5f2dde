"""Models: the sizes a network is built with, checked, and the linear layers at its end."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from topospike.errors import ConfigError
from topospike.registry import Registry

POOLS: Registry[type[nn.MaxPool2d] | type[nn.AvgPool2d]] = Registry(
    "pooling", {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
)


def check_positive(model: str, **sizes: int | Sequence[int]) -> None:
    """Refuse sizes below 1, naming the network and the option."""
    for option, value in sizes.items():
        values = (value,) if isinstance(value, int) else tuple(value)
        if any(size < 1 for size in values):
            raise ConfigError(f"{model}: {option} = {value} must be 1 or larger everywhere")


def check_dropout(model: str, dropout: float) -> None:
    """Refuse a share of dropped activations outside [0, 1)."""
    if not 0.0 <= dropout < 1.0:
        raise ConfigError(f"{model}: dropout = {dropout} must be at least 0 and below 1")


def sizes_of_blocks(model: str, **options: Sequence[int]) -> list[int]:
    """Return the one value of each option that other networks have one a stage of.

    Examples
    --------
    >>> sizes_of_blocks("vit", widths=(96,), blocks=(4,))
    [96, 4]
    """
    for option, values in options.items():
        if len(values) != 1:
            raise ConfigError(
                f"{model}: {option} = {tuple(values)} has {len(values)} values; all blocks of a "
                "transformer are alike, so give one"
            )
    return [values[0] for values in options.values()]


def pooled_size(model: str, image_size: tuple[int, int], pools: int) -> tuple[int, int]:
    """Size of a map after halving (rounding down) ``pools`` times; at least one pixel must remain.

    Examples
    --------
    >>> pooled_size("vgg16", (32, 32), 5)
    (1, 1)
    """
    height, width = (side >> pools for side in image_size)
    if min(height, width) < 1:
        raise ConfigError(
            f"{model} halves the image {pools} times, so image_size = {tuple(image_size)} leaves "
            f"nothing; use images of at least {1 << pools} pixels a side or fewer stages (blocks)"
        )
    return height, width


def widths_of_blocks(
    model: str, widths: Sequence[int], blocks: Sequence[int]
) -> list[tuple[int, ...]]:
    """Give every convolution of every stage its number of channels.

    Parameters
    ----------
    widths
        One a stage, or one a convolution.
    blocks
        Convolutions in every stage.

    Examples
    --------
    >>> widths_of_blocks("vgg16", (8, 16), (2, 1))
    [(8, 8), (16,)]
    >>> widths_of_blocks("vgg16", (8, 12, 16), (2, 1))
    [(8, 12), (16,)]
    """
    if len(widths) == len(blocks):
        return [(width,) * count for width, count in zip(widths, blocks, strict=True)]
    if len(widths) == sum(blocks):
        remaining = iter(widths)
        return [tuple(next(remaining) for _ in range(count)) for count in blocks]
    raise ConfigError(
        f"{model}: widths = {tuple(widths)} has {len(widths)} values; blocks = {tuple(blocks)} "
        f"needs {len(blocks)} (one a stage) or {sum(blocks)} (one a convolution)"
    )


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
