"""Activations that carry thresholds of their own: networks trained with QCFS.

Such a network says at each activation which threshold it was trained for, so nothing is left to
calibrate. Its activations are taken out before the capture (a ReLU holds their place in the graph)
and put into the sites afterwards: at time step 0 a site then is the quantised ANN, exactly.
"""

from __future__ import annotations

import copy

from torch import Tensor, fx, nn

from topospike.convert.qcfs import QCFS
from topospike.convert.thresholds import given_thresholds
from topospike.errors import ConversionError
from topospike.models.capture import node_module
from topospike.snn.neurons import IntegrateAndFire, Neuron
from topospike.snn.site import Site


def take_out_activations(model: nn.Module) -> tuple[nn.Module, dict[str, QCFS]]:
    """Return the model with ReLUs in the place of its QCFS activations, and those by module path.

    A model without any is returned as it is; otherwise a copy is changed.
    """
    found = [path for path, module in model.named_modules() if isinstance(module, QCFS)]
    if not found:
        return model, {}
    plain = copy.deepcopy(model)
    activations: dict[str, QCFS] = {}
    for path in found:
        activation = plain.get_submodule(path)
        if isinstance(activation, QCFS):
            activations[path] = activation.requires_grad_(False)
        plain.set_submodule(path, nn.ReLU())
    return plain, activations


def require_integrate_and_fire(activations: dict[str, QCFS], neuron: Neuron | None) -> None:
    """Refuse a neuron whose decoded values the network was not trained for."""
    if activations and not isinstance(neuron, IntegrateAndFire):
        raise ConversionError(
            f"the network was trained with QCFS activations ({', '.join(activations)}), which are "
            "the decoded values of integrate-and-fire neurons. Use method='qcfs' or 'cs-qcfs', or "
            "train with ReLU for 'dcgs'."
        )


def trained_threshold(site: Site, node: fx.Node, activations: dict[str, QCFS]) -> Tensor | None:
    """Give a site its trained activation, if it has one, and return the threshold."""
    activation = activations.get(node_module(node))
    if activation is None:
        return None
    site.activation = activation
    shape = tuple(node.meta["val"].shape)
    return given_thresholds(activation.theta, site=site.name, shape=shape)
