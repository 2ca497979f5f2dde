"""Data stage: random changes to training images, a whole batch at a time, on the device.

Each entry of ``data.augment`` is a name, or ``name:strength``. They act in the given order on
pixels in [0, 1] (so borders are filled with black, as is customary); from the first ``cutout`` or
``erasing`` on they act on normalised images (so that the hole is the mean colour). The work is
kornia's; it draws from torch's global generator, which is lent to it and given back, so that
training elsewhere is not disturbed. Evaluation data never comes here. ``alternating_flip`` draws
nothing: it mirrors an image in every other epoch, so that two epochs in a row show both sides of
every image and not, as by chance, the same side of half of them (Jordan 2024).

``data.mix`` puts two images in one, and a share of each in the label: ``mixup`` adds a partner to
every image, ``cutmix`` puts a box of the partner into it. The share that stays is drawn from
Beta(a, a), once a batch, as DeiT is trained (Touvron et al. 2021, from Zhang et al. 2018 and Yun et
al. 2019). kornia's mixing draws shares uniformly, hence the arithmetic here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from topospike.data.normalisation import Normalisation
from topospike.data.seeds import borrowed_global_generator
from topospike.errors import ConfigError, require
from topospike.registry import Registry

Size = tuple[int, int]
BLANKING = ("cutout", "erasing")


@dataclass(frozen=True)
class Change:
    """How to build or apply a change, its usual strength, and the range the strength may have."""

    make: Callable[..., Any]
    default: float
    lowest: float
    highest: float


def kornia() -> Any:
    """Import kornia's augmentations, of which evaluation has no need."""
    from kornia import augmentation

    return augmentation


def cutout(size: Size, share: float) -> nn.Module:
    """Blank one square whose side is this share of the shorter image side."""
    area = (share * min(size)) ** 2 / (size[0] * size[1])
    return kornia().RandomErasing(p=1.0, scale=(area, area), ratio=(1.0, 1.0), value=0.0)


def boxes(size: Size, probability: float) -> nn.Module:
    """Blank one box of 2 to 33 % of the area in this share of the images (Zhong et al. 2020)."""
    area, shape = (0.02, 1 / 3), (0.3, 1 / 0.3)
    return kornia().RandomErasing(p=probability, scale=area, ratio=shape, value=0.0)


class AlternatingFlip(nn.Module):
    """Mirror the images that are to be mirrored in this epoch."""

    def forward(
        self, x: Float[Tensor, "batch chan height width"], mirrored: Bool[Tensor, " batch"]
    ) -> Float[Tensor, "batch chan height width"]:
        """Return the images, some of them with left and right exchanged."""
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x)


AUGMENTATIONS = Registry(
    "augmentation",
    {
        # Pad with so many black pixels on every side, cut out the old size anywhere.
        "crop": Change(lambda size, n: kornia().RandomCrop(size, padding=int(n)), 4.0, 1.0, 64.0),
        # Mirror left and right with this probability.
        "flip": Change(lambda _, p: kornia().RandomHorizontalFlip(p=p), 0.5, 0.0, 1.0),
        # Mirror every image in every other epoch.
        "alternating_flip": Change(lambda *_: AlternatingFlip(), 1.0, 1.0, 1.0),
        "cutout": Change(cutout, 0.5, 0.01, 1.0),
        # Turn by up to so many degrees either way.
        "rotate": Change(lambda _, x: kornia().RandomRotation(x, p=1.0), 10.0, 0.0, 180.0),
        # Move by up to this share of the image along both axes, between pixels too.
        "shift": Change(
            lambda _, x: kornia().RandomAffine(0.0, translate=(x, x), p=1.0), 0.1, 0.0, 0.5
        ),
        # Cut out a box of this share of the area up to all of it, and scale it to the image size.
        "resized_crop": Change(
            lambda size, x: kornia().RandomResizedCrop(size, scale=(x, 1.0), p=1.0), 0.08, 0.01, 1.0
        ),
        # One of the 25 sub-policies found for CIFAR-10 (Cubuk et al. 2019).
        "autoaugment": Change(lambda _, p: kornia().auto.AutoAugment("cifar10"), 1.0, 1.0, 1.0),
        # Two of 15 operations at this level of 10 (Cubuk et al. 2020), on colour images. The two
        # are drawn once a batch, their signs and places image by image.
        "randaugment": Change(
            lambda _, x: kornia().auto.RandAugment(n=2, m=min(round(3 * x), 29)), 9.0, 1.0, 10.0
        ),
        "erasing": Change(boxes, 0.25, 0.0, 1.0),
    },
)


def mixup(
    x: Float[Tensor, "batch chan height width"],
    partner: Float[Tensor, "batch chan height width"],
    share: float,
    generator: np.random.Generator,
) -> tuple[Tensor, float]:
    """Return ``share x + (1 - share) partner``, and the share."""
    return torch.lerp(partner, x, share), share


