"""Data stage: labelled images that are held in memory, or made when asked for.

Both forms give the same uint8 batches for the same rows; the loader does not know which it has.
`TensorImages` only indexes. What is `OnDemand` (encoded pictures, recordings of events) makes each
batch anew, in worker processes if there are any.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

AT_ONCE = 1024


@dataclass(frozen=True)
class TensorImages:
    """Images, or frames of events, as one uint8 tensor; ``scale`` is the value that stands for 1.0.

    Examples
    --------
    >>> two = TensorImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), np.array([0, 1]))
    >>> len(two.take(np.array([1])))
    1
    """

    pixels: UInt8[Tensor, "image ..."]
    labels: Int64[np.ndarray, " image"]
    scale: float = 255.0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> TensorImages:
        """Return the images of these rows, in this order."""
        return TensorImages(self.pixels[torch.from_numpy(rows)], self.labels[rows], self.scale)

    def to(self, device: torch.device | str) -> TensorImages:
        """Keep the pixels on ``device``, so that a batch is one gather there."""
        return TensorImages(self.pixels.to(device), self.labels, self.scale)

    def batches(
        self, order: Sequence[Int64[Tensor, " _"]], *, workers: int = 0, pin: bool = False
    ) -> Iterator[UInt8[Tensor, "_ ..."]]:
        """Index the tensor; ``workers`` and ``pin`` are not needed."""
        for rows in order:
            yield self.pixels[rows.to(self.pixels.device)]


class OnDemand(Dataset[Tensor]):
    """Labelled images that are made when a batch of them is wanted; a subclass knows how.

    Parameters
    ----------
    labels
        Class of every image.
    shape
        Of one image.
    """

    scale: ClassVar[float] = 255.0

    def __init__(self, labels: Int64[np.ndarray, " image"], shape: tuple[int, ...]) -> None:
        self.labels, self.shape = labels, shape
        self._idle: list[DataLoader[Any]] = []

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the loaders: this is what their worker processes receive."""
        return {**self.__dict__, "_idle": []}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> UInt8[Tensor, "*shape"]:
        """Make one row."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> UInt8[Tensor, "batch ..."]:
        """Make these rows; torch's loader calls this with a whole batch."""
        raise NotImplementedError(f"{type(self).__name__} does not say how rows are made")

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> OnDemand:
        """Return the images of these rows, in this order; nothing is made."""
        raise NotImplementedError(f"{type(self).__name__} does not say how rows are chosen")

    @property
    def bytes(self) -> int:
        """Memory of all images once they are made."""
        return len(self) * math.prod(self.shape)

    def decoded(self) -> TensorImages:
        """Make everything once."""
        pixels = torch.empty((len(self), *self.shape), dtype=torch.uint8)
        for start in range(0, len(self), AT_ONCE):
            rows = list(range(start, min(start + AT_ONCE, len(self))))
            pixels[start : start + len(rows)] = self.__getitems__(rows)
        return TensorImages(pixels, self.labels, self.scale)

    def batches(
        self, order: Sequence[Int64[Tensor, " _"]], *, workers: int = 0, pin: bool = False
    ) -> Iterator[UInt8[Tensor, "_ ..."]]:
        """Make batches in ``workers`` processes (0: in this one), two ahead in each.

        The first call settles ``workers`` and ``pin``. ``pin`` puts batches in page-locked memory,
        from where accelerators copy faster.
        """
        # A pass owns its loader until it ends; the next one may use the processes it has started.
        loader = self._idle.pop() if self._idle else self._loader(workers, pin)
        loader.batch_sampler[:] = [rows.tolist() for rows in order]  # pyright: ignore[reportIndexIssue, reportOptionalSubscript]
        try:
            yield from loader
        finally:
            self._idle.append(loader)

    def _loader(self, workers: int, pin: bool) -> DataLoader[Any]:
        return DataLoader(
            self,
            batch_sampler=[],
            collate_fn=keep_batch,
            num_workers=workers,
            persistent_workers=workers > 0,
            # A fork of a process with running threads may lock up.
            multiprocessing_context="spawn" if workers else None,
            # Without a generator of its own the loader draws from the global one.
            generator=torch.Generator(),
            pin_memory=pin,
        )


Images = TensorImages | OnDemand


def keep_batch(batch: Any) -> Any:
    """Do nothing: the batch is a tensor already."""
    return batch
