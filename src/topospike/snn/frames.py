"""Simulate: input that changes with time. Step t reads frame x_t; the network sees the mean so far.

    m_t = (1/t) sum_{k<=t} x_k = m_{t-1} + (x_t - m_{t-1}) / t

In decoded values a constant image x enters as its own running mean; so what depends on the input
alone is evaluated on m_t, and sites and codings are as they are. Of rate coding that is the sum of
what has arrived, divided by t; of differential coding the input is itself coded, with the exact
spike ``x_t - m_{t-1}``. With ``hold`` each frame is shown for several steps, and counts so often in
the mean; after the last one the mean stays. A network that was trained through time reads the
present frame instead.

An image is one frame, shown for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from topospike.errors import ConfigError, ShapeError
from topospike.models.inputs import InputForm, Inputs, leaves, mapped, rows_of
from topospike.registry import suggestion

INPUTS = {
    "image": "one image, constant in time",
    "frames": "frames of real numbers, one after the other",
    "events": "frames of counts of events, one after the other",
}


def check_input(name: str) -> None:
    """Raise `ConfigError` for an input that is none of `INPUTS`.

    Examples
    --------
    >>> check_input("frame")
    Traceback (most recent call last):
    ...
    topospike.errors.ConfigError: input='frame' is unknown. Known: image, frames, events. Did you mean 'frames'?
    """  # noqa: E501
    if name not in INPUTS:
        raise ConfigError(
            f"input={name!r} is unknown. Known: {', '.join(INPUTS)}.{suggestion(name, INPUTS)}"
        )


def running_means(frames: Tensor) -> Iterator[Tensor]:
    """Yield the mean of the first 1, 2, ... frames of ``(frame, batch, ...)``.

    Examples
    --------
    >>> import torch
    >>> [float(mean) for mean in running_means(torch.tensor([4.0, 0.0, 2.0]))]
    [4.0, 2.0, 2.0]
    """
    mean = frames[0]
    yield mean
    for count, frame in enumerate(frames[1:], start=2):
        mean = mean + (frame - mean) / count
        yield mean


def mean_of(frames: Inputs) -> Inputs:
    """Return the mean of all frames, as a run has it after the last one."""

    def last(tensor: Tensor) -> Tensor:
        if tensor.ndim < 2 or not len(tensor):
            raise ShapeError(
                f"frames of shape {tuple(tensor.shape)} were given; (frame, batch, ...) with at "
                "least one frame is required."
            )
        *_, mean = running_means(tensor)
        return mean

    return mapped(last, frames)


def check_counts(frames: Inputs, what: str) -> None:
    """Raise `ConfigError` unless every entry of the frames is a number of events."""
    for tensor in leaves(frames):
        wrong = (tensor < 0) | (tensor != tensor.round())
        if bool(wrong.any()):
            value = float(tensor[wrong][0])
            raise ConfigError(
                f"{what} holds {value:g}, which is no number of events; whole numbers from 0 on "
                "are required with input='events'. Use input='frames' for real numbers, or two "
                "channels, one for each polarity, for signed ones."
            )


@dataclass(frozen=True)
class Moment:
    """What a network is shown at one step.

    Attributes
    ----------
    inputs : tuple of Tensor
        What it is evaluated on.
    changed : bool
        Whether that is not what it was at the step before.
    arrived : tuple of Tensor or None
        The frame, where it is read for the first time.
    shown : tuple of Tensor or None
        The frame that is read; ``None`` after the last one.
    """

    inputs: tuple[Tensor, ...]
    changed: bool
    arrived: tuple[Tensor, ...] | None
    shown: tuple[Tensor, ...] | None


@dataclass(frozen=True)
class Shown:
    """What a run is shown: frames of every input, each for ``hold`` steps.

    Parameters
    ----------
    frames : tuple of Tensor, each (frame, batch, ...)
        One for each input of the network.
    hold
        Steps a frame is shown for.
    mean
        Whether the network sees the running mean, or the present frame.

    Examples
    --------
    >>> import torch
    >>> shown = Shown((torch.tensor([[4.0], [0.0]]),), hold=1)
    >>> [(float(moment.inputs[0]), moment.changed) for moment in shown.moments(3)]
    [(4.0, True), (2.0, True), (2.0, False)]
    """

    frames: tuple[Tensor, ...]
    hold: int = 1
    mean: bool = True

    @property
    def first(self) -> tuple[Tensor, ...]:
        """What the network is evaluated on at step 1."""
        return tuple(tensor[0] for tensor in self.frames)

    @property
    def is_constant(self) -> bool:
        """Whether there is one frame."""
        return len(self.frames[0]) == 1

    @property
    def length(self) -> int:
        """Steps in which frames are read."""
        return 1 if self.is_constant and self.mean else len(self.frames[0]) * self.hold

    def divided(self, images: int) -> Iterator[Shown]:
        """Yield parts of the batch, of so many images at least if there are as many."""
        parts = max(1, rows_of(self.first) // images)
        split = (tensor.tensor_split(parts, dim=1) for tensor in self.frames)
        for frames in zip(*split, strict=True):
            yield replace(self, frames=frames)

    def moments(self, timesteps: int) -> Iterator[Moment]:
        """Yield what is shown at t = 1..timesteps."""
        inputs = self.first
        yield Moment(inputs, True, inputs, inputs)
        for t in range(2, timesteps + 1):
            number, later = divmod(t - 1, self.hold)
            if number >= len(self.frames[0]):
                yield Moment(inputs, False, None, None)
                continue
            frame = tuple(tensor[number] for tensor in self.frames)
            changed = not self.is_constant and (self.mean or later == 0)
            if changed and self.mean:
                inputs = tuple(m + (x - m) / t for m, x in zip(inputs, frame, strict=True))
            elif changed:
                inputs = frame
            yield Moment(inputs, changed, None if later else frame, frame)


def check_run(timesteps: int, hold: int | None, kind: str) -> None:
    """Raise `ConfigError` for a number of steps that cannot be run."""
    if timesteps < 1:
        raise ConfigError(
            f"timesteps is {timesteps}; at least 1 is required. Pass timesteps=8 for DCGS, "
            "16 or more for rate coding."
        )
    if hold is not None and (hold < 1 or kind == "image"):
        raise ConfigError(
            f"hold is {hold}; 1 or more steps a frame are possible, and only for a network "
            "converted with input='frames' or 'events'. Leave it out."
        )


def tensors_of(form: InputForm, x: Inputs, kind: str) -> tuple[Tensor, ...]:
    """Return images, or frames of every input, in the network's order.

    Parameters
    ----------
    form
        What the network takes at a step.
    x
        Images (batch, ...), or frames (frame, batch, ...): a tensor, a tuple or a dictionary.
    kind
        One of `INPUTS`.

    Raises
    ------
    ShapeError
        If there are too many or too few axes, or other sizes than the network was converted for.
    ConfigError, NonFiniteError
        As for images; also if an entry is no number of events and must be one.
    """
    if kind == "image":
        return form.leaves(x)
    for name, shape, tensor in zip(form.names, form.shapes, leaves(x), strict=False):
        if tensor.ndim != len(shape) + 2 or not len(tensor):
            one = ", ".join(map(str, shape))
            raise ShapeError(
                f"the frames have shape {tuple(tensor.shape)} ({name}); (frame, batch, {one}) is "
                f"required, of which one frame is (batch, {one}). Stack the frames along a first "
                "axis; for an image use a network converted with input='image'."
            )
    count = rows_of(x)
    found = form.leaves(mapped(lambda tensor: tensor.flatten(0, 1), x))
    if kind == "events":
        check_counts(x, "the input")
    return tuple(tensor.unflatten(0, (count, len(tensor) // count)) for tensor in found)
