"""Activations that carry thresholds of their own: networks trained with QCFS.

Such a network says at each activation which threshold it was trained for, so nothing is left to
calibrate. Its activations are taken out before the capture (a ReLU holds their place in the graph)
and put into the sites afterwards: at time step 0 a site then is the quantised ANN, exactly.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx, nn

from topospike.conversion.place import SiteNames, find_rectifiers, unique_name
from topospike.conversion.qcfs import QCFS, SlipReLU
from topospike.conversion.rectifier_calls import QuantisedCalls, remove_calls
from topospike.conversion.thresholds import given_thresholds
from topospike.errors import ConversionError
from topospike.models.capture import node_module
from topospike.snn.neurons import IntegrateAndFire, Neuron, SignedIntegrateAndFire
from topospike.snn.site import Site


@dataclass(frozen=True)
class TrainedActivations:
    """The quantised activations of a network: its modules by path, its calls by site name."""

    modules: Mapping[str, QCFS]
    calls: Mapping[str, QCFS]

    def __len__(self) -> int:
        return len(self.modules) + len(self.calls)

    @property
    def names(self) -> tuple[str, ...]:
        """Where they are, for messages."""
        return (*self.modules, *self.calls)

    def at(self, site: str, module: str) -> QCFS | None:
        """Return the activation of a site, which runs in a module; ``None`` if it has none."""
        return self.calls.get(site, self.modules.get(module))


def take_out_activations(model: nn.Module) -> tuple[nn.Module, TrainedActivations]:
    """Return the model with rectifiers in the place of its QCFS activations, and those.

    A model without any is returned as it is; otherwise a copy is changed.
    """
    if not any(isinstance(module, QCFS) for module in model.modules()):
        return model, TrainedActivations({}, {})
    plain = copy.deepcopy(model)
    owners = [
        path.rpartition(".")[0]
        for path, module in plain.named_modules()
        if isinstance(module, QuantisedCalls)
    ]
    calls = {
        ".".join(part for part in (owner, name) if part): activation
        for owner in owners
        for name, activation in remove_calls(plain.get_submodule(owner)).items()
    }
    modules = {
        path: module
        for path, module in plain.named_modules(remove_duplicate=False)
        if isinstance(module, QCFS)
    }
    for path in modules:
        plain.set_submodule(path, nn.ReLU())
    for activation in (*modules.values(), *calls.values()):
        activation.requires_grad_(False)
    return plain, TrainedActivations(modules, calls)


def require_integrate_and_fire(trained: TrainedActivations, neuron: Neuron | None) -> None:
    """Refuse a neuron whose decoded values the network was not trained for."""
    if len(trained) and not isinstance(neuron, IntegrateAndFire | SignedIntegrateAndFire):
        raise ConversionError(
            f"the network was trained with QCFS activations ({', '.join(trained.names)}), which "
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
    found = [*trained.modules.values(), *trained.calls.values()]
    if not found or not all(isinstance(one, activation) for one in found):
        has = f"has {type(found[0]).__name__} activations" if found else "has rectifiers only"
        raise ConversionError(
            f"method {method!r} needs a network trained with {activation.__name__} activations, "
            f"but this one {has}. Train quantise_activations(model, example, kind={kind!r}) "
            "first, or give quantise.epochs in the recipe; method='qcfs' calibrates a ReLU network."
        )


def drop_ceilings(network: fx.GraphModule, trained: TrainedActivations) -> None:
    """Make the rectifiers of trained activations plain: their threshold is the ceiling."""
    names = SiteNames()
    for rectifier in find_rectifiers(network):
        node = rectifier.node
        name = unique_name(node, names)
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
