"""Data stage: labelled images that are held in memory, or decoded when asked for.

Both forms give the same uint8 batches for the same rows; the loader does not know which it has.
`TensorImages` decodes once and then only indexes; `EncodedImages` keeps a Hugging Face dataset and
decodes each batch anew, in worker processes if there are any. Neither shuffles or augments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from topospike.data.decode import Frame, decode, open_picture

if TYPE_CHECKING:
    from datasets import Dataset

DECODE_AT_ONCE = 1024


@runtime_checkable
class Images(Protocol):
    """What a loader needs to know about a set of labelled images."""

    @property
    def labels(self) -> Int64[np.ndarray, " image"]:
        """Class of every image."""
        ...

    @property
    def scale(self) -> float:
        """The pixel value that stands for 1.0."""
        ...

    def __len__(self) -> int: ...

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> Images:
        """Return the images of these rows, in this order."""
        ...

    def batches(
        self, order: Sequence[Int64[Tensor, " _"]], *, workers: int, pin: bool
    ) -> Iterator[UInt8[Tensor, "_ chan height width"]]:
        """Give the pixels of one group of rows after the other."""
        ...


@dataclass(frozen=True)
class TensorImages:
    """Images as one uint8 tensor; ``scale`` is the pixel value that stands for 1.0.

    Examples
    --------
    >>> two = TensorImages(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), np.array([0, 1]))
    >>> len(two.take(np.array([1])))
    1
    """

    pixels: UInt8[Tensor, "image chan height width"]
    labels: Int64[np.ndarray, " image"]
    scale: float = 255.0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> TensorImages:
        """Return the images of these rows, in this order."""
        return TensorImages(self.pixels[torch.from_numpy(rows)], self.labels[rows], self.scale)

    def to(self, device: torch.device) -> TensorImages:
        """Keep the pixels on ``device``, so that a batch is one gather there."""
        return TensorImages(self.pixels.to(device), self.labels, self.scale)

    def batches(
        self, order: Sequence[Int64[Tensor, " _"]], *, workers: int = 0, pin: bool = False
    ) -> Iterator[UInt8[Tensor, "_ chan height width"]]:
        """Index the tensor; ``workers`` and ``pin`` are not needed."""
        for rows in order:
            yield self.pixels[rows.to(self.pixels.device)]


class PictureReader(TorchDataset[Tensor]):
    """Decode rows of a Hugging Face dataset; this is what worker processes receive.

    Parameters
    ----------
    dataset
        With the image column cast to ``Image(decode=False)``.
    image_column, split
        For reading and for messages.
    frame
        The common form of all pictures.
    rows
        Row numbers of the split that ``dataset`` consists of; only used in messages.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        image_column: str,
        split: str,
        frame: Frame,
        rows: Int64[np.ndarray, " image"],
    ) -> None:
        self.frame = frame
        self._dataset = dataset
        self._column = image_column
        self._split = split
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> PictureReader:
        """Read these rows only, in this order."""
        return PictureReader(
            self._dataset.select(rows),
            image_column=self._column,
            split=self._split,
            frame=self.frame,
            rows=self._rows[rows],
        )

    def __getitem__(self, row: int) -> UInt8[Tensor, "chan height width"]:
        """Decode one row."""
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> UInt8[Tensor, "batch chan height width"]:
        """Decode these rows; torch's loader calls this with a whole batch."""
        arrays = []
        for row, example in zip(rows, self._dataset[rows][self._column], strict=True):
            place = f"image {self._rows[row]} of split {self._split!r}"
            picture = open_picture(example, place=place)
            arrays.append(decode(picture, self.frame, place=place))
        return torch.from_numpy(np.stack(arrays))


class EncodedImages:
    """Images that are decoded when a batch of them is wanted."""

    scale = 255.0

    def __init__(self, reader: PictureReader, labels: Int64[np.ndarray, " image"]) -> None:
        self.labels = labels
        self._reader = reader
        self._order: list[list[int]] = []
        self._loader: DataLoader[Any] | None = None

    @property
    def frame(self) -> Frame:
        """The common form of all pictures."""
        return self._reader.frame

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> EncodedImages:
        """Return the images of these rows, in this order; nothing is decoded."""
        return EncodedImages(self._reader.take(rows), self.labels[rows])

    def decoded(self) -> TensorImages:
        """Decode everything once."""
        frame = self.frame
        pixels = torch.empty(
            (len(self), frame.channels, frame.height, frame.width), dtype=torch.uint8
        )
        for start in range(0, len(self), DECODE_AT_ONCE):
            rows = list(range(start, min(start + DECODE_AT_ONCE, len(self))))
            pixels[start : start + len(rows)] = self._reader.__getitems__(rows)
        return TensorImages(pixels, self.labels, self.scale)

    def batches(
        self, order: Sequence[Int64[Tensor, " _"]], *, workers: int = 0, pin: bool = False
    ) -> Iterator[UInt8[Tensor, "_ chan height width"]]:
        """Decode in ``workers`` processes (0: in this one), two batches ahead in each.

        The first call settles ``workers`` and ``pin``; the processes stay for later epochs.
        ``pin`` puts batches in page-locked memory, from where accelerators copy faster.
        """
        self._order[:] = [rows.tolist() for rows in order]
        if self._loader is None:
            self._loader = DataLoader(
                self._reader,
                batch_sampler=self._order,
                collate_fn=keep_batch,
                num_workers=workers,
                persistent_workers=workers > 0,
                # A fork of a process with running threads may lock up.
                multiprocessing_context="spawn" if workers else None,
                # Without a generator of its own the loader draws from the global one.
                generator=torch.Generator(),
                pin_memory=pin,
            )
        yield from self._loader


def keep_batch(batch: Any) -> Any:
    """Do nothing: the batch is a tensor already."""
    return batch
