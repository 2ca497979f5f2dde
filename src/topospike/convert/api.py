"""STAGE 4: from a trained network to a spiking one, in one call.

capture -> fold batch norms -> place sites -> inherit the topology -> calibrate thresholds on a few
batches -> check. Every step is a small function of its own; this file is the order they run in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from topospike.contracts import ConversionReport
from topospike.convert.fold import fold_batch_norms
from topospike.convert.health import advise, layer_inputs, site_reports
from topospike.convert.inherit import inherit_masks
from topospike.convert.methods import METHODS
from topospike.convert.place import place_sites
from topospike.convert.statistics import Granularity, SiteObserver, SiteStatistics
from topospike.convert.thresholds import (
    SOLVERS,
    decodable_levels,
    given_thresholds,
    solve_thresholds,
)
from topospike.convert.trained import (
    require_integrate_and_fire,
    take_out_activations,
    trained_threshold,
)
from topospike.errors import ConfigError, ConversionError, MissingDataError, NonFiniteError
from topospike.models.capture import capture
from topospike.registry import suggestion
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron
from topospike.snn.site import Site
from topospike.snn.wiring import find_weight_layers
from topospike.topology import check_masks

DEFAULT_SOLVER = "optimal"
Batch = Tensor | tuple[Tensor, ...] | list[Tensor]


def convert(
    model: nn.Module,
    method: str = "dcgs",
    calibration: Iterable[Batch] | Tensor | None = None,
    timesteps: int = 8,
    *,
    coding: str | None = None,
    neuron: Neuron | None = None,
    levels: int | None = None,
    solver: str | None = None,
    granularity: Granularity | None = None,
    quantisation_levels: int | None = None,
    percentile: float = 0.999,
    scale: float = 1.0,
    thresholds: Mapping[str, Tensor | float] | None = None,
    fold: bool = True,
) -> SpikingNetwork:
    """Turn a trained network into a spiking network.

    Parameters
    ----------
    model
        Any module that `torch.export` can capture and that uses ReLU-like activations, written in
        any way. It is not changed.
    method : {"dcgs", "qcfs", "cs-qcfs"}
        Which family of neurons and coding; the arguments below override its parts.
    calibration
        Batches of ``x`` or ``(x, y)``, or one tensor of images: a few hundred training images
        without augmentation, normalised as in training.
    timesteps
        Run length T the thresholds are chosen for; any length can be simulated afterwards.
    coding : {"differential", "rate"}, optional
    neuron, optional
        Firing rule of every site (see `topospike.snn.neurons`).
    levels, optional
        Positive thresholds n of a multi-threshold neuron (default 4).
    solver : {"optimal", "iterations", "percentile", "max"}, optional
        How thresholds follow from the statistics; default ``optimal``.
    granularity : {"layer", "channel", "neuron", "feature"}, optional
        One threshold for a site, for each channel (axis 1), each neuron, each last-axis feature.
    quantisation_levels, optional
        Number N of values a site can decode to; default ``timesteps * 2**levels`` for
        multi-threshold neurons and ``timesteps`` for the others.
    percentile
        Quantile for solver ``percentile``.
    scale
        Factor on every threshold.
    thresholds
        Site name -> threshold, for sites whose threshold is known; these are not solved for.
    fold
        Absorb batch norms into the layers before them.

    Returns
    -------
    SpikingNetwork
        ``snn(x, timesteps)`` gives the logits after each step; ``snn.report`` says what was done.

    Raises
    ------
    ConversionError
        If the model cannot be captured, has no ReLU-like activation, or a site gets no positive
        finite threshold; the message names the place.
    MissingDataError, NonFiniteError
        If there are no calibration images, or they hold NaN or infinity.
    ConfigError
        If an option is unknown or out of range.
    TopologyViolation
        If a masked weight of ``model`` is not zero off its mask.

    Notes
    -----
    A network trained with `topospike.convert.qcfs.QCFS` activations brings its own thresholds;
    then nothing is solved for. The methods ``qcfs`` and ``cs-qcfs`` applied to a ReLU network
    calibrate integrate-and-fire neurons for it, layer-wise or channel-wise; they do not train.

    The reference code solves for 100 iterations from 1, which is not converged for the number of
    levels it uses; ``solver="iterations"`` repeats that, the default finds the optimum
    (docs/deviations.md). Thresholds are computed on the calibration images alone, never on test
    data.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> snn = ts.convert(model, calibration=[torch.rand(64, 4)], timesteps=8)
    >>> [site.name for site in snn.report.sites]
    ['1']
    """
    plan = plan_for(
        method, timesteps, coding, neuron, levels, solver, granularity, quantisation_levels
    )
    check_masks(model)
    plain, activations = take_out_activations(model)
    require_integrate_and_fire(activations, plan.neuron)
    batches = calibration_batches(calibration)
    first = next(batches, None)
    if first is None:
        raise MissingDataError(
            "there are no calibration images; pass calibration=batches with at least one batch of "
            "training images, normalised as in training."
        )
    network = copy.deepcopy(capture(plain, first)).requires_grad_(False)
    folded = fold_batch_norms(network) if fold else []
    placed = place_sites(
        network,
        lambda name, gated: Site(name, gated=gated, neuron=plan.neuron, coding=plan.coding),
    )
    inherit_masks(model, network)

    given = dict(thresholds or {})
    check_names(given, [site.name for site, _ in placed])
    quantile = percentile if plan.solver == "percentile" else None
    statistics, images = observe_sites(
        network, [site for site, _ in placed], first, batches, plan.granularity, quantile
    )
    for site, node in placed:
        theta = trained_threshold(site, node, activations)
        if site.name in given:
            shape = tuple(node.meta["val"].shape)
            theta = given_thresholds(given[site.name], site=site.name, shape=shape)
        elif theta is None:
            theta = solve_thresholds(
                statistics[site.name],
                plan.solver,
                quantisation_levels=plan.quantisation_levels,
                scale=scale,
            )
        site.threshold = theta.to(first)
    report = ConversionReport(
        method=method,
        coding=plan.coding.name,
        neuron=plan.neuron.name,
        levels=plan.neuron.levels,
        solver="trained" if len(activations) == len(placed) else plan.solver,
        granularity=plan.granularity,
        calibration_images=images,
        batch_norms_folded=tuple(folded),
        sites=site_reports(network, placed, first),
        layers=layer_inputs(find_weight_layers(network)),
    )
    report = replace(report, advice=advise(report))
    return SpikingNetwork(network, tuple(first.shape[1:]), report)


@dataclass(frozen=True)
class Plan:
    """The options of one conversion with every default filled in."""

    neuron: Neuron
    coding: Coding
    solver: str
    granularity: Granularity
    quantisation_levels: int


def plan_for(
    method: str,
    timesteps: int,
    coding: str | None,
    neuron: Neuron | None,
    levels: int | None,
    solver: str | None,
    granularity: Granularity | None,
    quantisation_levels: int | None,
) -> Plan:
    """Fill in what was left open with the method's defaults, and refuse unknown names early."""
    defaults = METHODS[method]
    positive = defaults.levels if levels is None else levels
    chosen = DEFAULT_SOLVER if solver is None else solver
    _ = SOLVERS[chosen]  # an unknown name is refused before any image is read
    return Plan(
        neuron=defaults.neuron(positive) if neuron is None else neuron,
        coding=CODINGS[defaults.coding if coding is None else coding],
        solver=chosen,
        granularity=defaults.granularity if granularity is None else granularity,
        quantisation_levels=(
            decodable_levels(timesteps, positive)
            if quantisation_levels is None
            else quantisation_levels
        ),
    )


