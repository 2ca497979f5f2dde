"""A site as plain JSON, and back: its neuron, its coding, and a trained activation if it has one.

Neurons are the frozen data classes of `topospike.snn.neurons`, written as their name and settings;
thresholds are tensors and lie with the weights (`topospike.conversion.archive`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from topospike.conversion.offset_spikes import OffsetSpike
from topospike.conversion.qcfs import QCFS
from topospike.conversion.residual_membrane import ResidualMembrane
from topospike.conversion.slip_relu import SlipReLU
from topospike.errors import ConversionError
from topospike.registry import Registry
from topospike.snn import neurons
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.neurons import Neuron
from topospike.snn.site import Site

Plain = Any

NEURONS: Registry[type] = Registry(
    "neuron",
    {
        name: kind
        for name, kind in vars(neurons).items()
        if dataclasses.is_dataclass(kind) and isinstance(kind, type) and hasattr(kind, "fire")
    },
)

# Codings that have settings; the others are known by their names.
SET_CODINGS: dict[str, type[Coding]] = {kind.name: kind for kind in (OffsetSpike, ResidualMembrane)}
# Kinds of trained activation, with their arguments and the attributes that keep these.
QCFS_ARGUMENTS = {"steps": "steps", "positive_map": "positive_map", "order": "order"}
SLIP_ARGUMENTS = {"slope": "slope", "relu_shift": "relu_shift", "step_shift": "initial_membrane"}
ACTIVATIONS: dict[str, tuple[Callable[..., QCFS], dict[str, str]]] = {
    "QCFS": (QCFS, QCFS_ARGUMENTS),
    "SlipReLU": (SlipReLU, QCFS_ARGUMENTS | SLIP_ARGUMENTS),
}


def site_to_plain(site: nn.Module) -> dict[str, Plain]:
    """Write a site without its tensors."""
    kind = type(site).__name__
    if type(site) is not Site:
        raise ConversionError(
            f"the network calls a {kind}, which is no spiking site that a file can name. Save the "
            "network as `topospike.convert` returned it."
        )
    neuron = site.neuron
    if type(neuron) not in NEURONS.values():
        raise ConversionError(
            f"{site.name}: a saved network cannot hold neurons of your own "
            f"({type(neuron).__name__}); those of topospike.snn.neurons are known: "
            f"{', '.join(NEURONS)}."
        )
    activation = site.activation
    return {
        "name": site.name,
        "gated": site.gated,
        "neuron": {"kind": type(neuron).__name__, **settings_of(neuron)},
        "coding": {"name": site.coding.name, **settings_of(site.coding)},
        "activation": None if activation is None else activation_to_plain(site.name, activation),
    }


def settings_of(rule: Neuron | Coding) -> dict[str, Plain]:
    """Return the arguments that make this neuron or coding."""
    fields = dataclasses.fields(rule)  # pyright: ignore[reportArgumentType]
    return {field.name: getattr(rule, field.name) for field in fields if field.init}


def activation_to_plain(name: str, activation: nn.Module) -> dict[str, Plain]:
    """Write the settings of a trained activation."""
    kind = type(activation).__name__
    if not isinstance(activation, QCFS) or ACTIVATIONS.get(kind, (None,))[0] is not type(
        activation
    ):
        raise ConversionError(
            f"{name}: a saved network cannot hold a trained {kind}; {', '.join(ACTIVATIONS)} are "
            "known. Keep the trained model and convert it again instead of saving."
        )
    return {
        "kind": kind,
        "channels": len(activation.beta) if activation.beta.ndim else None,
        **{name: getattr(activation, kept) for name, kept in ACTIVATIONS[kind][1].items()},
    }


def site_from_plain(plain: dict[str, Plain], tensors: dict[str, Tensor]) -> Site:
    """Build a site and give it its tensors (``threshold``, ``activation.beta``).

    Raises
    ------
    ValueError, LookupError, TypeError
        If the description or the tensors are not those of a site.
    """
    settings = dict(plain["neuron"])
    neuron = NEURONS[settings.pop("kind")](**settings)
    of_coding = dict(plain["coding"])
    name = of_coding.pop("name")
    coding = SET_CODINGS[name](**of_coding) if name in SET_CODINGS else CODINGS[name]
    site = Site(plain["name"], gated=plain["gated"], neuron=neuron, coding=coding)
    if plain["activation"] is not None:
        site.activation = activation_from_plain(plain["activation"], tensors)
    site.threshold = tensors["threshold"]
    return site


def activation_from_plain(plain: dict[str, Plain], tensors: dict[str, Tensor]) -> nn.Module:
    """Build a trained activation with its threshold."""
    settings = dict(plain)
    build, _ = ACTIVATIONS[settings.pop("kind")]
    activation = build(**settings).requires_grad_(False)
    beta = tensors["activation.beta"]
    if beta.shape != activation.beta.shape:
        raise ValueError(f"beta has shape {tuple(beta.shape)}, not {tuple(activation.beta.shape)}")
    activation.beta = nn.Parameter(beta, requires_grad=False)
    return activation
