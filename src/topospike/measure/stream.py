"""Runs that end in silence: single images, and streams of frames to a network with its state kept.

A sigma-delta network falls silent once it has said what it was shown: after how many steps, and for
how much energy, differs from image to image.

It also holds what it has decoded. A new frame starts from there, so the neurons say only what is
different from the frame before, and where nothing has moved nothing fires. The bounds of a single
image hold for every frame: at silence each decoded value is within three quarters of its smallest
threshold of the activation, whatever came before, so errors do not add up.

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

from topospike.contracts import Settling
from topospike.errors import ConfigError, MissingDataError, ShapeError
from topospike.measure.counting.conventions import Conventions
from topospike.measure.counting.operations import OperationCounter
from topospike.measure.energy import EnergyModel
from topospike.measure.energy import energy_model as energy_model_of
from topospike.models.inputs import Batch, Inputs
from topospike.snn.executors import EXECUTORS
from topospike.snn.executors.choice import executor_for
from topospike.snn.executors.steps import blocks
from topospike.snn.network import AT_MOST, SpikingNetwork
from topospike.snn.records import Block, StepRecord


def settling(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    images: int = 64,
    *,
    at_most: int = AT_MOST,
    conventions: Conventions | None = None,
    energy_model: str | EnergyModel = "45nm",
) -> Settling:
    """Run single images until no neuron fires: the distribution behind the means of `evaluate`.

    A network that falls silent spends on each image what that image needs, so an average says
    little about one answer. Images run one at a time, and counts are exact for each.

    Parameters
    ----------
    snn
        A network converted by ``sigma-delta``.
    batches
        As in `evaluate`; labels are not read.
    images
        How many images to run, from the first batches on.
    at_most
        Steps after which a run ends anyway.
    conventions, energy_model
        As in `evaluate`.

    Returns
    -------
    Settling
        Steps, energy in joules and whether silence was reached for each image; spikes per step.

    Raises
    ------
    ConfigError
        If the network's neurons never fall silent, or a number is below 1.
    MissingDataError
        If there is no image.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(32, 4, generator=torch.Generator().manual_seed(0))
    >>> run = settling(ts.convert(model, "sigma-delta", calibration=[x]), [x], images=5)
    >>> len(run.steps), all(run.silent), run.spikes[-1]
    (5, True, 0.0)
    """
    snn.require_settling("a run until silence")
    if images < 1 or at_most < 1:
        raise ConfigError(f"images is {images} and at_most {at_most}; 1 or more are required.")
    prices = energy_model_of(energy_model)
    counter = OperationCounter(snn, at_most, conventions or Conventions())
    steps, silent, joule = [], [], []
    spikes = [0.0] * at_most
    for image in single_images(snn, batches, images):
        counter.begin_batch(1, image)
        counter.begin_frame(1)
        last, quiet = 0, False
        program = snn.program(executor_for(snn, None, image, at_most), counter.watched)
        shown = snn.shown(image, at_most)
        for block in blocks(program, shown, at_most, record=True):
            counter.observe(block)
            (step,) = block.steps
            fired = int(snn.spikes_of_images(step.sites))
            spikes[step.t - 1] += fired
            last = step.t if fired else last
            quiet = step.silent
            if quiet:
                break
        steps.append(last)
        silent.append(quiet)
        joule.append(prices.joule(macs=float(counter.macs.sum()), sops=float(counter.sops.sum())))
    if not steps:
        raise MissingDataError("there is no image to run; at least one is required.")
    shown = min(max(steps) + 1, at_most)
    mean = tuple(count / len(steps) for count in spikes[:shown])
    return Settling(tuple(steps), tuple(silent), tuple(joule), mean, at_most)


def single_images(
    snn: SpikingNetwork, batches: Iterable[Batch], images: int
) -> Iterator[tuple[Tensor, ...]]:
    """Yield the inputs of one image after the other."""
    left = images
    for number, batch in enumerate(batches):
        inputs, _ = snn.split(batch, f"batch {number}")
        axis = 0 if snn.report.input == "image" else 1
        found = inputs[0].shape[axis]
        for place in range(min(left, found)):
            yield tuple(tensor.narrow(axis, place, 1) for tensor in inputs)
        left -= found
        if left <= 0:
            return


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
