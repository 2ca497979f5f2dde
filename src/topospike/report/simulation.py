"""Data of the figures about accuracy or perplexity, energy and spikes; nothing is drawn here.

Every record keeps the numbers of ``evaluation.json`` as they are: joules, shares, counts per
image. Rounding happens where text is written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from topospike.contracts import Evaluation, LayerOperations
from topospike.measure.pareto import front_of
from topospike.report.charts.figure import Layout, axis, log_axis, share_axis
from topospike.report.folder import Run
from topospike.report.units import percent, plain, points

SHARES = ("accuracy", "top5", "agreement", "mean_iou")
DIGITS = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """A metric by its name, whether small values are good, and what one example is called.

    Examples
    --------
    >>> Measured().written(0.5), Measured("perplexity", lower_is_better=True).written(3.14159)
    ('50.00\u202f%', '3.142')
    """

    name: str = "accuracy"
    lower_is_better: bool = False
    example: str = "image"

    @property
    def is_share(self) -> bool:
        """Whether values are fractions, which are written in per cent."""
        return self.name in SHARES

    @property
    def words(self) -> str:
        """The name in a sentence."""
        return self.name.replace("_", " ")

    @property
    def title(self) -> str:
        """The name at the beginning of one."""
        return self.words[0].upper() + self.words[1:]

    def written(self, value: float | None) -> str:
        """Write a value."""
        return percent(value) if self.is_share else plain(value, DIGITS)

    def distance(self, difference: float) -> str:
        """Write how far two values are apart, without a sign."""
        return points(difference) if self.is_share else plain(abs(difference), 3)

    def goodness(self, value: float) -> float:
        """Return a number that is larger for better values."""
        return -value if self.lower_is_better else value

    def axis(self, values: Sequence[float]) -> Layout:
        """Return the axis of the metric on test data, logarithmic for perplexities."""
        title = f"test {self.words}"
        if self.is_share:
            return share_axis(title)
        if self.name == "perplexity" and any(value > 0 for value in values):
            return log_axis(title, values, written=lambda tick: f"{tick:g}")
        return axis(title)


REFERENCE_TIMESTEP = 8
ACCURACY = Measured()
MAC_INPUTS = frozenset({"image", "graded"})


class Simulated(NamedTuple):
    """One converted network and what was measured of it."""

    network: str
    method: str
    result: Evaluation


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Accuracy, or what else was measured, and energy of one converted network at every time step.

    ``marked`` is the time step of the summary table, ``saturation_time`` is T0.
    """

    network: str
    method: str
    timesteps: tuple[int, ...]
    values: tuple[float, ...]
    energy_joule: tuple[float, ...]
    ann_value: float
    ann_energy_joule: float
    marked: int
    saturation_time: int | None
    measured: Measured = ACCURACY


@dataclass(frozen=True, slots=True)
class LayerBar:
    """Operations of one layer per image, over time steps 1..t.

    ``is_mac`` tells multiply-accumulates from accumulates.
    """

    name: str
    operations: float
    is_mac: bool
    density: float
    ann_macs: float


@dataclass(frozen=True, slots=True)
class LayerBars:
    """The bars of one converted network at time step ``timestep``."""

    network: str
    method: str
    timestep: int
    bars: tuple[LayerBar, ...]


@dataclass(frozen=True, slots=True)
class SiteRates:
    """Spikes per neuron and time step of every site of one converted network."""

    network: str
    method: str
    timesteps: tuple[int, ...]
    sites: tuple[tuple[str, int, tuple[float, ...]], ...]


def marked_timestep(run: Run, network: str, method: str, evaluation: Evaluation) -> int:
    """Return the time step of the summary's row, or the nearest one that was simulated."""
    steps = [r.timesteps for r in run.rows if (r.network, r.method) == (network, method)]
    wanted = steps[0] if steps else REFERENCE_TIMESTEP
    return min(evaluation.timesteps, key=lambda timestep: abs(timestep - wanted))


def evaluations(run: Run) -> list[Simulated]:
    """List the converted networks that were measured, methods inside networks, dense first."""
    return [
        Simulated(network.name, method, network.evaluations[method])
        for network in run.networks
        for method in run.methods
        if method in network.evaluations
    ]


def trajectories(run: Run) -> tuple[Trajectory, ...]:
    """Return one trajectory per converted network, of what was measured first.

    A run whose networks were measured by different things is shown by the first network's.
    """
    found = [item for item in evaluations(run) if item.result.metrics]
    if not found:
        return ()
    measured = measured_in(run, found[0].result)
    return tuple(
        Trajectory(
            network=network,
            method=method,
            timesteps=result.timesteps,
            values=result.metrics[measured.name],
            energy_joule=result.energy_joule,
            ann_value=result.ann_metrics[measured.name],
            ann_energy_joule=result.ann_energy_joule,
            marked=marked_timestep(run, network, method, result),
            saturation_time=result.saturation_time,
            measured=measured,
        )
        for network, method, result in found
        if measured.name in result.metrics
    )


def measured_in(run: Run, result: Evaluation) -> Measured:
    """Return what an evaluation measured first."""
    name = next(iter(result.metrics))
    return Measured(name, name in result.lower_is_better, run.example)


def cost_sentences(run: Run) -> tuple[str, ...]:
    """Return what the evaluations themselves say of their figures, network by network."""
    return tuple(
        f"{network}, {method}: {sentence}"
        for network, method, result in evaluations(run)
        for sentence in result.advice
    )


def on_front(lines: tuple[Trajectory, ...]) -> frozenset[tuple[int, int]]:
    """Return the Pareto-optimal points as (index of the trajectory, index of the time step).

    A point is on the front when no other point has more accuracy for no more energy, nor the
    same accuracy for less; of other metrics, a better value.
    """
    places = [(i, k) for i, line in enumerate(lines) for k in range(len(line.values))]
    points = [
        (lines[i].energy_joule[k], lines[i].measured.goodness(lines[i].values[k]))
        for i, k in places
    ]
    return frozenset(places[point] for point in front_of(points))


def is_mac_layer(layer: LayerOperations) -> bool:
    """Tell whether a layer is paid in multiply-accumulates."""
    return any(layer.snn_macs)


def layer_bars(run: Run) -> tuple[LayerBars, ...]:
    """Return the operations per layer of every converted network at the marked time step."""
    return tuple(
        LayerBars(network, method, timestep, bars_at(result, timestep))
        for network, method, result in evaluations(run)
        for timestep in (marked_timestep(run, network, method, result),)
        if result.layers
    )


def bars_at(result: Evaluation, timestep: int) -> tuple[LayerBar, ...]:
    """Return the bars of one evaluation at a time step that it holds."""
    place = result.timesteps.index(timestep)
    return tuple(
        LayerBar(
            name=layer.name,
            operations=layer.snn_macs[place] if is_mac_layer(layer) else layer.sops[place],
            is_mac=is_mac_layer(layer),
            density=layer.density,
            ann_macs=layer.macs,
        )
        for layer in result.layers
    )


def site_rates(run: Run) -> tuple[SiteRates, ...]:
    """Return the firing rates of every converted network whose evaluation recorded sites."""
    return tuple(
        SiteRates(
            network,
            method,
            result.timesteps,
            tuple((site.name, site.neurons, site.firing_rate) for site in result.sites),
        )
        for network, method, result in evaluations(run)
        if result.sites
    )
