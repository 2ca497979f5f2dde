"""Models: VGG-16 for small images (Simonyan and Zisserman 2015, CIFAR form).

Thirteen 3 x 3 convolutions with bias and batch normalisation in five stages, each ended by 2 x 2
pooling, then linear layers 512-512-classes. The published network has 4096-wide linear layers; the
paper reproduced here cuts them to 512. No dropout.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.models.heads import kaiming_convolutions, linear_head
from topospike.models.sizes import POOLS, check_positive, pooled_size, widths_of_blocks


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
    stages = widths_of_blocks("vgg16", widths, blocks)
    layers: list[nn.Module] = []
    before = channels
    for stage in stages:
        for width in stage:
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        layers.append(POOLS[pool](2))
    height, width = pooled_size("vgg16", image_size, len(stages))
    model = VGG(nn.Sequential(*layers), linear_head(before * height * width, hidden, classes))
    kaiming_convolutions(model)
    return model