def calibration_batches(calibration: Iterable[Batch] | Tensor | None) -> Iterator[Tensor]:
    """Yield checked batches of images from whatever the user gave."""
    if calibration is None:
        return
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    for number, batch in enumerate(batches):
        images = batch if isinstance(batch, Tensor) else batch[0]
        if not isinstance(images, Tensor):
            raise ConfigError(
                f"calibration batch {number} is {type(batch).__name__} of "
                f"{type(images).__name__}; x or (x, y) with a tensor x is required."
            )
        if not bool(torch.isfinite(images).all()):
            raise NonFiniteError(
                f"calibration batch {number} holds NaN or infinite values; finite images are "
                "required. Check the data loading and normalisation."
            )
        if len(images):
            yield images


@torch.no_grad()
def observe_sites(
    network: fx.GraphModule,
    sites: list[Site],
    first: Tensor,
    rest: Iterator[Tensor],
    granularity: Granularity,
    quantile: float | None,
) -> tuple[dict[str, SiteStatistics], int]:
    """Run the ANN over the calibration images once and return each site's statistics."""
    observers = {
        site.name: SiteObserver(
            site.name, granularity=granularity, values="rectified", quantile_level=quantile
        )
        for site in sites
    }
    for site in sites:
        site.observer = observers[site.name]
    images, varies = 0, False
    batch: Tensor | None = first
    while batch is not None:
        network(batch)
        images += len(batch)
        varies = varies or bool((batch != first.flatten()[0]).any())
        batch = next(rest, None)
    for site in sites:
        site.observer = None
    if not varies:
        raise ConversionError(
            f"all {images} calibration images are constant (every value is "
            f"{float(first.flatten()[0]):g}), so no site can get a meaningful threshold. Pass "
            "real training images."
        )
    return {name: observer.statistics for name, observer in observers.items()}, images


def check_names(thresholds: Mapping[str, Tensor | float], known: list[str]) -> None:
    """Refuse thresholds for sites that do not exist."""
    for name in thresholds:
        if name not in known:
            raise ConfigError(
                f"thresholds names a site {name!r} that does not exist. Known: "
                f"{', '.join(known)}.{suggestion(name, known)}"
            )
