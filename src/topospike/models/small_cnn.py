"""Models: a small convolutional network for the demo, made for 8 x 8 digits or larger images.

Three 3 x 3 convolutions with batch normalisation, pooling after the first two, then a wide hidden
linear layer (wide because it will lose 99 % of its links) and the classifier. Trains in seconds.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.models.heads import linear_head
from topospike.models.sizes import POOLS, check_positive, pooled_size

MOST_POOLS = 2


class SmallCNN(nn.Module):
    """Convolutions, then a linear head; built by `small_cnn`."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        return self.classifier(self.features(x).flatten(1))


def small_cnn(
    classes: int = 10,
    *,
    channels: int = 1,
    image_size: tuple[int, int] = (8, 8),
    widths: Sequence[int] = (16, 32, 128),
    hidden: Sequence[int] = (512,),
    pool: str = "avg",
) -> SmallCNN:
    """Build the demo network.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    widths
        Channels of the convolutions; the first two are followed by 2 x 2 pooling.
    hidden
        Widths of the hidden linear layers.
    pool
        ``avg`` (spikes stay spikes once averaging is folded into the next weights) or ``max``.

    Raises
    ------
    ConfigError
        If the image is too small or a size is below 1.

    Examples
    --------
    >>> tuple(small_cnn(10).classifier[0].weight.shape)
    (512, 512)
    """
    check_positive("small_cnn", classes=classes, channels=channels, widths=widths, hidden=hidden)
    layers: list[nn.Module] = []
    before = channels
    for index, width in enumerate(widths):
        layers += [
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if index < MOST_POOLS:
            layers.append(POOLS[pool](2))
        before = width
    height, width = pooled_size("small_cnn", image_size, min(MOST_POOLS, len(widths)))
    return SmallCNN(nn.Sequential(*layers), linear_head(before * height * width, hidden, classes))
