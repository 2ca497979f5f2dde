"""Data stage: pictures of a Hugging Face dataset, decoded when asked for.

8-bit pixels arrive unchanged; nothing here shuffles or augments. Pictures of differing sizes are
brought to one frame when the recipe states an image size: the smaller side is scaled to 256/224 of
it (the usual margin for cutting) and the middle is kept.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from topospike.data.ondemand import OnDemand
from topospike.errors import MissingDataError, ShapeError

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

FRAME_MARGIN = 256 / 224
SINGLE_CHANNEL_MODES = ("1", "L")
COLOUR_MODES = ("RGB", "RGBA", "P", "LA", "CMYK", "YCbCr", "PA")


class EncodedImages(OnDemand):
    """Images that are decoded when a batch of them is wanted.

    Parameters
    ----------
    dataset
        Of Hugging Face, with the image column cast to ``Image(decode=False)``.
    labels
        Class of every image.
    image_column, split
        For reading and for messages.
    frame
        The common form of all pictures.
    rows
        Row numbers of the split that ``dataset`` consists of, for messages; ``None`` is all.
    """

    def __init__(
        self,
        dataset: Dataset,
        labels: Int64[np.ndarray, " image"],
        *,
        image_column: str,
        split: str,
        frame: Frame,
        rows: Int64[np.ndarray, " image"] | None = None,
    ) -> None:
        super().__init__(labels, (frame.channels, frame.height, frame.width))
        self.frame = frame
        self._dataset = dataset
        self._column, self._split = image_column, split
        self._rows = np.arange(len(labels)) if rows is None else rows

    def __getitems__(self, rows: list[int]) -> UInt8[Tensor, "batch chan height width"]:
        """Decode these rows; torch's loader calls this with a whole batch."""
        arrays = []
        for row, example in zip(rows, self._dataset[rows][self._column], strict=True):
            place = f"image {self._rows[row]} of split {self._split!r}"
            arrays.append(decode(open_picture(example, place=place), self.frame, place=place))
        return torch.from_numpy(np.stack(arrays))

    def take(self, rows: Int64[np.ndarray, " chosen"]) -> EncodedImages:
        """Return the images of these rows, in this order; nothing is decoded."""
        return EncodedImages(
            self._dataset.select(rows),
            self.labels[rows],
            image_column=self._column,
            split=self._split,
            frame=self.frame,
            rows=self._rows[rows],
        )


@dataclass(frozen=True)
class Frame:
    """The common form of all decoded pictures of a dataset.

    ``resize`` says whether other sizes are scaled to this one or refused; ``convert`` whether
    pictures with another number of channels are converted or refused.
    """

    channels: int
    height: int
    width: int
    resize: bool
    convert: bool


def frame_size(image_size: tuple[int, int]) -> tuple[int, int]:
    """Return the frame a stated image size is cut from.

    Examples
    --------
    >>> frame_size((224, 224))
    (256, 256)
    """
    height, width = (math.ceil(side * FRAME_MARGIN - 1e-9) for side in image_size)
    return height, width


def channels_of(modes: Counter[str]) -> int:
    """Return 1 if all inspected pictures are grey, 3 otherwise."""
    return 1 if all(mode in SINGLE_CHANNEL_MODES for mode in modes) else 3


def open_picture(encoded: Mapping[str, Any], *, place: str) -> Image:
    """Open one cell of an image column: its bytes, or the file it names.

    Raises
    ------
    MissingDataError
        If it is no picture that can be read.
    """
    import datasets

    try:
        return datasets.Image().decode_example(dict(encoded))
    except (OSError, ValueError, TypeError, SyntaxError) as error:
        raise MissingDataError(
            f"{place} cannot be read ({error}); repair the file or leave the row out"
        ) from error


def decode(picture: Image, frame: Frame, *, place: str) -> UInt8[np.ndarray, "chan height width"]:
    """Turn one opened picture into a uint8 array of the common form.

    Parameters
    ----------
    picture : PIL.Image.Image
        Opened, not necessarily loaded.
    frame
        The form wanted.
    place
        Which picture this is, for messages ("image 12 of split 'train'").

    Raises
    ------
    ShapeError
        If size or channels differ and may not be changed.
    MissingDataError
        If the pixels are not 8-bit, or the file is damaged.
    """
    if picture.mode not in SINGLE_CHANNEL_MODES + COLOUR_MODES:
        raise MissingDataError(
            f"{place} has pixel format {picture.mode!r}; only 8-bit grey and colour pictures can "
            "be read, convert it first"
        )
    wanted = "L" if frame.channels == 1 else "RGB"
    if picture.mode != wanted:
        if not frame.convert and picture.mode not in SINGLE_CHANNEL_MODES and wanted == "L":
            raise ShapeError(
                f"{place} is in colour ({picture.mode}) while the first ones are grey; set "
                "data.channels to 1 or 3 to convert all of them"
            )
        picture = picture.convert(wanted)
    if frame.resize:
        picture = fitted(picture, (frame.height, frame.width))
    if picture.size != (frame.width, frame.height):
        raise ShapeError(
            f"{place} is {picture.height} x {picture.width} pixels while the first one is "
            f"{frame.height} x {frame.width}; set data.image_size to bring all to one size"
        )
    array = np.array(picture, dtype=np.uint8)
    return array[None] if frame.channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def fitted(picture: Image, size: tuple[int, int]) -> Image:
    """Scale (bilinear, antialiased) so that the picture covers ``size``, and keep the middle."""
    from PIL.Image import Resampling

    height, width = size
    scale = max(height / picture.height, width / picture.width)
    scaled = (
        max(width, round(picture.width * scale)),
        max(height, round(picture.height * scale)),
    )
    if scaled != picture.size:
        picture = picture.resize(scaled, Resampling.BILINEAR)
    left, top = (scaled[0] - width) // 2, (scaled[1] - height) // 2
    return picture.crop((left, top, left + width, top + height))
