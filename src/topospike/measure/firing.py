"""Count which neurons fired, in how many images of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from topospike.snn.fused import Kept, counts_of_images
from topospike.wiring.images import ImageAxis

FIRST = ImageAxis(0, 1)


def images_firing(
    spikes: Tensor,
    images: ImageAxis = FIRST,
    counted: Tensor | None = None,
    *,
    steps: int = 1,
    silent: int = 0,
) -> Tensor:
    """Return in how many images of a batch each neuron fired, float32, (steps, shape of one image).

    Parameters
    ----------
    spikes
        What a batch has sent: spikes, or codes of these.
    images
        How its images lie in them; by default along the first axis.
    counted, optional
        Which neurons of each image count, bool, broadcastable to (images, shape of one image).
    steps
        How many steps of the batch follow one another.
    silent
        The code of a neuron that did not fire.

    Examples
    --------
    >>> images_firing(torch.tensor([[0.5, 0.0], [-1.0, 0.0], [0.0, 0.25]])).tolist()
    [[2.0, 1.0]]
    >>> images_firing(torch.tensor([[0.5, 0.0], [-1.0, 0.0]]), steps=2).tolist()
    [[1.0, 0.0], [1.0, 0.0]]
    """
    rows = images.by_image(spikes)
    if counted is not None:
        by_step = rows.ne(silent).unflatten(0, (steps, -1))
        rows, silent = (by_step & counted).flatten(0, 1), 0
    return counts_of_images(rows, steps, silent)


def site_firing(
    kept: Kept, images: ImageAxis, counted: Tensor | None = None, *, steps: int = 1
) -> Tensor | None:
    """Return `images_firing` of what a site has left; ``None`` if it has not run."""
    if kept.codes is not None:
        return images_firing(kept.codes, images, counted, steps=steps, silent=kept.shift)
    if kept.spikes is None:
        return None
    return images_firing(kept.spikes, images, counted, steps=steps)


def weighted_sum(counts: Tensor, links: Tensor) -> float:
    """Return the sum of counts times links, exact in float64."""
    return float(torch.dot(counts.flatten().double(), links.flatten()))
