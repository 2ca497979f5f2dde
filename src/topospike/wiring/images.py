"""Where the images of a batch are in a tensor of the graph, and what the graph is like for one.

Most tensors have the images along axis 0. Some have them along another (a transformer that takes
tokens first), some fold them into an axis with something else (windows of an image, several
views). `image_axes` finds it out by comparing a batch of two with a batch of three, so that "per
image" never means "the first row".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from topospike.errors import ConversionError

BATCHES = (2, 3)
"""Images a graph is probed with. Not one: what was captured with several need not run on one."""


@dataclass(frozen=True)
class ImageAxis:
    """The axis that counts images, alone or together with ``within`` places of each image.

    ``leading`` if the places of one image follow one another (image 0 first), else they alternate.
    """

    axis: int
    within: int
    leading: bool = True

    def by_image(self, batch: Tensor) -> Tensor:
        """Return a batch as (images, shape of one image); a view where that is possible.

        The axis is left out of one image's shape if it counts images alone.

        Examples
        --------
        >>> views = torch.arange(4).view(4, 1)  # two views of each of two images
        >>> ImageAxis(0, 2).by_image(views).tolist()
        [[[0], [1]], [[2], [3]]]
        >>> ImageAxis(0, 2, leading=False).by_image(views).tolist()
        [[[0], [2]], [[1], [3]]]
        """
        if self.within == 1:
            return batch.movedim(self.axis, 0) if self.axis else batch
        sizes = (-1, self.within) if self.leading else (self.within, -1)
        place = self.axis if self.leading else self.axis + 1
        return batch.unflatten(self.axis, sizes).movedim(place, 0)

    def together(self, images: Tensor) -> Tensor:
        """Put together what `by_image` took apart."""
        if self.within == 1:
            return images.movedim(0, self.axis)
        place = self.axis if self.leading else self.axis + 1
        return images.movedim(0, place).flatten(self.axis, self.axis + 1)


@dataclass(frozen=True, eq=False)
class Places:
    """The token that each number of a value belongs to (`topospike.wiring.tokens`).

    Attributes
    ----------
    images
        How the images of a batch lie in the value.
    token : Tensor, int64, broadcastable to the value of one image
        The place of the token in its sentence, -1 for a number that belongs to none.
    """

    images: ImageAxis
    token: Tensor

    def of_real(self, real: Tensor) -> Tensor:
        """Tell which numbers count, given which tokens are real, (batch, tokens): by image.

        Examples
        --------
        >>> places = Places(ImageAxis(0, 1), torch.tensor([[0], [1], [-1]]))
        >>> places.of_real(torch.tensor([[True, False]]))[0, :, 0].tolist()
        [True, False, True]
        """
        token = self.token.to(real.device)
        return real[:, token.clamp_min(0)] | (token < 0)

    def within(self, real: Tensor, shape: torch.Size) -> Tensor:
        """Return `of_real` as the value itself lies, broadcastable to its shape."""
        found = self.of_real(real)
        if self.images.within > 1:
            found = found.expand(self.images.by_image(torch.empty(shape, device="meta")).shape)
        return self.images.together(found)


def memory_order(tensor: Tensor) -> list[int]:
    """Return the axes of a tensor from outer to inner in memory."""
    return sorted(range(tensor.ndim), key=tensor.stride, reverse=True)


def axis_of(sizes: tuple[torch.Size, ...]) -> ImageAxis | None:
    """Return the axis of the images from the shapes of a batch of two and one of three."""
    two, three = sizes
    if len(two) != len(three):
        return None
    changed = [axis for axis, (a, b) in enumerate(zip(two, three, strict=True)) if a != b]
    if len(changed) != 1:
        return None
    (axis,) = changed
    within = three[axis] - two[axis]
    proportional = two[axis] == 2 * within and three[axis] == 3 * within
    return ImageAxis(axis, within) if within > 0 and proportional else None


def image_axes(batches: tuple[Tensor, ...]) -> list[ImageAxis]:
    """Return how images can lie in a quantity that is the same for all of them.

    None if it is not the same for every image, or has no axis of images.
    """
    axis = axis_of(tuple(batch.shape for batch in batches))
    if axis is None:
        return []
    ways = [axis] if axis.within == 1 else [axis, ImageAxis(axis.axis, axis.within, leading=False)]
    return [way for way in ways if is_same(torch.cat([way.by_image(b) for b in batches]))]


def is_same(images: Tensor) -> bool:
    """Tell whether all images are equal."""
    return bool((images == images[:1]).all())


class Probe(fx.Interpreter):
    """One run of the graph on blank images: constants and sizes as they are, else shapes.

    Attributes
    ----------
    images : int
        How many images.
    values : dict
        For each node its value if it is a constant (on the CPU) or a number, else an empty tensor
        of its shape.
    """

    def __init__(self, network: fx.GraphModule, images: int, changing: set[fx.Node]) -> None:
        super().__init__(network)
        self.images = images
        self.changing = changing
        self.values: dict[fx.Node, Any] = {}
        parameters = [p for p in network.parameters() if p.is_floating_point()]
        with torch.no_grad():
            self.run(
                *(
                    blank(node, images, parameters)
                    for node in network.graph.find_nodes(op="placeholder")
                )
            )

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and remember what the counting needs to know of it."""
        result = super().run_node(n)
        keep = (lambda value: value.cpu()) if n not in self.changing else shape_alone
        self.values[n] = tree_map(lambda v: keep(v) if isinstance(v, Tensor) else v, result)
        return result

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Pass a site's input on: its shape is wanted, not its state."""
        return args[0]


def shape_alone(value: Tensor) -> Tensor:
    """Return a tensor without values."""
    return torch.empty(value.shape, dtype=value.dtype, device="meta")


def blank(node: fx.Node, images: int, parameters: list[Any]) -> Tensor:
    """Return zeros for an input of the graph."""
    recorded = node.meta["val"]
    like = parameters[0] if parameters else torch.zeros(())
    dtype = like.dtype if recorded.is_floating_point() else recorded.dtype
    return torch.zeros(images, *recorded.shape[1:], dtype=dtype, device=like.device)


Probes = tuple[Probe, ...]


def sizes_of(node: fx.Node, probes: Probes) -> tuple[torch.Size, ...]:
    """Return the shapes of a node's value for the batches probed."""
    return tuple(probe.values[node].shape for probe in probes)


def mixed_images(place: str, sizes: tuple[torch.Size, ...]) -> ConversionError:
    """Return the error for a place where nothing can be counted per image."""
    shapes = " and ".join(str(tuple(size)) for size in sizes)
    return ConversionError(
        f"{place} has values of shape {shapes} for batches of {BATCHES[0]} and {BATCHES[1]} "
        "images: the images of a batch cannot be told apart there, or influence one another, so "
        "nothing can be counted per image. Keep one axis for the images and compute nothing "
        "across it."
    )
