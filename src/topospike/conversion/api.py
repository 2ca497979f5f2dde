"""STAGE 4: from a trained network to a spiking one, in one call.

capture -> fold batch norms -> place sites -> inherit the topology -> calibrate thresholds on a few
batches -> check. Every step is a small function of its own; this file is the order they run in.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.contracts import ConversionReport, LayerInput
from topospike.conversion.calibrate import (
    drop_ceilings,
    means_of,
    observe_sites,
    require_trained_for,
    set_thresholds,
)
from topospike.conversion.fold import fold_batch_norms
from topospike.conversion.health import advise, site_reports, uncounted_operations
from topospike.conversion.inherit import inherit_masks
from topospike.conversion.methods.method import Method, method_from
from topospike.conversion.place import (
    Placed,
    find_rectifiers,
    nonlinear_nodes,
    place_input_sites,
    place_operand_sites,
    place_sites,
    refuse_uncounted_layers,
)
from topospike.conversion.proof import (
    parameter_like,
    refuse_chance,
    require_model_answer,
    require_rows_alone,
    require_sound_sites,
    run_model,
)
from topospike.conversion.refuse import refuse_frames, refuse_model
from topospike.errors import ConfigError, MissingDataError
from topospike.models.capture import capture
from topospike.models.inputs import Batch, InputForm, calibration_batches
from topospike.models.rectifier_calls import take_out_activations
from topospike.snn.frames import check_input
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import delay_in_words
from topospike.topology import check_masks
from topospike.wiring.arrivals import with_arrivals
from topospike.wiring.fanout import wire


def convert(
    model: nn.Module,
    method: str | Method = "dcgs",
    calibration: Iterable[Batch] | Tensor | None = None,
    timesteps: int = 8,
    *,
    thresholds: Mapping[str, Tensor | float] | None = None,
    fold: bool = True,
    input: str = "image",
    output: str | int | None = None,
    **options: Any,
) -> SpikingNetwork:
    """Turn a trained network into a spiking network.

    Parameters
    ----------
    model
        Any module that `torch.export` can capture, with ReLU-like activations written in any way,
        or a transformer. It is not changed.
    method : {"dcgs", "sigma-delta", "qcfs", "cs-qcfs", "slip-relu", "signed-if", "srp", ...}
        Which family of neurons and coding, or an instance of `topospike.conversion.Method` with its
        options; `topospike.conversion.METHODS` has all names. ``slip-relu``, ``srp`` and
        ``offset-spike`` need a network trained with quantised activations
        (`topospike.quantise_activations`).
    calibration
        Batches of ``x`` or ``(x, y)``, or one tensor of images: a few hundred training images
        without augmentation, normalised as in training. Of a model with several inputs: batches of
        tuples, or dictionaries of forward's arguments; ``((x1, x2), y)`` where labels come along.
    timesteps
        Run length T the thresholds are chosen for; any length can be simulated afterwards.
    thresholds
        Site name -> threshold, for sites whose threshold is known; these are not solved for.
    fold
        Absorb batch norms into the layers before them.
    input : {"image", "frames", "events"}
        What the spiking network is shown: an image, constant in time; ``frames`` of real numbers,
        one after the other; or ``events``, frames that count events, mostly 0. Of the latter two
        calibration batches are frames too, (frame, batch, ...); the model is run on their mean.
    output, optional
        Which tensor is simulated, of a model that returns several: a key, attribute or place, as
        in `topospike.models.capture`.
    **options
        Options of the method, the fields of its class in `topospike.conversion.methods`: of every
        method ``solver``, ``granularity``, ``quantisation_levels``, ``percentile`` and ``scale``;
        of ``dcgs`` also ``scheme``, ``coding``, ``neuron``, ``levels`` and ``stat``; of the QCFS
        family ``readout_delay``; of ``srp`` and ``offset-spike`` also ``presimulation``. ``None``
        stands for an option's default.

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
        If the method has no such option, or it is out of range; if ``input`` is unknown, frames of
        events hold other numbers than counts, or the method cannot read frames.
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
    chosen = method_from(method, options)
    check_input(input)
    if thresholds and chosen.chooses_thresholds:
        raise ConfigError(
            f"thresholds are given for {', '.join(thresholds)}, but method {chosen.name!r} chooses "
            "them itself on the calibration images. Use method='cs-qcfs' with given thresholds."
        )
    rules = {gated: chosen.threshold_rule(timesteps, gated=gated) for gated in (True, False)}
    refuse_model(model)
    check_masks(model)
    plain, trained = take_out_activations(model)
    require_trained_for(trained, chosen)
    batches = calibration_batches(calibration, model)
    batches = batches if input == "image" else means_of(batches, input)
    first = next(batches, None)
    if first is None:
        raise MissingDataError(
            "there are no calibration images; pass calibration=batches with at least one batch of "
            "training images, normalised as in training."
        )
    reference = run_model(model, first)
    network = copy.deepcopy(capture(plain, first, output=output)).requires_grad_(False)
    refuse_chance(network)
    form = InputForm.of(network)
    images_seen = form.leaves(first)
    if chosen.keeps_images:
        batches = list(batches)
    drop_ceilings(network, trained)
    folded = fold_batch_norms(network) if fold else []
    placed = place_all_sites(network, chosen)
    inherit_masks(model, network)
    sites = [site for site, _ in placed]
    refuse_frames(sites, chosen, input)
    statistics, images = observe_sites(network, sites, first, batches, rules)
    like = parameter_like(network, images_seen)
    set_thresholds(placed, statistics, rules, given=thresholds or {}, trained=trained, like=like)
    require_sound_sites(sites, like)
    require_model_answer(network, plain, reference, quantised=len(trained) > 0, fold=fold)
    require_rows_alone(network, reference)
    wiring = wire(network) if input == "image" else with_arrivals(wire(network), network)
    rule = rules[sites[0].gated]
    report = ConversionReport(
        method=chosen.name,
        coding=sites[0].coding.name,
        neuron=sites[0].neuron.name,
        levels=sites[0].neuron.levels,
        solver="trained" if len(trained) == len(placed) else rule.solver,
        granularity=rule.granularity,
        calibration_images=images,
        batch_norms_folded=tuple(folded),
        sites=(),
        layers=tuple(
            LayerInput(la.name, la.kind, "events" if la.arrivals else la.fed_by, la.reason)
            for la in wiring.layers
        ),
        options=chosen.options(),
        uncounted=uncounted_operations(network),
    )
    snn = SpikingNetwork(network, report, wiring)
    more = (form.leaves(batch) for batch in batches) if chosen.keeps_images else ()
    every = tuple(torch.cat(parts) for parts in zip(images_seen, *more, strict=True))
    snn = chosen.finish(snn, every)
    require_sound_sites(sites, like)  # again: a method may have changed thresholds
    described = site_reports(network, placed, statistics, images_seen, wiring.populations)
    report = replace(snn.report, sites=described, input=input)
    remarks = (chosen.remark(), delay_in_words(report))
    advice = (*advise(report, wiring.layers), *report.advice, *(r for r in remarks if r))
    snn.report = replace(report, advice=advice)
    return snn


def place_all_sites(network: fx.GraphModule, method: Method) -> Placed:
    """Place ReLU sites, operand sites or both, as the method's scheme says."""
    refuse_uncounted_layers(network.graph)
    scheme, rectified = method.scheme_of_sites, bool(find_rectifiers(network))
    if scheme == "auto":
        scheme = "relu first" if rectified else "operand" if nonlinear_nodes(network) else "relu"
    placed = place_sites(network, method.site) if scheme != "operand" else []
    if scheme != "relu":
        placed += place_operand_sites(network, method.site, everywhere=scheme == "operand")
    on_inputs = place_input_sites(network, method.site) if method.sites_on_inputs else []
    return on_inputs + placed
