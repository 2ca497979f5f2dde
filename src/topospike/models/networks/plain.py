"""Models: plain networks, linear layers in a row or convolutions in stages that end by pooling.

`mlp` is the perceptron on which Cannistraci-Hebb training is studied: pixels, hidden linear layers
with ReLU, classifier; no normalisation, no dropout (Zhang et al. 2025).

`vgg16` is VGG-16 for small images (Simonyan and Zisserman 2015, CIFAR form): thirteen convolutions
with bias in five stages, then linear layers 512-512-classes. The published network has 4096-wide
linear layers; the paper reproduced here cuts them to 512. `conv6fc2` is the network of the direct
sparse-training baselines (Han et al. 2022), 128-128-P-256-256-P-512-512 without bias, so that the
first linear layer sees 512 maps of 8 x 8. `conv2fc2` is 15C3-P-40C3-P-300, the smaller network of
direct training on events. `small_cnn` is for the demo, made for 8 x 8 digits or larger images, with
a wide hidden linear layer because it will lose 99 % of its links.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.models.networks.sizes import (
    POOLS,
    check_dropout,
    check_positive,
    kaiming_convolutions,
    linear_head,
    pooled_size,
    widths_of_blocks,
)


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


class PlainCNN(nn.Module):
    """Stages of convolution, batch normalisation and ReLU, then a linear head.

    Parameters
    ----------
    name
        Of the network, for messages.
    classes, channels, image_size
        Classes to tell apart; channels and (height, width) of the images.
    stages
        Channels of the convolutions of every stage.
    pools
        How many stages, from the first, end by pooling.
    hidden, dropout
        Widths of the hidden linear layers, and the share of their activations dropped in training.
    pool
        ``max`` or ``avg``.
    bias
        Whether convolutions have one.

    Raises
    ------
    ConfigError
        If the image is too small for that many poolings or a size is impossible.
    """

    def __init__(
        self,
        name: str,
        classes: int,
        channels: int,
        image_size: tuple[int, int],
        *,
        stages: Sequence[Sequence[int]],
        pools: int,
        hidden: Sequence[int],
        pool: str,
        bias: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for number, widths in enumerate(stages):
            for width in widths:
                conv = nn.Conv2d(before, width, 3, padding=1, bias=bias)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                before = width
            layers += [POOLS[pool](2)] if number < pools else []
        height, width = pooled_size(name, image_size, pools)
        self.features = nn.Sequential(*layers)
        self.classifier = linear_head(before * height * width, hidden, classes, dropout=dropout)

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
) -> PlainCNN:
    """Build VGG-16, or a smaller network of the same form; other parameters as of `PlainCNN`.

    Parameters
    ----------
    widths
        Channels, one number a stage or one a convolution.
    blocks
        Convolutions in every stage.
    pool
        ``max`` (as in the CIFAR networks that DCGS converts) or ``avg`` (as QCFS trains them).
    dropout
        Bao et al. (2026) use 0.5 for dense networks and 0.2 for sparse ones.

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
    options = {"pools": len(stages), "hidden": hidden, "pool": pool, "dropout": dropout}
    model = PlainCNN("vgg16", classes, channels, image_size, stages=stages, bias=True, **options)
    kaiming_convolutions(model)
    return model


def conv6fc2(
    classes: int = 10,
    *,
    channels: int = 3,
    image_size: tuple[int, int] = (32, 32),
    widths: Sequence[int] = (128, 128, 256, 256, 512, 512),
    hidden: Sequence[int] = (512,),
    pool: str = "max",
) -> PlainCNN:
    """Build 6Conv2FC as an ANN; its spiking form has the same weights. Parameters as of `PlainCNN`.

    Parameters
    ----------
    widths
        Channels of the six convolutions.
    pool
        ``max`` (as released) or ``avg``.

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
    stages = [widths[:2], widths[2:4], widths[4:]]
    sizes = (classes, channels, image_size)
    return PlainCNN("conv6fc2", *sizes, stages=stages, pools=2, hidden=hidden, pool=pool)


def conv2fc2(
    classes: int = 10,
    *,
    channels: int = 2,
    image_size: tuple[int, int] = (34, 34),
    widths: Sequence[int] = (15, 40),
    hidden: Sequence[int] = (300,),
    pool: str = "avg",
) -> PlainCNN:
    """Build 2Conv2FC, 15C3-AP2-40C3-AP2-300-classes, as an ANN. Parameters as of `PlainCNN`.

    Notes
    -----
    As CH-SNN trains it directly on N-MNIST and DVS128 Gesture (ICLR 2026), batch norms added. The
    94.73 % of absent links published there are those of 16 x 16 frames: 99 % of 640 x 300 links.

    Examples
    --------
    >>> tuple(conv2fc2(10, image_size=(16, 16)).classifier[0].weight.shape)
    (300, 640)
    """
    check_positive("conv2fc2", classes=classes, channels=channels, widths=widths, hidden=hidden)
    if len(widths) != 2:
        raise ConfigError(f"conv2fc2: widths = {tuple(widths)} must be two numbers of channels")
    stages = [(width,) for width in widths]
    sizes, pools = (classes, channels, image_size), len(stages)
    return PlainCNN("conv2fc2", *sizes, stages=stages, pools=pools, hidden=hidden, pool=pool)


def small_cnn(
    classes: int = 10,
    *,
    channels: int = 1,
    image_size: tuple[int, int] = (8, 8),
    widths: Sequence[int] = (16, 32, 128),
    hidden: Sequence[int] = (512,),
    pool: str = "avg",
) -> PlainCNN:
    """Build the demo network, which trains in seconds. Parameters as of `PlainCNN`.

    Parameters
    ----------
    widths
        Channels of the convolutions; the first two are followed by pooling.
    pool
        ``avg`` (spikes stay spikes once averaging is folded into the next weights) or ``max``.

    Examples
    --------
    >>> tuple(small_cnn(10).classifier[0].weight.shape)
    (512, 512)
    """
    check_positive("small_cnn", classes=classes, channels=channels, widths=widths, hidden=hidden)
    stages = [(width,) for width in widths]
    sizes, pools = (classes, channels, image_size), min(2, len(stages))
    return PlainCNN("small_cnn", *sizes, stages=stages, pools=pools, hidden=hidden, pool=pool)
