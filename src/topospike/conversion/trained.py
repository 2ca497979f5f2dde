"""What a network trained with quantised activations says of its sites.

Each activation knows the threshold it was trained for, so nothing is left to calibrate. It becomes
the site's own: at time step 0 a site then is the quantised ANN, exactly.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, fx

from topospike.conversion.place import find_rectifiers
from topospike.conversion.thresholds import given_thresholds
from topospike.errors import ConversionError
from topospike.models.capture import node_module
from topospike.models.qcfs import QCFS, SlipReLU
from topospike.models.rectifier_calls import TrainedActivations
from topospike.snn.neurons import IntegrateAndFire, Neuron, SignedIntegrateAndFire, Uniform
from topospike.snn.site import Site

STAIRCASES = (IntegrateAndFire, SignedIntegrateAndFire, Uniform)
"""Neurons whose decoded values are equally spaced, as those of QCFS are."""


def require_integrate_and_fire(trained: TrainedActivations, neuron: Neuron | None) -> None:
    """Refuse a neuron whose decoded values the network was not trained for."""
    if len(trained) and not isinstance(neuron, STAIRCASES):
        raise ConversionError(
            f"the network was trained with QCFS activations ({', '.join(trained.named)}), which "
            "are the decoded values of integrate-and-fire neurons. Use method='qcfs' or "
            "'cs-qcfs', or train with ReLU for 'dcgs'."
        )


def require_trained(trained: TrainedActivations, method: str, activation: type[QCFS]) -> None:
    """Refuse a method whose network must have been trained with quantised activations.

    Raises
    ------
    ConversionError
        If the network has none, or others than the method is made for.
    """
    kind = "slip-relu" if activation is SlipReLU else "s-qcfs"
    found = [*trained.named.values()]
    if not found or not all(isinstance(one, activation) for one in found):
        has = f"has {type(found[0]).__name__} activations" if found else "has rectifiers only"
        raise ConversionError(
            f"method {method!r} needs a network trained with {activation.__name__} activations, "
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
