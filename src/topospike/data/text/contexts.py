"""A stretch of tokens, cut into contexts of one length; each token's label is the next one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from topospike.data.loader import SplitBatches
from topospike.data.seeds import AUGMENT, stream_seed


@dataclass(frozen=True)
class Contexts:
    """Tokens in their order, read ``length`` at a time without overlap.

    A context needs one token more than its length, the label of its last one, which is the first
    token of the context after it. What is left at the end, too short for a context, is not read.

    Examples
    --------
    >>> some = Contexts(torch.arange(8, dtype=torch.uint8), 3)
    >>> len(some), some.windows(torch.arange(2)).tolist()
    (2, [[0, 1, 2, 3], [3, 4, 5, 6]])
    """

    tokens: Shaped[Tensor, " token"]
    length: int

    def __len__(self) -> int:
        return max(0, len(self.tokens) - 1) // self.length

    def to(self, device: torch.device | str) -> Contexts:
        """Keep the tokens on ``device``."""
        return Contexts(self.tokens.to(device), self.length)

    def first(self, contexts: int | None) -> Contexts:
        """Return the stretch of the first contexts, or all of it."""
        tokens = self.tokens if contexts is None else self.tokens[: contexts * self.length + 1]
        return Contexts(tokens, self.length)

    def windows(
        self, rows: Int64[Tensor, " row"], *, shift: int = 0
    ) -> Int64[Tensor, "row window"]:
        """Return contexts with the token behind each; shifted by so many tokens to the right.

        A shifted context that would reach over the end is moved back to it.
        """
        device = self.tokens.device
        starts = rows.to(device) * self.length + shift
        starts = starts.clamp(max=len(self.tokens) - self.length - 1)
        places = starts[:, None] + torch.arange(self.length + 1, device=device)
        return self.tokens[places].to(torch.int64)


class ContextBatches(SplitBatches):
    """Batches of contexts: tokens, and the token after each.

    Parameters
    ----------
    contexts
        Moved to ``device`` once.
    shifts
        Cut the contexts of every epoch at another place, drawn from the seed and the epoch, so
        that no token is always the first one of its context.
    batch_size, seed, shuffle, device
        As of `topospike.data.Batches`.

    Notes
    -----
    Iterating gives ``x`` and ``y``, int64 (batch, token); ``y[:, i]`` is the token after
    ``x[:, i]``.

    Examples
    --------
    >>> some = Contexts(torch.arange(8, dtype=torch.uint8), 3)
    >>> [(x.tolist(), y.tolist()) for x, y in ContextBatches(some, batch_size=2)]
    [([[0, 1, 2], [3, 4, 5]], [[1, 2, 3], [4, 5, 6]])]
    """

    def __init__(
        self,
        contexts: Contexts,
        *,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = False,
        shifts: bool = False,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(batch_size=batch_size, seed=seed, shuffle=shuffle, device=device)
        self._contexts, self._shifts = contexts.to(self.device), shifts

    @property
    def images(self) -> int:
        """Number of contexts."""
        return len(self._contexts)

    def _shift(self, epoch: int) -> int:
        """Return by how many tokens the contexts of an epoch are shifted."""
        if not self._shifts:
            return 0
        generator = torch.Generator().manual_seed(stream_seed(self._seed, epoch, AUGMENT, 0))
        return int(torch.randint(self._contexts.length, (), generator=generator))

    def __iter__(self) -> Iterator[tuple[Int64[Tensor, "batch token"], Tensor]]:
        epoch = self._epoch
        shift = self._shift(epoch)
        for rows in self._order(epoch):
            found = self._contexts.windows(rows, shift=shift)
            yield found[:, :-1].contiguous(), found[:, 1:].contiguous()
