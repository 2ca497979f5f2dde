"""Streams: frames shown one after the other to a network that keeps its state.

A sigma-delta network holds what it has decoded. A new frame starts from there, so the neurons say
only what is different from the frame before, and where nothing has moved nothing fires. The bounds
of a single image hold for every frame: at silence each decoded value is within three quarters of
its smallest threshold of the activation, whatever came before, so errors do not add up.

A stream shows the *current* frame: its outputs at frame f tend to the ANN's on frame f. Input whose
frames are parts of one observation, to be taken together (counts of an event camera in successive
time bins), is another matter: there a network should see the mean of the frames so far
(``topospike.convert(..., input="frames")``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from topospike.errors import ConfigError, ShapeError
from topospike.measure.conventions import Conventions
from topospike.measure.energy import EnergyModel
from topospike.measure.energy import energy_model as energy_model_of
from topospike.measure.operations import OperationCounter
from topospike.models.inputs import Inputs
from topospike.snn.executors import EXECUTORS
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import Block, StepRecord


@dataclass(frozen=True)
class FrameRecord:
    """What one frame did to a stream; counts and energy are those of this frame, per sequence.

    Attributes
    ----------
    frame : int
        Which frame, from 0.
    steps : int
        Time steps it was shown for.
    logits : Tensor, shape (batch, classes)
        The prediction after them; valid until the next frame, ``clone()`` what is to be kept.
    events : float
        Neurons that fired, each step counted.
    sops, macs : float
        Synaptic operations, and what is left of multiply-accumulates.
    energy_joule : float
        Their energy.
    ann_energy_joule : float
        What the ANN costs on a frame, on its existing links.
    """

    frame: int
    steps: int
    logits: Tensor
    events: float
    sops: float
    macs: float
    energy_joule: float
    ann_energy_joule: float


def stream(
    snn: SpikingNetwork,
    frames: Iterable[Inputs],
    steps: int = 2,
    *,
    first: int | None = None,
    conventions: Conventions | None = None,
    energy_model: str | EnergyModel = "45nm",
    executor: str | None = None,
) -> Iterator[FrameRecord]:
    """Show frames to a network that keeps its state, and yield what each of them did.

    Parameters
    ----------
    snn
        A network converted by ``sigma-delta``; with ``pixels=True`` its first layer is counted by
        events as well, instead of a MAC for each link and frame.
    frames
        The frames in order, each a batch (sequences, ...) of one frame of every sequence.
    steps
        Time steps a frame is shown for.
    first
        The same for the first frame, which everything is new in; default: 4 more.
    conventions, energy_model
        As in `topospike.evaluate`.
    executor
        As in `SpikingNetwork.forward`.

    Raises
    ------
    ConfigError
        If the coding does not keep its values, or a number of steps is below 1.
    ShapeError
        If the number of sequences changes between frames, or a frame is not of the shape the
        network was converted for.
    NonFiniteError
        If a frame holds NaN or infinity.

    Examples
    --------
    The second frame repeats the first, and costs next to nothing.

    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(64, 4, generator=torch.Generator().manual_seed(0))
    >>> snn = ts.convert(model, "sigma-delta", calibration=[x], pixels=True)
    >>> start, again = snn.stream([x, x], steps=2, first=12)
    >>> start.sops > 50, again.sops, again.macs
    (True, 0.0, 0.0)
    """
    snn.require_settling("a stream")
    if snn.report.input != "image":
        raise ConfigError(
            f"the network was converted with input={snn.report.input!r}, so it sees the mean of "
            "its frames; a stream shows the present one. Convert with input='image'."
        )
    first = steps + 4 if first is None else first
    if steps < 1 or first < 1:
        raise ConfigError(
            f"steps is {steps} and first is {first}; every frame needs at least one time step."
        )
    prices = energy_model_of(energy_model)
    chosen = EXECUTORS[snn.executor if executor is None else executor]
    counter = OperationCounter(snn, max(steps, first), conventions or Conventions())
    program = snn.program(chosen, counter.watched)
    names = [site.name for site in program.sites]
    state, t, sequences = None, 0, None
    for number, frame in enumerate(frames):
        inputs = snn.inputs.leaves(frame)
        if sequences is None:
            sequences = len(inputs[0])
        elif len(inputs[0]) != sequences:
            raise ShapeError(
                f"frame {number} has {len(inputs[0])} sequences, those before it {sequences}; a "
                "stream keeps the state of each sequence from frame to frame. Start a new stream "
                "where the batch changes."
            )
        shown = first if number == 0 else steps
        state = program.start(inputs, state)
        counter.begin_frame(sequences)
        events, logits = 0, torch.empty(0)
        for local in range(1, shown + 1):
            t += 1
            logits, state = program.step(t, state)
            held = dict(zip(names, state.sites, strict=True))
            record = StepRecord(local, logits, state.values, held)
            kept = dict(zip(names, state.kept, strict=True))
            counter.observe(Block((record,), logits[None], kept))
            events += int(snn.spikes_of_images(held).sum())
        layers = counter.per_image()
        sops = sum(layer.sops[shown - 1] for layer in layers)
        macs = counter.macs_per_image()[shown - 1]
        yield FrameRecord(
            frame=number,
            steps=shown,
            logits=logits,
            events=events / sequences,
            sops=sops,
            macs=macs,
            energy_joule=prices.joule(macs=macs, sops=sops),
            ann_energy_joule=prices.joule(macs=sum(layer.macs for layer in layers), sops=0),
        )
