"""Models: a network that trains fast, after airbench94 (Jordan 2024), with rectifiers.

A fixed convolution whitens 2 x 2 patches; then come stages of 3 x 3 convolutions without bias, each
with batch normalisation and ReLU. The first convolution of a stage is pooled before both of them,
so they, and the neurons that a conversion makes of the ReLUs, work on a quarter of the values. The
published network has GELU in place of ReLU and one linear layer behind a last pooling; this one
has the hidden linear layers of the other networks here, since they carry the sparsest topologies.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from topospike.models.heads import kaiming_convolutions, linear_head
from topospike.models.sizes import check_dropout, check_positive, pooled_size, widths_of_blocks
from topospike.models.whitening import WhiteningConv2d

PATCH = 2


class FastCNN(nn.Module):
    """Whitening, stages of convolutions, linear head; built by `fast_cnn`."""

    def __init__(
        self, whiten: WhiteningConv2d, features: nn.Sequential, classifier: nn.Sequential
    ) -> None:
        super().__init__()
        self.whiten = whiten
        self.relu = nn.ReLU()
        self.features = features
        self.classifier = classifier

    def forward(
        self, x: Float[Tensor, "batch chan height width"]
    ) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        return self.classifier(self.features(self.relu(self.whiten(x))).flatten(1))


def fast_cnn(
    classes: int = 10,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    widths: Sequence[int] = (64, 256, 256),
    blocks: Sequence[int] = (2, 2, 2),
    hidden: Sequence[int] = (512, 512),
    dropout: float = 0.0,
) -> FastCNN:
    """Build the network; it whitens once `topospike.models.fit_whitening` has seen images.

    Parameters
    ----------
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    widths
        Channels, one number a stage or one a convolution.
    blocks
        Convolutions in every stage.
    hidden, dropout
        Widths of the hidden linear layers, and the share of their activations dropped in training.

    Raises
    ------
    ConfigError
        If the image is too small for that many stages or a size is impossible.

    Notes
    -----
    119.6 million multiply-accumulates for a 32 x 32 image and 10 classes. Convolution weights start
    from Kaiming's normal distribution (fan-out), linear ones from torch's default.

    Examples
    --------
    >>> tuple(fast_cnn(10).classifier[0].weight.shape)
    (512, 2304)
    """
    check_positive(
        "fast_cnn", classes=classes, channels=channels, widths=widths, blocks=blocks, hidden=hidden
    )
    check_dropout("fast_cnn", dropout)
    stages = widths_of_blocks("fast_cnn", widths, blocks)
    whitened = (image_size[0] - PATCH + 1, image_size[1] - PATCH + 1)
    height, width = pooled_size("fast_cnn", whitened, len(stages))
    whiten = WhiteningConv2d(channels, PATCH)
    layers: list[nn.Module] = []
    before = whiten.out_channels
    for stage in stages:
        for number, after in enumerate(stage):
            pool = [] if number else [nn.MaxPool2d(2)]
            conv = nn.Conv2d(before, after, 3, padding=1, bias=False)
            layers += [conv, *pool, nn.BatchNorm2d(after), nn.ReLU()]
            before = after
    features = nn.Sequential(*layers)
    kaiming_convolutions(features)
    head = linear_head(before * height * width, hidden, classes, dropout=dropout)
    return FastCNN(whiten, features, head)
