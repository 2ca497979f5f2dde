"""Simulate: several time steps of few images, layer by layer as one batch.

Every step fetches all weights; with one image that is most of its time. But no layer depends on
what later layers did in earlier steps: all steps of a layer can be formed at once from all steps of
the layers before it. So steps take the place of further images, and only the sites, which hold the
state, take them one after the other. The results are those of single steps up to the rounding of
the larger products.

That images do not mix is asked of every network here; that they come first wherever a site is, is
looked at, not assumed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, fx, nn

from topospike.snn.events import LayerRuns
from topospike.snn.site import Site


@torch.no_grad()
def simulate_together(
    network: fx.GraphModule,
    run: LayerRuns,
    sites: Sequence[Site],
    x: tuple[Tensor, ...],
    *,
    timesteps: int,
    together: int,
) -> Iterator[Tensor]:
    """Yield logits (time, batch, classes) of ``together`` steps at a time, of fewer at the end.

    The sites hold the run's state and have to be reset by the caller.
    """
    image_part, step_part = run.plan.parts
    cached, held = (), 0
    for before in range(0, timesteps, together):
        steps = min(together, timesteps - before)
        if steps != held:
            images = (tensor.repeat(steps, *(1 for _ in tensor.shape[1:])) for tensor in x)
            if run.plan.channels_last:
                images = (
                    tensor.contiguous(memory_format=torch.channels_last)
                    if tensor.ndim == 4
                    else tensor
                    for tensor in images
                )
            cached, held = image_part(network, *images), steps
        for site in sites:
            site.time_step, site.steps_at_once, site.record = before + 1, steps, False
        yield step_part(network, run, *cached)[0].unflatten(0, (steps, len(x[0])))


def takes_steps_as_images(
    network: fx.GraphModule, sites: Sequence[Site], x: tuple[Tensor, ...]
) -> bool:
    """Tell whether all sites are plain ones and they, as the output, count images first.

    Two and three blank images are sent through the ANN; the sizes that arrive show it.
    """
    plain = all(type(site) is Site for site in sites)
    return plain and all(first_sizes(network, sites, x, n) == {n} for n in (2, 3))


@torch.no_grad()
def first_sizes(
    network: nn.Module, sites: Sequence[Site], x: tuple[Tensor, ...], images: int
) -> set[int]:
    """Return the sizes of the first axis at all sites and of the output."""
    found: set[int] = set()

    def look(_: nn.Module, inputs: tuple[Tensor, ...], __: Tensor) -> None:
        found.add(len(inputs[0]))

    hooks = [site.register_forward_hook(look) for site in sites]
    try:
        blank = (tensor.new_zeros(images, *tensor.shape[1:]) for tensor in x)
        found.add(len(network(*blank)))
    finally:
        for hook in hooks:
            hook.remove()
    return found
