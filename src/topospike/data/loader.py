"""Data stage: images in, normalised batches out, the same ones for the same seed and epoch.

The order of an epoch and the augmentation of each of its batches depend on (seed, epoch) only: not
on the device, the number of workers, what was iterated before, or the global generators.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from topospike.data.augment import Augmenter
from topospike.data.images import Images, TensorImages
from topospike.data.mix import Mixer
from topospike.data.seeds import stream_seed
from topospike.errors import ConfigError

ORDER_STREAM, AUGMENT_STREAM, MIX_STREAM = 0, 1, 2


class Batches:
    """Batches of one part of a dataset, ready for the network.

    Parameters
    ----------
    source
        Images in memory or to be decoded. In memory, they are moved to ``device`` once.
    augmenter
        Augmentation (training only) and normalisation.
    batch_size
        Images in a batch; the last one may be smaller.
    seed, shuffle
        With ``shuffle`` every epoch has its own order and augmentation, drawn from ``seed``;
        without, images come in their own order, unchanged.
    device
        Where batches are wanted.
    workers
        Decoding processes for images that are not in memory.
    mixer
        Mixes the images and labels of training batches.
    part
        (rank, processes): decode this part of every batch only, where several processes train
        together. ``y`` is that of the whole batch all the same.

    Raises
    ------
    ConfigError
        If ``batch_size`` is below 1 or ``workers`` is negative.

    Notes
    -----
    Iterating gives ``x`` float32 (batch, chan, height, width) and ``y`` int64 (batch,), or with a
    mixer float32 (batch, classes). A single
    left-over training image joins the batch before it, since batch normalisation cannot train on
    one value per channel; no image is dropped.

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
        augmenter: Augmenter,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        device: torch.device | str = "cpu",
        workers: int = 0,
        mixer: Mixer | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        if batch_size < 1:
            raise ConfigError(f"a batch of {batch_size} images is impossible; use 1 or more")
        if workers < 0:
            raise ConfigError(f"data.workers = {workers} must be 0 or more")
        self.device = torch.device(device)
        self.batch_size = batch_size
        self._source = source.to(self.device) if isinstance(source, TensorImages) else source
        self._labels = torch.from_numpy(source.labels).to(self.device)
        self._augmenter = augmenter
        self._seed = seed
        self._shuffle = shuffle
        self._workers = workers
        self._mixer = mixer
        self._part = part
        self._epoch = 0

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self._source)

    @property
    def labels(self) -> Int64[Tensor, " image"]:
        """Class of every image, in the order of the data."""
        return self._labels

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and the augmentation of this epoch (counted from 0)."""
        if epoch < 0:
            raise ConfigError(f"epoch {epoch} must be 0 or larger")
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._cuts())

    def _cuts(self) -> list[int]:
        """Batch sizes, in order."""
        full, rest = divmod(self.images, self.batch_size)
        cuts = [self.batch_size] * full
        if rest == 1 and self._shuffle and full:
            cuts[-1] += 1
        elif rest:
            cuts.append(rest)
        return cuts

    def _order(self) -> tuple[Tensor, ...]:
        if self._shuffle:
            generator = torch.Generator().manual_seed(
                stream_seed(self._seed, self._epoch, ORDER_STREAM)
            )
            rows = torch.randperm(self.images, generator=generator)
        else:
            rows = torch.arange(self.images)
        return rows.split(self._cuts()) if self.images else ()

    def __iter__(self) -> Iterator[tuple[Float32[Tensor, "part chan height width"], Tensor]]:
        epoch, order = self._epoch, self._order()
        pin = self.device.type == "cuda" and self._workers > 0
        own = [self._own(rows) for rows in order]
        frames = self._source.batches(own, workers=self._workers, pin=pin)
        for number, (rows, pixels) in enumerate(zip(order, frames, strict=True)):
            x = pixels.to(self.device, non_blocking=pin).to(torch.float32).div_(self._source.scale)
            x = self._augmenter(x, seed=self._seed_of(epoch, AUGMENT_STREAM, number, self._part[0]))
            y = self._labels[rows.to(self.device)]
            seed = self._seed_of(epoch, MIX_STREAM, number)
            if self._mixer is not None and seed is not None:
                rank, count = self._part
                x, y = self._mixer(x, y, seed=seed, part=rank, parts=count)
            yield x, y

    def _own(self, rows: Tensor) -> Tensor:
        """Return this process's part of a batch; one row where nothing is left for it."""
        rank, count = self._part
        part = rows.tensor_split(count)[rank]
        return part if len(part) else rows[:1]

    def _seed_of(self, epoch: int, stream: int, number: int, rank: int = 0) -> int | None:
        """Return the seed of one use of randomness in a batch; ``None`` where all is fixed."""
        if not self._shuffle:
            return None
        key = (self._seed, epoch, stream, number)
        return stream_seed(*key, rank) if rank else stream_seed(*key)
