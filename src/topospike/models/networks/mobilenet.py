"""Models: MobileNetV2 (Sandler et al. 2018), for small and large images.

A stem, stages of inverted residual blocks, a 1 x 1 convolution, global average pooling and one
linear layer. A block widens its input by a factor with a 1 x 1 convolution, filters every channel
by itself (3 x 3, depthwise), and narrows the result again without an activation behind it. All
activations are ReLU6, so a converted site knows its ceiling.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.models.networks.sizes import (
    check_dropout,
    check_positive,
    kaiming_convolutions,
    pooled_size,
)

STRIDES = (1, 2, 2, 2, 1, 2, 1)
"""Strides of the published stages; further ones have 1."""

LARGE_IMAGE = 64
"""Side from which on the stem halves the image, as published for 224 x 224."""

WIDENING = 6


def normalised(before: int, width: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list:
    """Return a convolution that keeps the size at stride 1, and its batch normalisation."""
    convolution = nn.Conv2d(
        before, width, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(width)]


class InvertedResidual(nn.Module):
    """narrow(filter(widen(x))), plus x where the shapes agree."""

    def __init__(self, before: int, width: int, *, stride: int, widening: int) -> None:
        super().__init__()
        inside = before * widening
        layers = [*normalised(before, inside, 1), nn.ReLU6()] if widening != 1 else []
        layers += [*normalised(inside, inside, 3, stride=stride, groups=inside), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, *normalised(inside, width, 1))
        self.residual = stride == 1 and before == width

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch chan_out height_out width_out"]:
        """Return the block's output maps."""
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):
    """Stem, stages, last convolution, global average, classifier; built by `mobilenet_v2`."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = classifier

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        return self.classifier(self.pool(self.features(x)).flatten(1))


def mobilenet_v2(
    classes: int = 10,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    widths: Sequence[int] = (32, 16, 24, 32, 64, 96, 160, 320, 1280),
    blocks: Sequence[int] = (1, 2, 3, 4, 3, 3, 1),
    dropout: float = 0.0,
) -> MobileNetV2:
    """Build MobileNetV2, or a smaller network of the same form.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    widths
        Channels of the stem, of every stage, and of the last convolution.
    blocks
        Inverted residual blocks of every stage; those of the first do not widen, the others by 6.
    dropout
        Share of activations dropped before the classifier in training.

    Raises
    ------
    ConfigError
        If the image is too small, or ``widths`` does not have two values more than ``blocks``.

    Notes
    -----
    Sandler et al. (CVPR 2018), table 2. The stages halve the image as published; the stem does so
    for images of 64 pixels and more. Convolution weights start from Kaiming's normal distribution
    (fan-out), the classifier from torch's default.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in mobilenet_v2(1000).parameters())
    3504872
    """
    check_positive("mobilenet_v2", classes=classes, channels=channels, widths=widths, blocks=blocks)
    check_dropout("mobilenet_v2", dropout)
    if len(widths) != len(blocks) + 2:
        raise ConfigError(
            f"mobilenet_v2: widths = {tuple(widths)} has {len(widths)} values; blocks = "
            f"{tuple(blocks)} needs {len(blocks) + 2}: the stem, every stage, the last convolution"
        )
    stem_stride = 2 if min(image_size) >= LARGE_IMAGE else 1
    strides = [*STRIDES, *(1 for _ in blocks[len(STRIDES) :])][: len(blocks)]
    pooled_size("mobilenet_v2", image_size, strides.count(2) + (stem_stride == 2))
    stem, *stages, last = widths
    layers: list[nn.Module] = [*normalised(channels, stem, 3, stride=stem_stride), nn.ReLU6()]
    before = stem
    for index, (width, count, stride) in enumerate(zip(stages, blocks, strides, strict=True)):
        widening = 1 if index == 0 else WIDENING
        for block in range(count):
            step = stride if block == 0 else 1
            layers.append(InvertedResidual(before, width, stride=step, widening=widening))
            before = width
    layers += [*normalised(before, last, 1), nn.ReLU6()]
    head = [nn.Dropout(dropout)] if dropout else []
    model = MobileNetV2(nn.Sequential(*layers), nn.Sequential(*head, nn.Linear(last, classes)))
    kaiming_convolutions(model)
    return model
