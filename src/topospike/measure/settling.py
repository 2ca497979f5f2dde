"""Runs until silence, image by image: after how many steps, and for how much energy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from torch import Tensor

from topospike.contracts import Settling
from topospike.errors import ConfigError, MissingDataError
from topospike.measure.conventions import Conventions
from topospike.measure.energy import EnergyModel
from topospike.measure.energy import energy_model as energy_model_of
from topospike.measure.operations import OperationCounter
from topospike.models.inputs import Batch
from topospike.snn.executors.choice import executor_for
from topospike.snn.executors.steps import blocks
from topospike.snn.network import AT_MOST, SpikingNetwork


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
