"""Models: VGG-16 for small images (Simonyan and Zisserman 2015, CIFAR form).

Thirteen 3 x 3 convolutions with bias and batch normalisation in five stages, each ended by 2 x 2
pooling, then linear layers 512-512-classes. The published network has 4096-wide linear layers; the
paper reproduced here cuts them to 512. Dropout behind them is an option, off by default.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.models.heads import kaiming_convolutions, linear_head
from topospike.models.sizes import (
    POOLS,
    check_dropout,
    check_positive,
    pooled_size,
    widths_of_blocks,
)


class VGG(nn.Module):
    """Stages of convolutions, then a linear head; built by `vgg16`."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        return self.classifier(self.features(x).flatten(1))


def vgg16(
    classes: int = 10,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    widths: Sequence[int] = (64, 128, 256, 512, 512),
    blocks: Sequence[int] = (2, 2, 3, 3, 3),
    hidden: Sequence[int] = (512, 512),
    pool: str = "max",
    dropout: float = 0.0,
) -> VGG:
    """Build VGG-16, or a smaller network of the same form.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    widths
        Channels, one number a stage or one a convolution.
    blocks
        Convolutions in every stage.
    hidden
        Widths of the hidden linear layers.
    pool
        ``max`` (as in the CIFAR networks that DCGS converts) or ``avg`` (as QCFS trains them).
    dropout
        Share of activations dropped behind each hidden linear layer in training; Bao et al. (2026)
        use 0.5 for dense networks and 0.2 for sparse ones.

    Raises
    ------
    ConfigError
        If the image is too small for that many stages or a size is impossible.

    Notes
    -----
    313.7 million multiply-accumulates for a 32 x 32 image and 10 classes. Convolution weights
    start from Kaiming's normal distribution (fan-out), linear ones from torch's default.

    Examples
    --------
    >>> sum(parameter.numel() for parameter in vgg16(10).parameters())
    15253578
    """
    check_positive(
        "vgg16", classes=classes, channels=channels, widths=widths, blocks=blocks, hidden=hidden
    )
    check_dropout("vgg16", dropout)
    stages = widths_of_blocks("vgg16", widths, blocks)
    layers: list[nn.Module] = []
    before = channels
    for stage in stages:
        for width in stage:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(POOLS[pool](2))
    height, width = pooled_size("vgg16", image_size, len(stages))
    head = linear_head(before * height * width, hidden, classes, dropout=dropout)
    model = VGG(nn.Sequential(*layers), head)
    kaiming_convolutions(model)
    return model
