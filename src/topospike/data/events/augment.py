"""Random changes to frames of events, and what of the frames a network is shown.

Counts stay counts: nothing here interpolates. ``flip`` mirrors left and right, ``roll`` moves the
field around its edges, ``jitter`` lets each event fall into the bin before or after its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from topospike.data.augment import Change, parsed
from topospike.registry import Registry

Frames = Float[Tensor, "batch frame polarity height width"]


def flip(frames: Frames, probability: float, generator: Generator) -> Frames:
    """Mirror this share of the recordings left and right."""
    chosen = torch.rand(len(frames), generator=generator) < probability
    return torch.where(chosen.view(-1, 1, 1, 1, 1).to(frames.device), frames.flip(-1), frames)


def roll(frames: Frames, reach: float, generator: Generator) -> Frames:
    """Move every recording by up to so many pixels along both axes, around the edges."""
    bound = int(reach)
    ways = torch.randint(-bound, bound + 1, (len(frames), 2), generator=generator).tolist()
    moved = [one.roll(way, (-2, -1)) for one, way in zip(frames, ways, strict=True)]
    return torch.stack(moved) if moved else frames


def jitter(frames: Frames, probability: float, generator: Generator) -> Frames:
    """Move each event, with this probability, to the frame before or after; at the ends it stays.

    The mean over all frames of a recording keeps every event that is moved.
    """
    counts = frames.cpu()
    leaving = torch.binomial(counts, torch.full_like(counts, probability), generator=generator)
    later = torch.binomial(leaving, torch.full_like(counts, 0.5), generator=generator)
    earlier = leaving - later
    result = counts - leaving
    result[:, 1:] += later[:, :-1]
    result[:, -1] += later[:, -1]
    result[:, :-1] += earlier[:, 1:]
    result[:, 0] += earlier[:, 0]
    return result.to(frames.device)


EVENT_AUGMENTATIONS: Registry[Change] = Registry(
    "augmentation of events",
    {
        "flip": Change(flip, 0.5, 0.0, 1.0),
        "roll": Change(roll, 2.0, 1.0, 64.0),
        "jitter": Change(jitter, 0.1, 0.0, 1.0),
    },
)

VIEWS: Registry[Callable[[Tensor], Tensor]] = Registry(
    "view of frames",
    {
        # what an ANN is trained on: one image, the mean of the frames
        "mean": lambda frames: frames.mean(1),
        # what a network that reads frame after frame is given: the frame first
        "frames": lambda frames: frames.transpose(0, 1).contiguous(),
        # time as space: the frames side by side as channels
        "stack": lambda frames: frames.flatten(1, 2),
    },
)


class EventAugmenter:
    """The chosen changes in order, then the view.

    Parameters
    ----------
    entries
        ``name`` or ``name:strength`` of `EVENT_AUGMENTATIONS`; empty for evaluation data.
    view
        ``mean`` (batch, polarity, height, width), ``frames`` (frame, batch, polarity, height,
        width) or ``stack`` (batch, frame x polarity, height, width).

    Examples
    --------
    >>> counts = torch.tensor([[0.0, 3.0], [1.0, 1.0]]).view(1, 2, 1, 1, 2)
    >>> EventAugmenter((), "mean")(counts).flatten().tolist()
    [0.5, 2.0]
    """

    def __init__(self, entries: Iterable[str], view: str) -> None:
        chosen = [parsed(entry, EVENT_AUGMENTATIONS) for entry in entries]
        self.entries, self.view = tuple(entries), view
        self._changes = [(EVENT_AUGMENTATIONS[name].make, strength) for name, strength in chosen]
        self._view = VIEWS[view]

    @torch.no_grad()
    def __call__(
        self, frames: Frames, *, seed: int | None = None, mirrored: Tensor | None = None
    ) -> Tensor:
        """Return the view of a batch, changed at random if there is a seed.

        ``mirrored`` is for the alternating flips of images, which events do not have.
        """
        if seed is not None:
            generator = torch.Generator().manual_seed(seed)
            for change, strength in self._changes:
                frames = change(frames, strength, generator)
        return self._view(frames)
