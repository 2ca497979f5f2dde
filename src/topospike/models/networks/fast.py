"""Models: a network that trains fast, after airbench94 (Jordan 2024), with rectifiers.

A fixed convolution whitens 2 x 2 patches; then come stages of 3 x 3 convolutions without bias, each
with batch normalisation and ReLU. The first convolution of a stage is pooled before both of them,
so they, and the neurons that a conversion makes of the ReLUs, work on a quarter of the values. The
published network has GELU in place of ReLU and one linear layer behind a last pooling; this one
has the hidden linear layers of the other networks here, since they carry the sparsest topologies.

Why whiten: neighbouring pixels of photographs say nearly the same, so most directions of a patch
hardly vary and a network first has to learn to look at the rest. The first layer has this from the
start: one filter for every principal direction of the patches of training images, scaled so that
its output has variance 1, and its negative beside it, since a rectifier keeps one sign only. The
layer is an ordinary convolution whose weight does not train (Coates and Ng 2012; Jordan 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from topospike.errors import ConfigError, ShapeError
from topospike.models.networks.sizes import (
    check_dropout,
    check_positive,
    kaiming_convolutions,
    linear_head,
    pooled_size,
    widths_of_blocks,
)

EPSILON = 5e-4
"""Added to every variance, so that directions which are nearly constant are not blown up."""


class WhiteningConv2d(nn.Conv2d):
    """A convolution without bias and padding whose weight is fixed; see `fit_whitening`.

    Until it is fitted it shows every value of a patch, and every negative value.

    Parameters
    ----------
    channels
        Channels of the images.
    kernel
        Side of a patch.

    Examples
    --------
    >>> layer = WhiteningConv2d(3)
    >>> tuple(layer.weight.shape), layer.weight.requires_grad
    ((24, 3, 2, 2), False)
    """

    def __init__(self, channels: int, kernel: int = 2) -> None:
        values = channels * kernel**2
        super().__init__(channels, 2 * values, kernel, bias=False)
        self.weight.requires_grad_(False)

    def reset_parameters(self) -> None:
        """Show the patch as it is."""
        basis = torch.eye(self.weight[0].numel()).view(-1, *self.weight.shape[1:])
        with torch.no_grad():
            self.weight.copy_(torch.cat([basis, -basis]))


def whitening_filters(
    images: Float[Tensor, "image chan height width"], kernel: int = 2, *, epsilon: float = EPSILON
) -> Float[Tensor, "filter chan kernel kernel"]:
    r"""Compute the whitening filters of all patches of some images.

    Filter ``i`` is :math:`v_i / \sqrt{\lambda_i + \epsilon}`, with variance :math:`\lambda_i` and
    unit vector :math:`v_i` the ``i``-th principal component of the patches, largest variance first.

    Parameters
    ----------
    images
        As the network will see them: normalised, but not augmented.
    kernel
        Side of a patch.
    epsilon
        Added to every variance.

    Returns
    -------
    Tensor
        ``chan * kernel ** 2`` filters in the type of the images. A component's sign is free, so
        its largest value is made positive.

    Raises
    ------
    ShapeError
        The images are smaller than a patch, or not a batch of images.
    ConfigError
        The filters would be infinite: a direction without variance, and ``epsilon=0``.

    Examples
    --------
    >>> columns = torch.tensor([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> whitening_filters(columns.view(4, 2, 1, 1), kernel=1, epsilon=0.0).flatten(1) ** 2
    tensor([[0.5000, 0.0000],
            [0.0000, 2.0000]])
    """
    if images.dim() != 4 or min(images.shape[2:]) < kernel or len(images) == 0:
        raise ShapeError(
            f"whitening needs images (image, chan, height, width) of at least {kernel} x {kernel} "
            f"pixels; got shape {tuple(images.shape)}."
        )
    patches = F.unfold(images.double(), kernel).transpose(1, 2).flatten(0, 1)
    variances, components = torch.linalg.eigh(torch.atleast_2d(torch.cov(patches.T, correction=0)))
    variances, components = variances.flip(0).clamp_min(0.0) + epsilon, components.flip(1).T
    if not bool((variances > 0).all()):
        raise ConfigError(
            "some direction of the patches has no variance; whitening needs epsilon above 0."
        )
    largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
    filters = components * largest.sign() / variances.sqrt()[:, None]
    return filters.view(-1, images.shape[1], kernel, kernel).to(images.dtype)


@torch.no_grad()
def fit_whitening(model: nn.Module, batches: Iterable[Tensor]) -> None:
    """Fill the whitening layers of a model from training images; without such a layer, read none.

    Parameters
    ----------
    model
        Changed in place.
    batches
        Images as `whitening_filters` takes them.

    Examples
    --------
    >>> layer = WhiteningConv2d(1, kernel=1)
    >>> images = torch.tensor([1.0, -1.0, 3.0, -3.0]).view(4, 1, 1, 1)  # of variance 5
    >>> fit_whitening(nn.Sequential(layer), [images])
    >>> layer.weight.flatten() ** 2
    tensor([0.2000, 0.2000])
    """
    layers = [module for module in model.modules() if isinstance(module, WhiteningConv2d)]
    if not layers:
        return
    images = torch.cat([batch.cpu() for batch in batches])
    for layer in layers:
        filters = whitening_filters(images, layer.kernel_size[0])
        layer.weight.copy_(torch.cat([filters, -filters]))


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
