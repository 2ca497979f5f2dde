"""Data stage: two images in one, and a label that is a share of each.

``mixup`` adds a partner image to every image, ``cutmix`` puts a box of the partner into it. The
share that stays is drawn from Beta(a, a), once a batch, as DeiT is trained (Touvron et al. 2021,
from Zhang et al. 2018 and Yun et al. 2019); labels become class probabilities. kornia's mixing
draws shares uniformly, hence the arithmetic here. Only training batches come here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from topospike.errors import ConfigError
from topospike.registry import Registry

USUAL = {"mixup": 0.8, "cutmix": 1.0}


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


MIXTURES: Registry[Callable[..., tuple[Tensor, float]]] = Registry(
    "mixing", {"mixup": mixup, "cutmix": cutmix}
)


def parse_mixing(entry: str) -> tuple[str, float]:
    """Split ``name`` or ``name:a``, a the parameter of the Beta distribution.

    Examples
    --------
    >>> parse_mixing("mixup"), parse_mixing("cutmix:0.5")
    (('mixup', 0.8), ('cutmix', 0.5))
    """
    name, colon, given = entry.partition(":")
    _ = MIXTURES[name]
    if not colon:
        return name, USUAL[name]
    try:
        parameter = float(given)
    except ValueError:
        parameter = 0.0
    if not 0.0 < parameter <= 100.0:
        raise ConfigError(
            f"mixing {entry!r}: {given!r} must be a number above 0, at most 100; "
            f"write for example '{name}:{USUAL[name]:g}'"
        )
    return name, parameter


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
        self._chosen = [parse_mixing(entry) for entry in entries]
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
        mixed, share = MIXTURES[name](x, x[own.to(x.device)], share, generator)
        whole = torch.cat([order + sum(lengths[:i]) for i, order in enumerate(orders)])
        labels = F.one_hot(y, self._classes).to(x.dtype)
        return mixed, torch.lerp(labels[whole.to(y.device)], labels, share)
