"""Simulate: how a batch is divided on a CPU, and when several steps are taken together.

Few images leave the processor waiting for weights, many push the state of a run out of its cache.

The compiled loops release the interpreter, so plain threads run them at the same time, as many as
torch uses (``torch.set_num_threads``). Rows never depend on each other: the result is the same for
any number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from topospike.models.inputs import rows_of
from topospike.wiring.graph import site_calls
from topospike.wiring.images import ImageAxis

if TYPE_CHECKING:
    from topospike.snn.executors import Executor, Program
    from topospike.snn.frames import Shown
    from topospike.snn.network import SpikingNetwork

LEAST_IMAGES = 16
"""Smallest part into which a batch is divided; below it matrix products lose more than is won."""

ENOUGH = 1 << 17
"""Elements below which handing work to another thread costs more than it saves."""

LEAST_STEPS = 32
"""Smallest number of images times steps that are taken together where steps come first."""


def images_at_once(ann: fx.GraphModule) -> int:
    """How many images of a batch, at least, run through all their steps together on a CPU.

    Few, so that their state stays in the processor's cache from step to step; but so many that the
    state outweighs the weights, which have to be fetched for every part. `SpikingNetwork.forward`
    and `topospike.evaluate` divide a batch; `SpikingNetwork.steps` and `SpikingNetwork.watch` show
    whole ones.
    """
    weights = sum(parameter.nbytes for parameter in ann.parameters())
    shapes = [node.meta["val"].shape for node in site_calls(ann) if "val" in node.meta]
    item = max((p.element_size() for p in ann.parameters()), default=4)
    state = item * sum(math.prod(int(size) for size in shape[1:]) for shape in shapes)
    return max(LEAST_IMAGES, math.ceil(weights / max(state, 1)))


def division(
    snn: SpikingNetwork,
    shown: Shown,
    timesteps: int,
    executor: Executor,
    program: Program | None = None,
) -> tuple[int, int]:
    """How many images run through their steps together, at least, and how many steps at once.

    Every step fetches all weights; with one image that is most of its time. But no layer depends on
    what later layers did in earlier steps, so steps can take the place of further images, as many
    as make, with the images, a batch of `images_at_once`; only the sites take them one after the
    other. That needs a CPU, and a graph in which the first axis counts images wherever something is
    kept from step to step: at sites, and at layers of ``steps_first`` executors, which keep sums.
    These, whose layers take less time than what is kept, divide larger batches for it too.
    ``program`` is what is run, if it is not that of the executor alone.
    """
    inputs = shown.first
    images = rows_of(inputs)
    if inputs[0].device.type != "cpu" or images == 0:
        return max(1, images), 1
    program = program or snn.program(executor)
    most = program.images_at_once
    most = max(most, LEAST_STEPS) if executor.steps_first else most
    few = min(images, max(1, most // timesteps) if executor.steps_first else images)
    together = min(timesteps, most // few)
    if executor.follows_events or not shown.is_constant or together < 2:
        return most, 1
    first = counts_images_first(snn, inputs) and program.counts_images(inputs)
    first = first and (not executor.steps_first or layers_count_images_first(snn))
    return (few if executor.steps_first else most, together) if first else (most, 1)


@torch.no_grad()
def counts_images_first(snn: SpikingNetwork, inputs: tuple[Tensor, ...]) -> bool:
    """Tell whether all sites and the output count images along their first axis.

    For the output two and three blank images are sent through the ANN; the answer is remembered.
    """
    if snn.steps_as_images is None:
        first = all(site.images == ImageAxis(0, 1) for site in snn.populations.values())
        blank = ([x.new_zeros(images, *x.shape[1:]) for x in inputs] for images in (2, 3))
        snn.steps_as_images = first and [len(snn.ann(*tensors)) for tensors in blank] == [2, 3]
    return snn.steps_as_images


def layers_count_images_first(snn: SpikingNetwork) -> bool:
    """Tell whether the first axis counts images, before places of these, in every layer's operand.

    Sites may do so where a layer between them does not (tokens first, say).
    """
    lying = (layer.images for layer in snn.wiring if layer.images is not None)
    return all(images.axis == 0 and images.leading for images in lying)


def in_shares(work: Callable[[int, int], int], rows: int, elements: int) -> int:
    """Call ``work(begin, end)`` on shares of ``range(rows)`` at once; return the sum of results."""
    threads = min(torch.get_num_threads(), rows)
    if threads < 2 or elements < ENOUGH:
        return work(0, rows)
    bounds = [rows * i // threads for i in range(threads + 1)]
    return sum(pool(threads).map(work, bounds[:-1], bounds[1:]))


@cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Return the threads; they are kept between calls."""
    return ThreadPoolExecutor(threads, thread_name_prefix="topospike")
