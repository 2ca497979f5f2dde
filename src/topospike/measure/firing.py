"""Count which neurons fired, in how many images of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.snn.batches import in_shares
from topospike.snn.fused import DTYPES, Kept, worth_a_loop
from topospike.wiring.images import ImageAxis, memory_order

FIRST = ImageAxis(0, 1)
COUNTED = {*DTYPES, torch.uint8, torch.bool}
NO_WEIGHTS = np.empty(0)


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


def counts_of_images(sent: Tensor, steps: int, silent: int = 0) -> Tensor:
    """Return in how many images of a batch each neuron sent something, float32, (steps, ...).

    Parameters
    ----------
    sent
        What was sent, some steps of all images one after the other along the first axis.
    steps
        How many steps.
    silent
        What stands for nothing.

    Examples
    --------
    >>> counts_of_images(torch.tensor([[0, 1], [2, 1]]), steps=1)
    tensor([[1., 2.]])
    """
    if not pays(sent):
        return sent.ne(silent).unflatten(0, (steps, -1)).sum(1, dtype=torch.float32)
    from topospike.snn.kernels import counts_loop

    rows, counts, sums = rows_and_counts(sent, steps)
    nothing = rows.dtype.type(silent)
    in_shares(lambda i, j: counts_loop(rows, nothing, sums[:, 0], i, j), sums.shape[2], rows.size)
    return counts


def counts_above(values: Tensor, least: Tensor) -> Tensor:
    """Return in how many images of a batch the size of a value is above ``least``, float32.

    Examples
    --------
    >>> counts_above(torch.tensor([[0.0, -1.0], [0.5, 3.0]]), torch.tensor([0.5, 0.5]))
    tensor([0., 2.])
    """
    if not pays(values):
        return (values.abs() > least).sum(0, dtype=torch.float32)
    from topospike.snn.kernels import above_loop

    rows, counts, sums = rows_and_counts(values, 1)
    bounds = least.to(values).expand_as(values[:1])[0].permute(memory_order(values[0])).flatten()
    least_of, row = bounds.numpy(), sums[0, 0]
    in_shares(lambda i, j: above_loop(rows[0], least_of, row, i, j), row.size, rows.size)
    return counts[0]


def weighted_counts(counts: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the sum of counts times weights at each step, exact in float64.

    Parameters
    ----------
    counts
        Whole numbers (steps, shape of one image).
    weights
        Whole numbers, float64, as a step of the counts lies in memory; default all 1.
    """
    order = (0, *(1 + axis for axis in memory_order(counts[0])))
    rows = counts.permute(order).flatten(1)
    if not pays(rows):
        rows = rows.double()
        return rows.sum(1) if weights is None else rows @ weights
    from topospike.snn.kernels import weighted_loop

    sums = torch.empty(len(rows), dtype=torch.float64)
    factors = NO_WEIGHTS if weights is None else weights.numpy()
    weighted_loop(rows.numpy(), factors, sums.numpy())
    return sums


def pays(values: Tensor) -> bool:
    """Tell whether there is a compiled loop over some values, and it is worth it."""
    return values.device.type == "cpu" and values.dtype in COUNTED and worth_a_loop(values)


def rows_and_counts(sent: Tensor, steps: int) -> tuple[Any, Tensor, Any]:
    """Return values as (steps, images, neurons), zeros (steps, ...) for one image, and as rows."""
    order = (0, *(1 + axis for axis in memory_order(sent[0])))
    counts = torch.empty_permuted((steps, *sent.shape[1:]), order, dtype=torch.float32).zero_()
    rows, sums = (
        tensor.permute(order).reshape(steps, len(tensor) // steps, -1).numpy()
        for tensor in (sent, counts)
    )
    return rows, counts, sums
