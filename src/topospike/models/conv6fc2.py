"""Models: 6Conv2FC, the network of the direct sparse-training baselines (Han et al. 2022).

Six 3 x 3 convolutions 128-128-P-256-256-P-512-512 without bias, with batch normalisation, and two
linear layers with bias, 32768-512-classes. Only two poolings, none after the last convolution, so
the linear layer sees 512 maps of 8 x 8. This is the ANN; its spiking form has the same weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.models.heads import linear_head
from topospike.models.sizes import POOLS, check_positive, pooled_size

POOL_AFTER = (1, 3)


class Conv6FC2(nn.Module):
    """Convolutions, then two linear layers; built by `conv6fc2`."""

    def __init__(self, features: nn.Sequential, classifier: nn.Sequential) -> None:
        super().__init__()
        self.features = features
        self.classifier = classifier

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        return self.classifier(self.features(x).flatten(1))


def conv6fc2(
    classes: int = 10,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    widths: Sequence[int] = (128, 128, 256, 256, 512, 512),
    hidden: Sequence[int] = (512,),
    pool: str = "max",
) -> Conv6FC2:
    """Build 6Conv2FC.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    widths
        Channels of the six convolutions.
    hidden
        Width of the hidden linear layer (or of several).
    pool
        ``max`` (as released) or ``avg``.

    Raises
    ------
    ConfigError
        If there are not six widths, or the image is too small.

    Notes
    -----
    4,574,592 convolution weights and 16,777,216 + 512 * classes linear ones; weights start from
    torch's defaults, as in the released code. Flattening runs over (chan, height, width).

    Examples
    --------
    >>> tuple(conv6fc2(10).classifier[0].weight.shape)
    (512, 32768)
    """
    check_positive("conv6fc2", classes=classes, channels=channels, widths=widths, hidden=hidden)
    if len(widths) != 6:
        raise ConfigError(f"conv6fc2: widths = {tuple(widths)} must be six numbers of channels")
    layers: list[nn.Module] = []
    before = channels
    for index, width in enumerate(widths):
        layers += [
            nn.Conv2d(before, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        ]
        if index in POOL_AFTER:
            layers.append(POOLS[pool](2))
        before = width
    height, width = pooled_size("conv6fc2", image_size, len(POOL_AFTER))
    return Conv6FC2(nn.Sequential(*layers), linear_head(before * height * width, hidden, classes))
