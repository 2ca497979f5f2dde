r"""Stage prune: the calibration images, and what they look like at the input of a layer.

The second moment :math:`H = \frac{2}{N} \sum x x^T` over all tokens or positions of N images, or
only its diagonal. N counts images, not tokens. A convolution's inputs are the patches its kernel
sees, one matrix a group, in the order of its weights; patches are made a few images at a time, so
memory does not grow with the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, fx, nn
from torch.nn import functional

from topospike.errors import ConfigError, MissingDataError, NonFiniteError, ShapeError
from topospike.models.inputs import Batch, Inputs, calibration_batches, leaves
from topospike.modes import evaluating

# Values of unfolded patches held at a time.
PATCH_VALUES = 1 << 24


class CalibrationImages:
    """Images from whatever the user gave, checked as they come, handed on a few at a time, once.

    ``first`` is the first batch, for shapes; ``count`` the number of images handed on so far.
    """

    def __init__(
        self, calibration: Iterable[Batch] | Tensor, model: nn.Module, *, chunk: int
    ) -> None:
        if chunk < 1:
            raise ConfigError(f"chunk is {chunk}; 1 or more images at a time are required.")
        self.chunk = chunk
        self.count = 0
        self.batches = map(only_tensor, calibration_batches(calibration, model))
        first = next(self.batches, None)
        if first is None:
            raise MissingDataError(
                "there are no calibration images; pass calibration=batches with at least one "
                "batch of training images, normalised as in training."
            )
        check_fit(model, first)
        self.first = first

    def __iter__(self) -> Iterator[Tensor]:
        """Hand on the images."""
        batch: Tensor | None = self.first
        while batch is not None:
            for images in batch.split(self.chunk):
                self.count += len(images)
                yield images
            batch = next(self.batches, None)


def only_tensor(x: Inputs) -> Tensor:
    """Return the one input tensor of a model; pruning walks through layers with one value."""
    found = leaves(x)
    if len(found) != 1:
        raise ConfigError(
            f"the model takes {len(found)} input tensors; pruning with images walks through models "
            "of one. Use magnitude or ri, which need no images."
        )
    return found[0]


@torch.no_grad()
def check_fit(model: nn.Module, images: Tensor) -> None:
    """Raise `ShapeError` unless the model can be run on such images."""
    try:
        with evaluating(model):
            model(images[:1])
    except (RuntimeError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ShapeError(
            f"{type(model).__name__} cannot be run on calibration images of shape "
            f"{tuple(images.shape)} ({reason}). Pass batches as in training: (batch, channel, "
            "height, width) for images, on the device and in the dtype of the model."
        ) from error


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a convolution reads its input; one entry an axis of space, none for a linear layer."""

    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1


def geometry_of(node: fx.Node, kernel: tuple[int, ...]) -> Geometry:
    """Read the geometry of a layer off its graph node; ``kernel`` is that of its weight."""
    axes = len(kernel)
    if not axes:
        return Geometry()
    stride, padding, dilation, groups = [*node.args[3:7], *(1, 0, 1, 1)[len(node.args[3:7]) :]]
    dilation = per_axis(dilation, axes)
    return Geometry(
        kernel=kernel,
        stride=per_axis(stride, axes),
        padding=both_sides(padding, kernel, dilation),
        dilation=dilation,
        groups=int(groups),  # pyright: ignore[reportArgumentType]
    )


def per_axis(value: Any, axes: int) -> tuple[int, ...]:
    """Return one number an axis, where one may stand for all."""
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return values * axes if len(values) == 1 else values


