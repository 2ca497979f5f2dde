"""Data stage: random changes to training images, a whole batch at a time, on the device.

Each entry of ``data.augment`` is a name, or ``name:strength``. They act in the given order on
pixels in [0, 1] (so borders are filled with black, as is customary); from the first ``cutout`` or
``erasing`` on they act on normalised images (so that the hole is the mean colour). The work is
kornia's; it draws from torch's global generator, which is lent to it and given back, so that
training elsewhere is not disturbed. Evaluation data never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from topospike.data.normalisation import Normalisation
from topospike.data.seeds import borrowed_global_generator
from topospike.errors import ConfigError, require
from topospike.registry import Registry

Size = tuple[int, int]
BLANKING = ("cutout", "erasing")


def crop(size: Size, padding: float) -> nn.Module:
    """Pad with ``padding`` black pixels on every side, cut out the old size anywhere."""
    from kornia.augmentation import RandomCrop

    return RandomCrop(size, padding=int(padding))


def flip(size: Size, probability: float) -> nn.Module:
    """Mirror left and right with this probability."""
    from kornia.augmentation import RandomHorizontalFlip

    return RandomHorizontalFlip(p=probability)


def cutout(size: Size, share: float) -> nn.Module:
    """Blank one square whose side is this share of the shorter image side."""
    from kornia.augmentation import RandomErasing

    side = share * min(size)
    area = side * side / (size[0] * size[1])
    return RandomErasing(p=1.0, scale=(area, area), ratio=(1.0, 1.0), value=0.0)


def rotate(size: Size, degrees: float) -> nn.Module:
    """Turn by up to this many degrees either way."""
    from kornia.augmentation import RandomRotation

    return RandomRotation(degrees, p=1.0)


def shift(size: Size, share: float) -> nn.Module:
    """Move by up to this share of the image along both axes, between pixels too."""
    from kornia.augmentation import RandomAffine

    return RandomAffine(0.0, translate=(share, share), p=1.0)


def resized_crop(size: Size, smallest: float) -> nn.Module:
    """Cut out a box of this share of the area up to all of it, and scale it to the image size."""
    from kornia.augmentation import RandomResizedCrop

    return RandomResizedCrop(size, scale=(smallest, 1.0), p=1.0)


def autoaugment(size: Size, probability: float) -> nn.Module:
    """Apply one of the 25 sub-policies found for CIFAR-10 (Cubuk et al. 2019)."""
    from kornia.augmentation.auto import AutoAugment

    return AutoAugment("cifar10")


def randaugment(size: Size, level: float) -> nn.Module:
    """Apply two of 15 operations at this level of 10 (Cubuk et al. 2020), on colour images.

    The two are drawn once a batch, their signs and places image by image.
    """
    from kornia.augmentation.auto import RandAugment

    return RandAugment(n=2, m=min(round(3 * level), 29))


def erasing(size: Size, probability: float) -> nn.Module:
    """Blank one box of 2 to 33 % of the area in this share of the images (Zhong et al. 2020)."""
    from kornia.augmentation import RandomErasing

    return RandomErasing(p=probability, scale=(0.02, 1 / 3), ratio=(0.3, 1 / 0.3), value=0.0)


@dataclass(frozen=True)
class AugmentationKind:
    """How to build an augmentation, its usual strength, and the range the strength may have."""

    build: Callable[[Size, float], nn.Module]
    default: float
    lowest: float
    highest: float


AUGMENTATIONS = Registry(
    "augmentation",
    {
        "crop": AugmentationKind(crop, 4.0, 1.0, 64.0),
        "flip": AugmentationKind(flip, 0.5, 0.0, 1.0),
        "cutout": AugmentationKind(cutout, 0.5, 0.01, 1.0),
        "rotate": AugmentationKind(rotate, 10.0, 0.0, 180.0),
        "shift": AugmentationKind(shift, 0.1, 0.0, 0.5),
        "resized_crop": AugmentationKind(resized_crop, 0.08, 0.01, 1.0),
        "autoaugment": AugmentationKind(autoaugment, 1.0, 1.0, 1.0),
        "randaugment": AugmentationKind(randaugment, 9.0, 1.0, 10.0),
        "erasing": AugmentationKind(erasing, 0.25, 0.0, 1.0),
    },
)


def parse_augmentation(entry: str) -> tuple[str, float]:
    """Split ``name`` or ``name:strength`` and check both.

    Examples
    --------
    >>> parse_augmentation("crop"), parse_augmentation("rotate:5")
    (('crop', 4.0), ('rotate', 5.0))
    """
    name, colon, given = entry.partition(":")
    kind = AUGMENTATIONS[name]
    if not colon:
        return name, kind.default
    try:
        strength = float(given)
    except ValueError:
        raise ConfigError(
            f"augmentation {entry!r}: {given!r} is not a number; write for example "
            f"'{name}:{kind.default:g}'"
        ) from None
    if not kind.lowest <= strength <= kind.highest:
        raise ConfigError(
            f"augmentation {entry!r}: the strength must be in "
            f"[{kind.lowest:g}, {kind.highest:g}]; the usual one is {kind.default:g}"
        )
    return name, strength


def centre_crop(
    x: Float[Tensor, "batch chan rows columns"], size: Size
) -> Float[Tensor, "batch chan height width"]:
    """Cut out the middle of every image; an odd rest stays at the bottom and on the right."""
    top, left = (x.shape[2] - size[0]) // 2, (x.shape[3] - size[1]) // 2
    return x[:, :, top : top + size[0], left : left + size[1]]


class Augmenter:
    """The chosen augmentations in order, around the normalisation.

    Parameters
    ----------
    entries
        ``name`` or ``name:strength``; empty for evaluation data.
    image_size
        Height and width of the result. What ``crop`` or ``resized_crop`` did not bring to this
        size is cut to its middle.
    normalisation
        Mean and standard deviation for pixels in [0, 1].

    Examples
    --------
    >>> plain = Augmenter((), image_size=(2, 2), normalisation=Normalisation((0.5,), (0.5,)))
    >>> plain(torch.tensor([[[[0.0, 1.0], [0.5, 0.25]]]]))
    tensor([[[[-1.0000,  1.0000],
              [ 0.0000, -0.5000]]]])
    """

    def __init__(
        self, entries: Iterable[str], *, image_size: Size, normalisation: Normalisation
    ) -> None:
        chosen = [parse_augmentation(entry) for entry in entries]
        if chosen:
            require("kornia", purpose="augmentation")
        modules = [AUGMENTATIONS[name].build(image_size, strength) for name, strength in chosen]
        names = [name for name, _ in chosen]
        cut = next((i for i, name in enumerate(names) if name in BLANKING), len(names))
        self.names = tuple(names)
        self._on_pixels, self._on_normalised = modules[:cut], modules[cut:]
        self._size = image_size
        self._mean = torch.tensor(normalisation.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(normalisation.std).view(1, -1, 1, 1)

    @torch.no_grad()
    def __call__(
        self, pixels: Float[Tensor, "batch chan rows columns"], *, seed: int | None = None
    ) -> Float[Tensor, "batch chan height width"]:
        """Augment (with a seed) and normalise a batch of pixels in [0, 1], on its device.

        Without a seed nothing random happens: centre crop and normalisation only.
        """
        if seed is None or not self.names:
            return self._normalised(pixels)
        with borrowed_global_generator(seed):
            for module in self._on_pixels:
                pixels = module(pixels)
            x = self._normalised(pixels)
            for module in self._on_normalised:
                x = module(x)
        return x.contiguous()

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return (centre_crop(pixels, self._size) - mean).div_(std)
