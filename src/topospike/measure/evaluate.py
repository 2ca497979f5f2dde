"""Accuracy (or another metric) and energy of a spiking network at every time step, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

from topospike.contracts import Evaluation
from topospike.errors import ConfigError, MissingDataError
from topospike.measure.counting.conventions import CHOICES, Conventions
from topospike.measure.energy import EnergyModel
from topospike.measure.energy import energy_model as energy_model_of
from topospike.measure.metrics import Metric, metrics_of
from topospike.measure.tally import Tally
from topospike.models.inputs import Batch
from topospike.snn.network import SpikingNetwork

Metrics: TypeAlias = (
    str | Metric | Callable[..., Any] | Sequence["str | Metric | Callable[..., Any]"]
)


def evaluate(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: int = 32,
    *,
    metric: Metrics = "accuracy",
    hold: int | None = None,
    conventions: Conventions | None = None,
    energy_model: str | EnergyModel = "45nm",
    executor: str | None = None,
    ann: bool = True,
) -> Evaluation:
    """Measure accuracy, synaptic operations and energy for t = 1..timesteps.

    Parameters
    ----------
    snn
        A converted network.
    batches
        Pairs (inputs, target): images and the index of each one's class, int64 (batch,), or what
        the metric takes. Inputs are a tensor, or a tuple or dictionary of them; a dictionary's
        ``labels`` are its target.
    timesteps
        Longest simulation; every shorter one is read off the same run.
    hold
        Of frames: steps each is shown for.
    metric
        What is measured of the outputs: ``accuracy``, ``top5``, ``perplexity``, ``mse``,
        ``mean_iou``, ``agreement`` (the share of answers that are the ANN's; needs no labels), a
        function ``(outputs, targets) -> (sum, count)``, a `Metric`, or several in a list. The
        first is the one T0 is taken of.
    conventions
        What to count; default: first layer as MACs once an image, average pools folded, existing
        links only.
    energy_model
        Name in ``ENERGY_MODELS`` or a model of your own.
    executor
        How layers are evaluated, as in `SpikingNetwork.forward`; what is counted does not depend
        on it, but for spikes that rounding moves.
    ann
        Whether the ANN answers as well, which costs one forward; ``agreement`` has it answer in
        any case. Else ``ann_accuracy`` is not a number and ``ann_metrics`` empty.

    Returns
    -------
    Evaluation
        Cumulative, per image; ``metrics[name][t - 1]`` and, where it was measured,
        ``accuracy[t - 1]`` as fractions, ``energy_joule[t - 1]`` in joules.

    Raises
    ------
    ConfigError
        If ``timesteps`` is below 1, the energy model or a metric is unknown, or a batch has no
        labels and the metric needs them; if padding is to be left out and real tokens hear of it.
    ShapeError
        If labels do not fit the outputs, or one is not among the network's classes; if a token is
        not in the vocabulary, or a batch is all padding.
    MissingDataError
        If there is no batch.

    Notes
    -----
    ``E(t) = N_MAC(t) E_MAC + N_SOP(t) E_AC`` (Bao et al. 2026, equation 2). The ANN beside it is
    the same network run once with a MAC for each link.

    Classes are along the axis that the labels lack: outputs (batch, classes, height, width) go with
    labels (batch, height, width), outputs (batch, tokens, classes) with (batch, tokens). Labels of
    -100 are not counted. ``perplexity`` is ``exp`` of the mean cross entropy, ``mean_iou`` the
    mean over the classes that occur of intersection over union. A causal language model's targets
    are the next tokens: nothing is shifted here.

    A batch is divided, and its steps are taken together, as `SpikingNetwork.forward` does. So a
    metric is given parts of it, unless its targets are no tensor with a row an image. Weights are
    read when the first batch comes, and stay what they are for all of them.

    At steps without an answer (`topospike.snn.records`) shares of right answers are 0 and other
    metrics not a number; T0 begins with the first answer (``wider.first_answer``). Where layers
    wait for one another that is the last one as well, and so T0.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x, y = torch.rand(32, 4), torch.arange(32) % 3
    >>> result = ts.evaluate(ts.convert(model, calibration=[x]), [(x, y)], timesteps=4)
    >>> len(result.accuracy), result.macs
    (4, 64.0)
    """
    chosen = (conventions or Conventions(),)
    metrics = metrics_of(metric)
    return tallied(snn, batches, timesteps, chosen, energy_model, metrics, hold, executor, ann)[0]


EVERY_CONVENTION = (
    Conventions(),
    *(
        Conventions(**{name: value})
        for name, choices in CHOICES.items()
        for value in choices
        if value != getattr(Conventions(), name)
    ),
)
"""The defaults, then each other choice with the rest at their defaults."""


def evaluate_conventions(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: int = 32,
    *,
    metric: Metrics = "accuracy",
    hold: int | None = None,
    conventions: Sequence[Conventions] = EVERY_CONVENTION,
    energy_model: str | EnergyModel = "45nm",
) -> tuple[Evaluation, ...]:
    """Measure once and count under several conventions.

    Parameters
    ----------
    snn, batches, timesteps, metric, hold, energy_model
        As in `evaluate`.
    conventions
        What to count; default: the default conventions, then every single departure from them.

    Returns
    -------
    tuple of Evaluation
        One for each of ``conventions``; they differ in operations and energy only.

    Raises
    ------
    ConfigError, ShapeError, MissingDataError
        As `evaluate`; also `ConfigError` if there is no convention.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x, y = torch.rand(32, 4), torch.arange(32) % 3
    >>> runs = evaluate_conventions(ts.convert(model, calibration=[x]), [(x, y)], timesteps=4)
    >>> [run.macs for run in runs[:3]]
    [64.0, 256.0, 0.0]
    """
    if not conventions:
        raise ConfigError("there is no convention to count by; give at least one.")
    chosen = tuple(conventions)
    return tallied(snn, batches, timesteps, chosen, energy_model, metrics_of(metric), hold)


def tallied(
    snn: SpikingNetwork,
    batches: Iterable[Batch],
    timesteps: int,
    conventions: tuple[Conventions, ...],
    model: str | EnergyModel,
    metrics: tuple[Metric, ...],
    hold: int | None,
    executor: str | None = None,
    ann: bool = True,
) -> tuple[Evaluation, ...]:
    """Run all batches once, and return one evaluation for each of the conventions."""
    prices = energy_model_of(model)
    if timesteps < 1:
        raise ConfigError(f"timesteps is {timesteps}; at least 1 is required.")
    tally: Tally | None = None
    for number, batch in enumerate(batches):
        x, targets = snn.split(batch, f"batch {number}")
        if tally is None:
            tally = Tally(snn, timesteps, conventions, metrics, hold, executor, ann)
        tally.add_batch(x, targets, f"batch {number}")
    if tally is None:
        raise MissingDataError("there is no batch to evaluate on; at least one is required.")
    return tuple(tally.result(prices, counter) for counter in tally.counters)