def both_sides(
    padding: Any, kernel: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[tuple[int, int], ...]:
    """Return the zeros before and behind every axis; ``same`` puts the odd one behind."""
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    if padding == "same":
        totals = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        return tuple((total // 2, total - total // 2) for total in totals)
    return tuple((width, width) for width in per_axis(padding, len(kernel)))


def input_columns(
    x: Float[Tensor, "batch ..."], geometry: Geometry
) -> Iterator[Float[Tensor, "groups inputs positions"]]:
    """Yield the inputs of the unfolded layer, one column a token or position of an image.

    Examples
    --------
    >>> image = torch.arange(4.0).view(1, 1, 2, 2)
    >>> corner = Geometry((2, 2), (1, 1), ((0, 1), (0, 1)), (1, 1))
    >>> next(input_columns(image, corner))[0].T.tolist()[1]
    [1.0, 0.0, 3.0, 0.0]
    """
    if not geometry.kernel:
        yield x.reshape(1, -1, x.shape[-1]).transpose(1, 2)
        return
    per_image = math.prod(x.shape[1:]) * math.prod(geometry.kernel)
    for images in x.split(max(1, PATCH_VALUES // max(1, per_image))):
        yield patches(images, geometry)


def patches(
    x: Float[Tensor, "batch chan ..."], geometry: Geometry
) -> Float[Tensor, "groups inputs positions"]:
    """Unfold a batch of maps as im2col does, whatever the number of spatial axes."""
    axes = len(geometry.kernel)
    x = functional.pad(x, [side for pair in reversed(geometry.padding) for side in pair])
    for axis in range(axes):
        dilation = geometry.dilation[axis]
        reach = dilation * (geometry.kernel[axis] - 1) + 1
        x = x.unfold(2 + axis, reach, geometry.stride[axis])[..., ::dilation]
    channels = x.shape[1] // geometry.groups
    x = x.reshape(x.shape[0], geometry.groups, channels, *x.shape[2:])
    space, kernel = range(3, 3 + axes), range(3 + axes, 3 + 2 * axes)
    x = x.permute(1, 2, *kernel, 0, *space)
    return x.reshape(geometry.groups, channels * math.prod(geometry.kernel), -1)


class InputMoments:
    """Second moment of what reaches one layer, collected batch by batch.

    Attributes
    ----------
    images, columns
        Images, and tokens or positions, seen so far.
    values : Tensor, shape (groups, inputs, inputs) or (groups, inputs)
        H, if ``products`` are wanted, or its diagonal, which is enough for input norms.

    Examples
    --------
    >>> seen = InputMoments("fc1", Geometry(), products=True)
    >>> seen.add(torch.tensor([[1.0, 2.0]]))
    >>> seen.values.tolist(), seen.norms.tolist()
    ([[[2.0, 4.0], [4.0, 8.0]]], [[1.0, 2.0]])
    """

    def __init__(
        self,
        layer: str,
        geometry: Geometry,
        *,
        products: bool,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.layer = layer
        self.geometry = geometry
        self.products = products
        self.dtype = dtype
        self.images = self.columns = 0
        self.values = torch.zeros(())

    def add(self, x: Float[Tensor, "batch ..."]) -> None:
        """Take in one batch of inputs of the layer.

        Raises
        ------
        NonFiniteError
            If a value is NaN or infinite, or too large to be squared.
        """
        if not bool(x.isfinite().all()):
            raise NonFiniteError(self.complaint("hold NaN or infinite values"))
        total = self.images + len(x)
        self.values = self.values.to(x.device, self.dtype) * (self.images / total)
        for columns in input_columns(x.detach(), self.geometry):
            columns = columns.to(self.dtype)
            square = columns @ columns.mT if self.products else columns.square().sum(2)
            self.values = square.mul_(2.0 / total).add_(self.values)
            self.columns += columns.shape[2]
        if not bool(self.values.isfinite().all()):
            raise NonFiniteError(self.complaint("are too large to be squared"))
        self.images = total

    @property
    def norms(self) -> Float[Tensor, "groups inputs"]:
        """L2 norm of every input over all tokens, divided by the root of the number of images."""
        square = self.values.diagonal(dim1=1, dim2=2) if self.products else self.values
        return (square / 2.0).sqrt()

    @property
    def is_deficient(self) -> bool:
        """Whether fewer inputs were seen than H has rows, so that only damping makes it regular."""
        return self.columns < self.values.shape[-1]

    def complaint(self, problem: str) -> str:
        """Say what is wrong with the inputs and what to do."""
        return (
            f"{self.layer}: the inputs of this layer {problem} for calibration images "
            f"{self.images} and following; finite activations are required. Nothing was pruned. "
            "Check the weights before this layer and the normalisation of the images."
        )
