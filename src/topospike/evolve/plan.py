"""Stage 2 (evolve): which layers are sparse, how sparse, and by which score they grow.

A plan is made once, from the model and the settings, and never changes. A layer that is not in the
plan is dense and gets no mask: "dense" and "a mask of ones" are different states. Link counts are
integers fixed here; nothing later recomputes them from a float.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.recipe import SparsitySettings
from topospike.topology import (
    INITIAL_TOPOLOGIES,
    Layer,
    active_count,
    check_names,
    choice,
    is_named,
    select,
    weight_layers,
)

DEFAULT_INITIAL_SPARSITY = 0.5
CORRELATED = ("csti", "sscti")
"""Initial topologies of layers that see the input, drawn from how its features correlate."""


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One sparse layer: ``links`` of ``size`` possible ones in the end, ``initial_links`` at first.

    ``score`` is the link-prediction rule of Cannistraci-Hebb growth in this layer.
    """

    layer: Layer
    initial_sparsity: float
    sparsity: float
    initial_links: int
    links: int
    initial_topology: str
    score: str

    @property
    def name(self) -> str:
        """Name of the layer."""
        return self.layer.name

    @property
    def kind(self) -> str:
        """Kind of the layer, ``linear`` or ``conv``."""
        return self.layer.kind

    @property
    def is_classifier(self) -> bool:
        """Whether the layer is the network's classifier."""
        return bool(self.layer.is_classifier)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.layer.weight.shape)

    @property
    def size(self) -> int:
        """Number of possible links."""
        return math.prod(self.shape)

    def description(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "kind": self.kind,
            "shape": list(self.shape),
            "groups": self.layer.groups,
            "is_classifier": self.is_classifier,
            "initial_sparsity": self.initial_sparsity,
            "sparsity": self.sparsity,
            "initial_links": self.initial_links,
            "links": self.links,
            "initial_topology": self.initial_topology,
            "score": self.score,
        }


def build_plan(
    model: nn.Module, settings: SparsitySettings, *, decays: bool, example: Tensor | None = None
) -> dict[str, LayerPlan]:
    """Choose the sparse layers of a model and fix their link counts.

    Parameters
    ----------
    model
        Dense model; not changed.
    settings
        Shares by kind or layer name; see `topospike.topology.select` for what they select.
    decays
        Whether density falls from the initial to the final sparsity.
    example
        One input batch, to see which layer is the classifier.

    Returns
    -------
    dict
        Layer name -> plan, in module order.

    Raises
    ------
    ConfigError
        For names that do not exist, initial above final sparsity, weights that are tied or masked
        already, or if no layer is left.

    Warns
    -----
    UserWarning
        If a layer is frozen and therefore left as it is.
    """
    layers = weight_layers(model, example)
    check_names(settings.initial_shares, layers)
    check_names(settings.initial_topology, layers)
    plan = {
        layer.name: plan_layer(layer, sparsity, settings, decays=decays)
        for layer, sparsity in select(layers, settings.shares)
        if require_training(layer, is_named=is_named(settings.shares, layer))
    }
    if not plan:
        found = ", ".join(f"{layer.name} ({layer.kind})" for layer in layers) or "none"
        raise ConfigError(
            f"sparsity={settings.shares} selects no layer to sparsify. Layers with links: {found}; "
            "the classifier, frozen layers and depthwise convolutions stay dense. Give a sparsity "
            "above 0 for a kind or a layer name that exists."
        )
    return plan


def require_training(layer: Layer, *, is_named: bool) -> bool:
    """Leave a frozen weight out, with a word; refuse it where it was asked for by name."""
    if layer.trains:
        return True
    said = f"{layer.parameter} does not require a gradient, so its links cannot evolve"
    if is_named:
        raise ConfigError(f"{said}. Leave the layer out, or unfreeze it.")
    warnings.warn(f"{said}; the layer stays as it is.", UserWarning, stacklevel=2)
    return False


def plan_layer(
    layer: Layer, sparsity: float, settings: SparsitySettings, *, decays: bool
) -> LayerPlan:
    """Fix the numbers of one layer."""
    size = layer.weight.numel()
    initial = initial_sparsity_of(layer, sparsity, settings) if decays else sparsity
    topology = choice(settings.initial_topology, layer) or "er"
    _ = INITIAL_TOPOLOGIES[topology]
    if topology in CORRELATED and layer.kind == "conv":
        raise ConfigError(
            f"layer {layer.name!r} is a convolution; {topology} correlates input features and fits "
            f"linear layers only. Use initial_topology={{'linear': {topology!r}, 'conv': 'er'}}."
        )
    return LayerPlan(
        layer=layer,
        initial_sparsity=initial,
        sparsity=sparsity,
        initial_links=active_count(size, initial),
        links=active_count(size, sparsity),
        initial_topology=topology,
        score=settings.linear_score if layer.kind == "linear" else settings.conv_score,
    )


def initial_sparsity_of(layer: Layer, sparsity: float, settings: SparsitySettings) -> float:
    """Return where a layer whose density falls starts."""
    if not settings.initial_shares:
        return min(DEFAULT_INITIAL_SPARSITY, sparsity)
    initial = choice(settings.initial_shares, layer)
    if initial is None:
        return sparsity
    if initial > sparsity:
        raise ConfigError(
            f"layer {layer.name!r} would start at sparsity {initial} and end at {sparsity}; "
            "density can only fall. Give an initial sparsity at or below the final one."
        )
    return initial
