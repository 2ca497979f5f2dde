"""STAGE 4: from a trained network to a spiking one, in one call.

capture -> fold batch norms -> place sites -> inherit the topology -> calibrate thresholds on a few
batches -> check. Every step is a small function of its own; this file is the order they run in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace

from torch import Tensor, fx, nn

from topospike.contracts import ConversionReport
from topospike.conversion.calibrate import observe_sites, set_thresholds
from topospike.conversion.fold import fold_batch_norms
from topospike.conversion.health import advise, layer_inputs, site_reports
from topospike.conversion.inherit import inherit_masks
from topospike.conversion.operands import place_operand_sites
from topospike.conversion.place import (
    find_rectifiers,
    has_nonlinearity,
    place_sites,
    refuse_uncounted_layers,
)
from topospike.conversion.plan import Plan, plan_for
from topospike.conversion.refuse import refuse_images, refuse_model
from topospike.conversion.residual_membrane import refuse_max_pools
from topospike.conversion.statistics import Granularity
from topospike.conversion.trained import (
    drop_ceilings,
    require_integrate_and_fire,
    require_trained,
    take_out_activations,
)
from topospike.data.calibration import Batch, calibration_batches
from topospike.errors import ConversionError, MissingDataError
from topospike.models.capture import capture
from topospike.snn.fanout import wire
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import Neuron
from topospike.snn.site import Site
from topospike.topology import check_masks


def convert(
    model: nn.Module,
    method: str = "dcgs",
    calibration: Iterable[Batch] | Tensor | None = None,
    timesteps: int = 8,
    *,
    scheme: str = "auto",
    coding: str | None = None,
    neuron: Neuron | None = None,
    levels: int | None = None,
    solver: str | None = None,
    granularity: Granularity | None = None,
    quantisation_levels: int | None = None,
    percentile: float = 0.999,
    scale: float | None = None,
    stat: str = "absolute",
    thresholds: Mapping[str, Tensor | float] | None = None,
    presimulation: int | None = None,
    fold: bool = True,
) -> SpikingNetwork:
    """Turn a trained network into a spiking network.

    Parameters
    ----------
    model
        Any module that `torch.export` can capture, with ReLU-like activations written in any way,
        or a transformer. It is not changed.
    method : {"dcgs", "qcfs", "cs-qcfs", "slip-relu", "signed-if", "srp", "offset-spike"}
        Which family of neurons and coding; the arguments below override its parts. ``slip-relu``,
        ``srp`` and ``offset-spike`` need a network trained with quantised activations
        (`topospike.conversion.quantise_activations`).
    calibration
        Batches of ``x`` or ``(x, y)``, or one tensor of images: a few hundred training images
        without augmentation, normalised as in training.
    timesteps
        Run length T the thresholds are chosen for; any length can be simulated afterwards.
    scheme : {"auto", "relu", "operand"}
        Where sites go: in the place of every rectifier (``relu``), in front of every operand of a
        convolution, linear layer or product (``operand``), or rectifiers first and operands where
        a layer would still be fed graded numbers (``auto``).
    coding : {"differential", "rate"}, optional
    neuron, optional
        Firing rule of every site (see `topospike.snn.neurons`).
    levels, optional
        Positive thresholds n of a multi-threshold neuron (default 4; 8 at operand sites).
    solver : {"optimal", "iterations", "percentile", "max"}, optional
        How thresholds follow from the statistics; default ``optimal``, and ``percentile`` at
        operand sites.
    granularity : {"layer", "channel", "neuron", "feature"}, optional
        One threshold for a site, for each channel (axis 1), each neuron, each last-axis feature;
        default ``channel`` for DCGS and CS-QCFS, ``layer`` for QCFS and at operand sites.
    quantisation_levels, optional
        Number N of values a site can decode to; default ``timesteps * 2**levels`` for
        multi-threshold neurons and ``timesteps`` for the others.
    percentile
        Quantile for solver ``percentile``.
    scale, optional
        Factor on every threshold (default 1; 4 at operand sites).
    stat : {"absolute", "signed"}
        Whether thresholds of operand sites follow the magnitude of the values, or, as the reference
        code does, their signed value (which leaves units that are mostly negative silent for ever).
    thresholds
        Site name -> threshold, for sites whose threshold is known; these are not solved for.
    presimulation, optional
        Steps of the first phase of ``srp`` (tau; its time steps count both phases), or of the
        calibration of ``offset-spike`` (rho; done before the time steps). Default 4.
    fold
        Absorb batch norms into the layers before them.

    Returns
    -------
    SpikingNetwork
        ``snn(x, timesteps)`` gives the logits after each step; ``snn.report`` says what was done.

    Raises
    ------
    ConversionError
        If the model cannot be captured, there is no place for a site, a site gets no positive
        finite threshold, or the model was not trained as the method needs it; the message names
        the place.
    MissingDataError, NonFiniteError
        If there are no calibration images, or they hold NaN or infinity.
    ConfigError
        If an option is unknown or out of range.
    TopologyViolation
        If a masked weight of ``model`` is not zero off its mask.

    Notes
    -----
    A network trained with quantised activations brings its own thresholds; then nothing is solved
    for. The methods ``qcfs``, ``cs-qcfs`` and ``signed-if`` applied to a ReLU network calibrate
    integrate-and-fire neurons for it, layer-wise or channel-wise; they do not train. Who proposed
    a method is in `topospike.conversion.METHODS`.

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
        method,
        timesteps,
        scheme=scheme,
        coding=coding,
        neuron=neuron,
        levels=levels,
        solver=solver,
        granularity=granularity,
        quantisation_levels=quantisation_levels,
        scale=scale,
        stat=stat,
        presimulation=presimulation,
    )
    refuse_model(model)
    check_masks(model)
    plain, trained = take_out_activations(model)
    require_integrate_and_fire(trained, plan.relu.neuron)
    if plan.method.requires is not None:
        require_trained(trained, method, plan.method.requires)
    batches = calibration_batches(calibration)
    first = next(batches, None)
    if first is None:
        raise MissingDataError(
            "there are no calibration images; pass calibration=batches with at least one batch of "
            "training images, normalised as in training."
        )
    refuse_images(plain, first)
    network = copy.deepcopy(capture(plain, first)).requires_grad_(False)
    drop_ceilings(network.graph, trained)
    folded = fold_batch_norms(network) if fold else []
    placed = place_all_sites(network, plan)
    inherit_masks(model, network)
    sites = [site for site, _ in placed]
    statistics, images = observe_sites(network, sites, first, batches, plan, percentile)
    set_thresholds(placed, statistics, plan, given=thresholds or {}, trained=trained, like=first)
    wiring = wire(network)
    rule = plan.rule(sites[0].gated)
    report = ConversionReport(
        method=method,
        coding=plan.coding.name,
        neuron=sites[0].neuron.name,
        levels=sites[0].neuron.levels,
        solver="trained" if len(trained) == len(placed) else rule.solver,
        granularity=rule.granularity,
        calibration_images=images,
        batch_norms_folded=tuple(folded),
        sites=site_reports(network, placed, statistics, first, wiring.populations),
        layers=layer_inputs(wiring.layers),
    )
    if method == "srp":
        refuse_max_pools(report.layers)
    remark = plan.method.remark.format(plan.presimulation)
    report = replace(report, advice=(*advise(report), *([remark] if remark else [])))
    return SpikingNetwork(network, tuple(first.shape[1:]), report, wiring)


def place_all_sites(network: fx.GraphModule, plan: Plan) -> list[tuple[Site, fx.Node]]:
    """Place ReLU sites, operand sites or both, as the scheme says."""

    def make_site(name: str, gated: bool) -> Site:
        neuron = plan.rule(gated).neuron
        if neuron is None:
            raise ConversionError(f"{name}: the method has no neuron for a site of this kind.")
        return plan.method.site(name, gated, neuron, plan.coding, plan.presimulation)

    graph = network.graph
    refuse_uncounted_layers(graph)
    hopeless = plan.scheme == "auto" and not (find_rectifiers(graph) or has_nonlinearity(network))
    if plan.scheme == "relu" or hopeless:
        return place_sites(network, make_site)
    rectified = plan.scheme == "auto" and bool(find_rectifiers(graph))
    placed = place_sites(network, make_site) if rectified else []
    return placed + place_operand_sites(network, make_site, everywhere=not rectified)