def cutmix(
    x: Float[Tensor, "batch chan height width"],
    partner: Float[Tensor, "batch chan height width"],
    share: float,
    generator: np.random.Generator,
) -> tuple[Tensor, float]:
    """Return images with a box of their partner, and the share of pixels that are their own.

    The box has the image's proportions and ``1 - share`` of its area, its centre is anywhere; what
    lies outside the image is cut off, and the share corrected.
    """
    height, width = x.shape[2:]
    side = (1.0 - share) ** 0.5
    edges = []
    for length in (height, width):
        half, centre = round(side * length) / 2, generator.integers(0, length) + 0.5
        edges += [max(0, round(centre - half)), min(length, round(centre + half))]
    top, bottom, left, right = edges
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = partner[:, :, top:bottom, left:right]
    return mixed, 1.0 - (bottom - top) * (right - left) / (height * width)


MIXTURES = Registry(
    "mixing",
    {"mixup": Change(mixup, 0.8, 0.001, 100.0), "cutmix": Change(cutmix, 1.0, 0.001, 100.0)},
)


def parsed(entry: str, table: Registry[Change]) -> tuple[str, float]:
    """Split ``name`` or ``name:strength`` and check both.

    Examples
    --------
    >>> parsed("crop", AUGMENTATIONS), parsed("cutmix:0.5", MIXTURES)
    (('crop', 4.0), ('cutmix', 0.5))
    """
    name, colon, given = entry.partition(":")
    change = table[name]
    try:
        strength = float(given) if colon else change.default
    except ValueError:
        strength = math.nan
    if not change.lowest <= strength <= change.highest:
        raise ConfigError(
            f"{entry!r}: {given!r} is not a number in [{change.lowest:g}, {change.highest:g}]; "
            f"write for example '{name}:{change.default:g}'"
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
        chosen = [parsed(entry, AUGMENTATIONS) for entry in entries]
        if chosen:
            require("kornia", purpose="augmentation")
        modules = [AUGMENTATIONS[name].make(image_size, strength) for name, strength in chosen]
        names = [name for name, _ in chosen]
        cut = next((i for i, name in enumerate(names) if name in BLANKING), len(names))
        self.names = tuple(names)
        self._on_pixels, self._on_normalised = modules[:cut], modules[cut:]
        self._size = image_size
        self._mean = torch.tensor(normalisation.mean).view(1, -1, 1, 1)
        self._std = torch.tensor(normalisation.std).view(1, -1, 1, 1)

    @torch.no_grad()
    def __call__(
        self,
        pixels: Float[Tensor, "batch chan rows columns"],
        *,
        seed: int | None = None,
        mirrored: Bool[Tensor, " batch"] | None = None,
    ) -> Float[Tensor, "batch chan height width"]:
        """Augment (with a seed) and normalise a batch of pixels in [0, 1], on its device.

        Without a seed nothing random happens: centre crop and normalisation only. ``mirrored``
        says which images alternating flips, if any, turn over; ``None`` is none of them.
        """
        if seed is None or not self.names:
            return self._normalised(pixels)
        if mirrored is None:
            mirrored = torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)

        def apply(module: nn.Module, x: Tensor) -> Tensor:
            return module(x, mirrored) if isinstance(module, AlternatingFlip) else module(x)

        with borrowed_global_generator(seed):
            for module in self._on_pixels:
                pixels = apply(module, pixels)
            x = self._normalised(pixels)
            for module in self._on_normalised:
                x = apply(module, x)
        return x.contiguous()

    def _normalised(self, pixels: Tensor) -> Tensor:
        mean, std = self._mean.to(pixels.device), self._std.to(pixels.device)
        return (centre_crop(pixels, self._size) - mean).div_(std)


class Mixer:
    """Mix a batch by one of several methods, drawn anew for each batch.

    Parameters
    ----------
    entries
        ``name`` or ``name:a``; of several, each is as likely.
    classes
        Number of classes.

    Examples
    --------
    >>> x, y = torch.eye(2).reshape(2, 1, 1, 2), torch.tensor([0, 1])
    >>> mixed, shares = Mixer(["mixup"], classes=2)(x, y, seed=0)
    >>> torch.equal(mixed.flatten(1), shares)  # as much of each image as of its label
    True
    """

    def __init__(self, entries: Iterable[str], *, classes: int) -> None:
        self._chosen = [parsed(entry, MIXTURES) for entry in entries]
        self._classes = classes

    def __call__(
        self,
        x: Float[Tensor, "part chan height width"],
        y: Int64[Tensor, " batch"],
        *,
        seed: int,
        part: int = 0,
        parts: int = 1,
    ) -> tuple[Float[Tensor, "part chan height width"], Float[Tensor, "batch classes"]]:
        """Mix the images of one part of a batch, and the labels of the whole of it.

        Partners are of the same part, so a process that has decoded its part alone knows them.
        """
        generator = np.random.default_rng(seed)
        name, parameter = self._chosen[generator.integers(len(self._chosen))]
        share = float(generator.beta(parameter, parameter))
        lengths = [len(rows) for rows in torch.arange(len(y)).tensor_split(parts)]
        orders = [torch.from_numpy(generator.permutation(length)) for length in lengths]
        # A part without images of its own comes with one that does not count.
        own = orders[part] if lengths[part] == len(x) else torch.arange(len(x))
        mixed, share = MIXTURES[name].make(x, x[own.to(x.device)], share, generator)
        whole = torch.cat([order + sum(lengths[:i]) for i, order in enumerate(orders)])
        labels = F.one_hot(y, self._classes).to(x.dtype)
        return mixed, torch.lerp(labels[whole.to(y.device)], labels, share)
