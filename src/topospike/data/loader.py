"""Data stage: images in, normalised batches out, the same ones for the same seed and epoch.

The order of an epoch and the augmentation of each of its batches depend on (seed, epoch) only: not
on the device, the number of workers, what else was or is being iterated, or the global generators.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from topospike.data.augment import Augmenter, Mixer
from topospike.data.events.augment import EventAugmenter
from topospike.data.ondemand import Images, TensorImages
from topospike.data.seeds import AUGMENT, MIX, order_seed, sides_seed, stream_seed
from topospike.errors import ConfigError


class SplitBatches:
    """The batches of one part of a dataset, of whatever kind, in their order.

    Parameters
    ----------
    batch_size
        Images, or contexts of a text, in a batch; the last one may be smaller.
    seed, shuffle
        With ``shuffle`` every epoch has its own order, drawn from ``seed``; without, the order is
        that of the data.
    device
        Where batches are wanted.

    Raises
    ------
    ConfigError
        If ``batch_size`` is below 1.
    """

    axis = 0
    """Where ``x`` counts images."""

    def __init__(
        self, *, batch_size: int, seed: int, shuffle: bool, device: torch.device | str
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"a batch of {batch_size} images is impossible; use 1 or more")
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._seed, self._shuffle, self._epoch = seed, shuffle, 0

    @property
    def images(self) -> int:
        """Number of images, or of contexts."""
        raise NotImplementedError(f"{type(self).__name__} does not say how many images it has")

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of this epoch (counted from 0)."""
        if epoch < 0:
            raise ConfigError(f"epoch {epoch} must be 0 or larger")
        self._epoch = epoch

    def over_time(self) -> SplitBatches:
        """Return the same batches with the frames of recordings one after the other.

        Raises
        ------
        ConfigError
            If these are no recordings of events.
        """
        raise ConfigError(
            "these batches are images or text, which have no frames; load recordings of events "
            "(data.events.frames)."
        )

    def __len__(self) -> int:
        return len(self._cuts())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        raise NotImplementedError(f"{type(self).__name__} does not say how batches are made")

    def _cuts(self) -> list[int]:
        """Batch sizes, in order."""
        full, rest = divmod(self.images, self.batch_size)
        cuts = [self.batch_size] * full
        if rest == 1 and self._shuffle and full:
            cuts[-1] += 1
        elif rest:
            cuts.append(rest)
        return cuts

    def _order(self, epoch: int) -> tuple[Tensor, ...]:
        """Row numbers of every batch."""
        rows = torch.arange(self.images)
        if self._shuffle:
            generator = torch.Generator().manual_seed(order_seed(self._seed, epoch))
            rows = torch.randperm(self.images, generator=generator)
        return rows.split(self._cuts()) if self.images else ()


class Batches(SplitBatches):
    """Batches of one part of a dataset, ready for the network.

    Parameters
    ----------
    source
        Images in memory or to be decoded. In memory, they are moved to ``device`` once.
    augmenter
        Augmentation (training only) and normalisation; of events, what of their frames is shown.
    batch_size
        Images in a batch; the last one may be smaller.
    seed, shuffle
        With ``shuffle`` every epoch has its own order and augmentation, drawn from ``seed``;
        without, images come in their own order, unchanged.
    device
        Where batches are wanted.
    workers
        Decoding processes for images that are not in memory, 0 or more.
    mixer
        Mixes the images and labels of training batches.
    part
        (rank, processes): decode this part of every batch only, where several processes train
        together. ``y`` is that of the whole batch all the same.

    Raises
    ------
    ConfigError
        If ``batch_size`` is below 1.

    Notes
    -----
    Iterating gives ``x`` float32 (batch, chan, height, width) and ``y`` int64 (batch,), or with a
    mixer float32 (batch, classes); `over_time` gives frames of events. Several passes may be under
    way at once. A single left-over training image joins the batch before it, since batch
    normalisation cannot train on one value per channel; no image is dropped.

    Examples
    --------
    >>> from topospike.data import digits, Normalisation
    >>> plain = Augmenter((), image_size=(8, 8), normalisation=Normalisation((0.3,), (0.4,)))
    >>> batches = Batches(digits()[1], plain, batch_size=100)
    >>> len(batches), batches.images, [len(y) for x, y in batches]
    (4, 360, [100, 100, 100, 60])
    """

    def __init__(
        self,
        source: Images,
        augmenter: Augmenter | EventAugmenter,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        device: torch.device | str = "cpu",
        workers: int = 0,
        mixer: Mixer | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, shuffle=shuffle, device=device)
        self._source = source.to(self.device) if isinstance(source, TensorImages) else source
        self._labels = torch.from_numpy(source.labels).to(self.device)
        self._augmenter = augmenter
        self._workers = workers
        self._mixer = mixer
        self._part = part

    @property
    def axis(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Where ``x`` counts images: axis 0, or 1 of frames."""
        return int(isinstance(self._augmenter, EventAugmenter) and self._augmenter.view == "frames")

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._source)

    @property
    def labels(self) -> Int64[Tensor, " image"]:
        """Class of every image, in the order of the data."""
        return self._labels

    def over_time(self) -> SplitBatches:
        """Return the same batches with ``x`` as frames, (frame, batch, polarity, height, width).

        Raises
        ------
        ConfigError
            If these are no recordings of events.
        """
        if not isinstance(self._augmenter, EventAugmenter):
            return super().over_time()
        batches = copy.copy(self)
        batches._augmenter = EventAugmenter(self._augmenter.entries, "frames")
        return batches

    def _sides(self) -> Bool[Tensor, " image"]:
        """Tell of every image whether alternating flips mirror it in even epochs, else in odd."""
        generator = torch.Generator().manual_seed(sides_seed(self._seed))
        return torch.rand(self.images, generator=generator) < 0.5

    def __iter__(self) -> Iterator[tuple[Float32[Tensor, "*shape"], Tensor]]:
        epoch, (rank, parts) = self._epoch, self._part
        order = self._order(epoch)
        pin = self.device.type == "cuda" and self._workers > 0
        own = [own_part(rows, rank, parts) for rows in order]
        frames = self._source.batches(own, workers=self._workers, pin=pin)
        sides = self._sides()
        for number, (rows, pixels) in enumerate(zip(order, frames, strict=True)):
            x = pixels.to(self.device, non_blocking=pin).to(torch.float32).div_(self._source.scale)
            y = self._labels[rows.to(self.device)]
            if not self._shuffle:
                yield self._augmenter(x), y
                continue
            key = (self._seed, epoch, AUGMENT, number)
            mirrored = sides[own[number]] ^ bool(epoch % 2)
            drawn = stream_seed(*key, rank) if rank else stream_seed(*key)
            x = self._augmenter(x, seed=drawn, mirrored=mirrored.to(x.device))
            if self._mixer is not None:
                seed = stream_seed(self._seed, epoch, MIX, number)
                x, y = self._mixer(x, y, seed=seed, part=rank, parts=parts)
            yield x, y


def own_part(rows: Tensor, rank: int, parts: int) -> Tensor:
    """Return one process's part of a batch; one row where nothing is left for it.

    Examples
    --------
    >>> [own_part(torch.arange(3), rank, 2).tolist() for rank in range(2)]
    [[0, 1], [2]]
    """
    part = rows.tensor_split(parts)[rank]
    return part if len(part) else rows[:1]
