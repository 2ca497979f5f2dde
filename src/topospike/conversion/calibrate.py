"""Run the ANN over the calibration images once, and give every site its threshold.

Each activation of a network trained with quantised ones knows the threshold it was trained for, so
nothing is left to solve. It becomes the site's own: at time step 0 a site then is the quantised
ANN, exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor, fx

from topospike.conversion.methods.method import Method, ThresholdRule
from topospike.conversion.place import Placed, find_rectifiers
from topospike.errors import ConfigError, ConversionError
from topospike.models.capture import node_module
from topospike.models.inputs import InputForm, Inputs, rows_of
from topospike.models.qcfs import SlipReLU
from topospike.models.rectifier_calls import TrainedActivations
from topospike.progress import progress
from topospike.registry import suggestion
from topospike.snn.frames import check_counts, mean_of
from topospike.snn.neurons import IntegrateAndFire, SignedIntegrateAndFire, Uniform
from topospike.snn.site import Site, observing
from topospike.thresholds.solvers import given_thresholds, solve_thresholds
from topospike.thresholds.statistics import (
    Granularity,
    SiteObserver,
    SiteStatistics,
    reduced_axes,
)

STAIRCASES = (IntegrateAndFire, SignedIntegrateAndFire, Uniform)
"""Neurons whose decoded values are equally spaced, as those of QCFS are."""


@torch.no_grad()
def observe_sites(
    network: fx.GraphModule,
    sites: list[Site],
    first: Inputs,
    rest: Iterable[Inputs],
    rules: Mapping[bool, ThresholdRule],
) -> tuple[dict[str, SiteStatistics], int]:
    """Return each site's statistics over the calibration images, and the number of images."""
    observers = {
        site: SiteObserver(
            site.name,
            granularity=rule.granularity,
            values=rule.values,
            quantile_level=rule.percentile if rule.solver == "percentile" else None,
        )
        for site, rule in ((site, rules[site.gated]) for site in sites)
    }
    form, images = InputForm.of(network), 0
    blank, varies = [float(tensor.flatten()[0]) for tensor in form.leaves(first)], False
    with observing(observers), progress("calibration", unit="images") as advance:
        for batch in chain([first], rest):
            tensors = form.leaves(batch)
            network(*tensors)
            advance(rows_of(batch))
            images += rows_of(batch)
            varies = varies or any(
                bool((tensor != value).any()) for tensor, value in zip(tensors, blank, strict=True)
            )
    if not varies:
        raise ConversionError(
            f"all {images} calibration images are constant (every value is "
            f"{blank[0]:g}), so no site can get a meaningful threshold. Pass "
            "real training images."
        )
    return {site.name: observer.statistics for site, observer in observers.items()}, images


def set_thresholds(
    placed: Placed,
    statistics: Mapping[str, SiteStatistics],
    rules: Mapping[bool, ThresholdRule],
    *,
    given: Mapping[str, Tensor | float],
    trained: TrainedActivations,
    like: Tensor,
) -> None:
    """Give every site its threshold: the user's, a trained one, or the solver's."""
    known = [site.name for site, _ in placed]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"thresholds names a site {name!r} that does not exist. Known: "
                f"{', '.join(known)}.{suggestion(name, known)}"
            )
    for site, node in placed:
        rule = rules[site.gated]
        theta = trained_threshold(site, node, trained)
        if site.name in given:
            shape = tuple(node.meta["val"].shape)
            theta = given_thresholds(given[site.name], site=site.name, shape=shape)
        elif theta is None:
            require_images_first(site.name, node, rule.granularity)
            theta = solve_thresholds(
                statistics[site.name],
                rule.solver,
                quantisation_levels=rule.quantisation_levels,
                signed=rule.signed,
                scale=rule.scale,
                floor=rule.floor,
            )
        site.threshold = theta.to(like)


def trained_threshold(site: Site, node: fx.Node, trained: TrainedActivations) -> Tensor | None:
    """Give a site its trained activation, if it has one, and return the threshold."""
    activation = trained.at(site.name, node_module(node))
    if activation is None:
        return None
    site.activation = activation
    if isinstance(site.neuron, IntegrateAndFire):
        site.neuron = replace(site.neuron, initial_membrane=activation.initial_membrane)
    shape = tuple(node.meta["val"].shape)
    return given_thresholds(activation.theta, site=site.name, shape=shape)


def require_images_first(name: str, node: fx.Node, granularity: Granularity) -> None:
    """Refuse thresholds along the axis that counts images: they would fit one batch size only."""
    shape = node.meta["val"].shape
    varying = [axis for axis, size in enumerate(shape) if isinstance(size, torch.SymInt)]
    kept = set(range(len(shape))) - set(reduced_axes(len(shape), granularity, site=name))
    if kept & set(varying):
        raise ConversionError(
            f"{name}: images are counted along axis {varying[0]} of its {len(shape)} axes, where "
            f"thresholds per {granularity} are wanted; they must be counted along the first. Use "
            "granularity='layer', or keep the batch first in the model."
        )


def require_trained_for(trained: TrainedActivations, method: Method) -> None:
    """Refuse a method that the network was not trained for.

    Raises
    ------
    ConversionError
        If the network has quantised activations and the method's neurons decode to other values,
        or has none, or others, where the method is made for them.
    """
    found, needed = list(trained.named.values()), method.requires
    neuron = method.site_neuron(gated=True)
    if found and not isinstance(neuron, STAIRCASES):
        raise ConversionError(
            f"the network was trained with QCFS activations ({', '.join(trained.named)}), which "
            "are the decoded values of integrate-and-fire neurons. Use method='qcfs' or "
            "'cs-qcfs', or train with ReLU for 'dcgs'."
        )
    if needed and not (found and all(isinstance(one, needed) for one in found)):
        kind = "slip-relu" if needed is SlipReLU else "s-qcfs"
        has = f"has {type(found[0]).__name__} activations" if found else "has rectifiers only"
        raise ConversionError(
            f"method {method.name!r} needs a network trained with {needed.__name__} activations, "
            f"but this one {has}. Train quantise_activations(model, example, kind={kind!r}) "
            "first, or give quantise.epochs in the recipe; method='qcfs' calibrates a ReLU network."
        )


def drop_ceilings(network: fx.GraphModule, trained: TrainedActivations) -> None:
    """Make the rectifiers of trained activations plain: their threshold is the ceiling."""
    for rectifier in find_rectifiers(network):
        node, name = rectifier.node, rectifier.name
        if rectifier.ceiling is not None and trained.at(name, node_module(node)) is not None:
            node.target = torch.ops.aten.relu.default
            node.args, node.kwargs = node.args[:1], {}


def means_of(batches: Iterable[Inputs], kind: str) -> Iterator[Inputs]:
    """Yield what the ANN is shown of calibration frames: the mean of each recording.

    Raises
    ------
    ShapeError
        If a batch has no axis of frames.
    ConfigError
        If frames of ``events`` hold what is no number of events.
    """
    for number, frames in enumerate(batches):
        if kind == "events":
            check_counts(frames, f"calibration batch {number}")
        yield mean_of(frames)
