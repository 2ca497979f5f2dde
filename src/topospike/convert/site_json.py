"""A site as plain JSON, and back: its neuron, its coding, and a trained activation if it has one.

Neurons are the frozen data classes of `topospike.snn.neurons`, written as their name and settings;
thresholds are tensors and lie with the weights (`topospike.convert.archive`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from topospike.convert.qcfs import QCFS
from topospike.errors import ConversionError
from topospike.registry import Registry
from topospike.snn import neurons
from topospike.snn.coding import CODINGS
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


def site_to_plain(site: nn.Module) -> dict[str, Plain]:
    """Write a site without its tensors."""
    if not isinstance(site, Site):
        raise ConversionError(
            f"the network calls a {type(site).__name__}, which is no spiking site and cannot be "
            "saved. Save the network as `topospike.convert` returned it."
        )
    if type(site) is not Site:
        raise ConversionError(
            f"{site.name}: a saved network cannot hold the {type(site).__name__} of methods srp "
            "and offset-spike. Keep the trained model and convert it again instead of saving."
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
        "coding": site.coding.name,
        "activation": None if activation is None else activation_to_plain(site.name, activation),
    }


def settings_of(neuron: Neuron) -> dict[str, Plain]:
    """Return the arguments that make this neuron."""
    fields = dataclasses.fields(neuron)  # pyright: ignore[reportArgumentType]
    return {field.name: getattr(neuron, field.name) for field in fields if field.init}


def activation_to_plain(name: str, activation: nn.Module) -> dict[str, Plain]:
    """Write the settings of a trained activation."""
    if type(activation) is not QCFS:
        raise ConversionError(
            f"{name}: a saved network cannot hold a trained {type(activation).__name__}; QCFS is "
            "known. Keep the trained model and convert it again instead of saving."
        )
    return {
        "kind": "QCFS",
        "steps": activation.steps,
        "channels": len(activation.beta) if activation.beta.ndim else None,
        "positive_map": activation.positive_map,
        "order": activation.order,
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
    site = Site(plain["name"], gated=plain["gated"], neuron=neuron, coding=CODINGS[plain["coding"]])
    if plain["activation"] is not None:
        site.activation = activation_from_plain(plain["activation"], tensors)
    site.threshold = tensors["threshold"]
    return site


def activation_from_plain(plain: dict[str, Plain], tensors: dict[str, Tensor]) -> nn.Module:
    """Build a trained activation with its threshold."""
    settings = dict(plain)
    build: Callable[..., QCFS] = {"QCFS": QCFS}[settings.pop("kind")]
    activation = build(**settings).requires_grad_(False)
    beta = tensors["activation.beta"]
    if beta.shape != activation.beta.shape:
        raise ValueError(f"beta has shape {tuple(beta.shape)}, not {tuple(activation.beta.shape)}")
    activation.beta = nn.Parameter(beta, requires_grad=False)
    return activation
