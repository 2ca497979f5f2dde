"""Data stage: mean and spread of the pixels, known for the usual sets or measured.

x = (pixel / scale - mean) / std per channel, where ``scale`` brings pixels to [0, 1] (255 for
8-bit images). The networks and the spiking conversion see x only.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import UInt8
from torch import Tensor

from topospike.errors import ConfigError


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per channel, for pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


CIFAR10 = Normalisation((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100 = Normalisation(
    (129.3 / 255, 124.1 / 255, 112.4 / 255), (68.2 / 255, 65.4 / 255, 70.4 / 255)
)
MNIST = Normalisation((0.1307,), (0.3081,))
FASHION_MNIST = Normalisation((0.2860,), (0.3530,))
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

KNOWN = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "mnist": MNIST,
    "fashionmnist": FASHION_MNIST,
    "imagenet": IMAGENET,
    "imagenet1k": IMAGENET,
}


def known_normalisation(name: str, channels: int) -> Normalisation | None:
    """Return the constants customary for a dataset, or ``None`` if it is not one we know.

    Parameters
    ----------
    name
        A hub id or a folder; only the last part counts, without case, hyphens and underscores.
    channels
        Colour channels of the images; constants for another number are not used.

    Notes
    -----
    CIFAR-10 and CIFAR-100 as in Bu et al. (2022), whose CIFAR-10 ``std`` is the mean spread
    *within* an image, smaller than the spread over all pixels; MNIST and Fashion-MNIST as in
    Zhang et al. (2025); ImageNet as everywhere.

    Examples
    --------
    >>> known_normalisation("zalando-datasets/fashion_mnist", 1)
    Normalisation(mean=(0.286,), std=(0.353,))
    >>> known_normalisation("my-own-pictures", 3) is None
    True
    """
    last = name.rstrip("/").rsplit("/", 1)[-1].lower()
    constants = KNOWN.get(last.replace("-", "").replace("_", ""))
    return constants if constants is not None and len(constants.mean) == channels else None


def measure_normalisation(
    batches: Iterable[UInt8[Tensor, "_ chan height width"]], *, scale: float
) -> Normalisation:
    """Mean and standard deviation over all pixels of all images, per channel.

    Parameters
    ----------
    batches : UInt8 tensors (batch, chan, height, width)
        The training images in pieces.
    scale
        The pixel value that stands for 1.0.

    Raises
    ------
    ConfigError
        If a channel is constant, so that it cannot be normalised.

    Notes
    -----
    Sums of integers in float64 are exact up to 2**53, so the result does not depend on how the
    images are cut into pieces. The standard deviation divides by the number of pixels.
    """
    count, total, squares = 0, torch.zeros(1), torch.zeros(1)
    for batch in batches:
        wide = batch.to(torch.float64)
        count += wide.numel() // wide.shape[1]
        total = total + wide.sum(dim=(0, 2, 3))
        squares = squares + wide.square().sum(dim=(0, 2, 3))
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    if not bool((std > 0).all()):
        constant = int((std <= 0).nonzero()[0, 0])
        raise ConfigError(
            f"channel {constant} has the same value in all training pixels, so its spread is 0; "
            "set data.std (and data.mean) by hand"
        )
    return Normalisation(tuple((mean / scale).tolist()), tuple((std / scale).tolist()))


def checked_normalisation(
    mean: tuple[float, ...], std: tuple[float, ...], *, channels: int
) -> Normalisation:
    """Take the user's own constants, which must be one per channel."""
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels:
            raise ConfigError(
                f"data.{name} = {tuple(values)} has {len(values)} values; "
                f"the images have {channels} channels, give one value for each"
            )
    return Normalisation(tuple(mean), tuple(std))
