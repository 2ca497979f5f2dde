"""Who fires when: the events of one recording, and the spikes of every site that follow from it."""

from __future__ import annotations

import torch
from torch import Tensor

from topospike.contracts import Raster, RasterRow
from topospike.errors import ConfigError
from topospike.models.inputs import Inputs
from topospike.snn.network import SpikingNetwork

MOST_NEURONS = 400
"""Neurons of a population that are kept; of more, so many evenly spread ones."""


def raster(
    snn: SpikingNetwork, x: Inputs, timesteps: int, *, image: int = 0, hold: int | None = None
) -> Raster:
    """Simulate one recording (or image) of a batch and note every event.

    Parameters
    ----------
    snn, x, timesteps, hold
        As of a call of the network.
    image
        Which of the batch.

    Raises
    ------
    ConfigError
        If there is no such image.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> frames = torch.poisson(torch.ones(3, 32, 4))
    >>> snn = ts.convert(model, calibration=[frames], input="events")
    >>> [row.name for row in raster(snn, frames, 6).rows]
    ['input', '1']
    """
    shown = snn.shown(x, timesteps, hold=hold)
    count = len(shown.first[0])
    if not 0 <= image < count:
        raise ConfigError(f"image is {image}; the batch has 0 to {count - 1}.")
    axis = 0 if snn.report.input == "image" else 1
    one = tuple(tensor[:, image : image + 1] for tensor in shown.frames)
    one = tuple(tensor[0] for tensor in one) if axis == 0 else one
    found: dict[str, list[Tensor]] = {}
    for step in snn.watch(one, timesteps, hold=hold):
        if axis and step.moment is not None:
            arrived = step.moment.arrived
            blank = torch.zeros_like(step.moment.inputs[0])
            found.setdefault("input", []).append(marks(blank if arrived is None else arrived[0]))
        for name, state in step.sites.items():
            if state.spikes is not None:
                found.setdefault(name, []).append(marks(state.spikes))
    return Raster(timesteps, tuple(row_of(name, steps) for name, steps in found.items()))


def marks(spikes: Tensor) -> Tensor:
    """Return which neurons sent something."""
    return (spikes != 0).flatten()


def row_of(name: str, steps: list[Tensor]) -> RasterRow:
    """Return the events of one population."""
    fired = torch.stack(steps)
    neurons = fired.shape[1]
    places = torch.arange(neurons, device=fired.device)
    if neurons > MOST_NEURONS:
        places = torch.arange(MOST_NEURONS, device=fired.device) * neurons // MOST_NEURONS
    t, neuron = (index.tolist() for index in fired[:, places].nonzero(as_tuple=True))
    return RasterRow(name, neurons, len(places), tuple(step + 1 for step in t), tuple(neuron))
