"""Count what fires: neurons, and the links that leave them, over all images of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from topospike.snn.batches import in_shares
from topospike.snn.coding import SiteState
from topospike.snn.fused import DTYPES, Kept, worth_a_loop
from topospike.snn.site import Site, decoded_of
from topospike.wiring.images import ImageAxis, memory_order
from topospike.wiring.layers import Feed

FIRST = ImageAxis(0, 1)
COUNTED = {*DTYPES, torch.uint8, torch.bool}
TILE = 1 << 12
"""Neurons that are counted together, so that their counts stay in the nearest cache."""
NOTHING = 1e-5
"""Share of a threshold below which a decoded value is 0."""


def images_firing(
    values: Tensor, images: ImageAxis = FIRST, counted: Tensor | None = None
) -> Tensor:
    """Return in how many images of a batch each number is not 0, float32, of one image's shape.

    Parameters
    ----------
    values
        Of a batch.
    images
        How its images lie in them; by default along the first axis.
    counted, optional
        Which numbers of each image count, bool, broadcastable to (images, shape of one image).

    Examples
    --------
    >>> images_firing(torch.tensor([[0.5, 0.0], [-1.0, 0.0], [0.0, 0.25]])).tolist()
    [2.0, 1.0]
    """
    found = images.by_image(values).ne(0)
    return (found if counted is None else found & counted).sum(0, dtype=torch.float32)


def weighted_sum(counts: Tensor, links: Tensor) -> float:
    """Return the sum of counts times links, exact in float64."""
    return float(torch.dot(counts.flatten().double(), links.flatten()))


class SiteSums:
    """Sums at every step over the neurons of a site that fire, in all images of a batch.

    Parameters
    ----------
    site
        Its name.
    images
        How the images of a batch lie in its values.
    dense
        Whether links that are missing count.

    Attributes
    ----------
    neurons : Tensor or None
        Where the neurons themselves are added to, float64 (time steps,).
    feeds : list of (Feed, Tensor)
        Whose links are summed, and where they are added to.
    ran : bool
        Whether the site has sent anything that could be counted.
    """

    def __init__(self, site: str, images: ImageAxis, *, dense: bool) -> None:
        self.site, self.images, self.dense = site, images, dense
        self.neurons: Tensor | None = None
        self.feeds: list[tuple[Feed, Tensor]] = []
        self.ran = False
        self._links: dict[tuple[int, ...], Tensor] = {}

    def add(self, kept: Kept, counted: Tensor | None, t: int, steps: int) -> None:
        """Add what the site has left of the steps from t on; ``counted`` as in `images_firing`."""
        sent = kept.spikes if kept.codes is None else kept.codes
        if sent is None:
            if self.feeds:
                raise RuntimeError(f"what {self.site} sent was not kept")
            return
        self.ran = True
        rows, silent = self.images.by_image(sent), 0 if kept.codes is None else kept.shift
        if counted is not None:
            by_step = rows.ne(silent).unflatten(0, (steps, -1))
            rows, silent = (by_step & counted).flatten(0, 1), 0
        order = tuple(memory_order(rows[0]))
        if order not in self._links:
            self._links[order] = self._laid_out(rows[0])
        sent = in_memory_order(rows)
        sums = firing_sums(sent, self._links[order], steps=steps, silent=silent)
        into = [self.neurons, *(total for _, total in self.feeds)]
        for total, found in zip(into, sums, strict=True):
            if total is not None:
                total.numpy()[t - 1 : t - 1 + steps] += found

    def _laid_out(self, like: Tensor) -> Tensor:
        """Return the links of each feed, float64 (feeds, neurons), as one image lies in memory."""
        rows = [feed.laid_out(like, dense=self.dense) for feed, _ in self.feeds]
        if len(rows) == 1:  # its own: no second copy
            return rows[0][None]
        none = torch.empty(0, like.numel(), dtype=torch.float64, device=like.device)
        return torch.stack(rows) if rows else none


def firing_sums(sent: Tensor, links: Tensor, *, steps: int = 1, silent: int = 0) -> Any:
    """Return how many neurons fired at each step, and over how many links, in all images.

    Parameters
    ----------
    sent
        What was sent, (steps x images, neurons): spikes, or codes of these.
    links
        Whole numbers, float64 (layers, neurons).
    steps
        How many steps follow one another.
    silent
        The code of a neuron that did not fire.

    Returns
    -------
    numpy array, float64, shape (1 + layers, steps)
        Exact.

    Examples
    --------
    >>> sent = torch.tensor([[0.5, 0.0], [-1.0, 0.25]])
    >>> firing_sums(sent, torch.tensor([[10.0, 1.0]]).double()).tolist()
    [[3.0], [21.0]]
    >>> firing_sums(sent, torch.tensor([[10.0, 1.0]]).double(), steps=2).tolist()
    [[1.0, 2.0], [10.0, 11.0]]
    """
    rows = sent.unflatten(0, (steps, -1))
    if not pays(sent):
        counts = rows.ne(silent).sum(1, dtype=torch.float64)
        return torch.stack([counts.sum(1), *(counts @ one for one in links)]).cpu().numpy()
    from topospike.snn.kernels import firing_loop

    values, weights, found = rows.numpy(), links.numpy(), []
    nothing = values.dtype.type(silent)

    def share(begin: int, end: int) -> int:
        counts = np.empty(TILE, np.uint8 if values.itemsize == 1 else values.dtype)
        sums = np.zeros((1 + len(weights), steps))
        firing_loop(values, nothing, weights, counts, sums, begin, end)
        found.append(sums)
        return 0

    in_shares(share, values.shape[2], values.size)
    return sum(found[1:], found[0])


def in_memory_order(batch: Tensor) -> Tensor:
    """Return a batch as (images, numbers), these as one image lies in memory.

    Examples
    --------
    >>> image = torch.arange(6.0).view(1, 2, 3).mT  # of three rows, one a column in memory
    >>> in_memory_order(image).tolist()
    [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    """
    return batch.permute(0, *(1 + axis for axis in memory_order(batch[0]))).flatten(1)


def pays(values: Tensor) -> bool:
    """Tell whether there is a compiled loop over some values, and it is worth it."""
    return values.device.type == "cpu" and values.dtype in COUNTED and worth_a_loop(values)


class Active:
    """In how many images each neuron of a site has decoded something, up to now.

    Attributes
    ----------
    counts : Tensor, int32
        Of one image's shape.
    """

    def __init__(self, site: Site) -> None:
        # what is taken back leaves no more than rounding
        theta = site.threshold
        self.least = NOTHING * theta if theta.numel() else theta.new_zeros(())
        self.counts = torch.zeros((), dtype=torch.int32)
        self._order: list[int] | None = None
        self._rows: Any = None

    def add(self, state: SiteState, images: ImageAxis, counted: Tensor | None) -> None:
        """Add a batch after its last step."""
        decoded = decoded_of(state)
        if images != FIRST or counted is not None or not pays(decoded):
            found = images_firing(decoded.abs() > self.least, images, counted)
            self.counts, self._order = self.counts.to(found.device) + found.int(), None
            return
        from topospike.snn.kernels import above_loop

        if (order := memory_order(decoded[0])) != self._order:
            self._lay_out(decoded[0], order)
        rows, (counts, least) = in_memory_order(decoded).numpy(), self._rows
        in_shares(lambda i, j: above_loop(rows, least, counts, i, j), counts.size, rows.size)

    def _lay_out(self, like: Tensor, order: list[int]) -> None:
        """Lay counts and bounds out as one image lies in memory."""
        counts = torch.empty_permuted(like.shape, order, dtype=torch.int32).copy_(self.counts)
        least = self.least.to(like).expand_as(like[None])[0].permute(order).flatten()
        self.counts, self._order = counts, order
        self._rows = counts.permute(order).flatten().numpy(), least.numpy()
