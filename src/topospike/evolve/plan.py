"""Stage 2 (evolve): which layers are sparse, how sparse, and by which score they grow.

A plan is made once, from the model and the user's numbers, and never changes. A layer that is not
in the plan is dense and gets no mask: "dense" and "a mask of ones" are different states. Link
counts are integers fixed here; nothing later recomputes them from a float.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.evolve.score_rules import SCORE_RULES
from topospike.topology import (
    INITIAL_TOPOLOGIES,
    Layer,
    active_count,
    check_names,
    check_shares,
    choice,
    is_named,
    select,
    weight_layers,
)

DEFAULT_INITIAL_SPARSITY = 0.5


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One sparse layer: ``links`` of ``size`` possible ones in the end, ``initial_links`` at first.

    ``score`` is the link-prediction rule of Cannistraci-Hebb growth in this layer.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    groups: int
    is_classifier: bool
    initial_sparsity: float
    sparsity: float
    initial_links: int
    links: int
    initial_topology: str
    score: str

    @property
    def parameter(self) -> str:
        """Dotted name of the weight."""
        return f"{self.name}.weight" if self.name else "weight"

    @property
    def size(self) -> int:
        """Number of possible links."""
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """The user's numbers, by kind of layer or by layer name."""

    sparsity: float | Mapping[str, float]
    initial_sparsity: float | Mapping[str, float] | None
    initial_topology: str | Mapping[str, str]
    linear_score: str
    conv_score: str
    decays: bool


def build_plan(
    model: nn.Module, settings: PlanSettings, *, example: Tensor | None = None
) -> dict[str, LayerPlan]:
    """Choose the sparse layers of a model and fix their link counts.

    Parameters
    ----------
    model
        Dense model; not changed.
    settings
        ``sparsity`` and ``initial_sparsity`` are numbers for all layers, or mappings from kind
        (``linear``, ``conv``) or layer name; the name wins. Sparsity 0, or a kind that is not
        listed, leaves layers dense. The classifier and depthwise convolutions stay dense unless
        a layer is listed by its own name (depthwise ones cannot be).
    example
        One input batch, to see which layer runs last and so is the classifier.

    Returns
    -------
    dict
        Layer name -> plan, in module order.

    Raises
    ------
    ConfigError
        For names that do not exist, sparsities outside [0, 1), initial above final sparsity,
        weights that are shared, frozen or masked already, or if no layer is left.
    """
    layers = weight_layers(model, example)
    for what in (settings.initial_sparsity, settings.initial_topology):
        check_names(what, layers)
    check_sparsities(settings)
    plan = {
        layer.name: plan_layer(layer, sparsity, settings)
        for layer, sparsity in select(layers, settings.sparsity)
        if require_training(layer, is_named=is_named(settings.sparsity, layer))
    }
    if not plan:
        found = ", ".join(f"{layer.name} ({layer.kind})" for layer in layers) or "none"
        raise ConfigError(
            f"sparsity={settings.sparsity!r} selects no layer to sparsify. Layers with links: "
            f"{found}; the classifier and depthwise convolutions stay dense. Give a sparsity "
            "above 0 for a kind or a layer name that exists."
        )
    return plan


def plan_layer(layer: Layer, sparsity: float, settings: PlanSettings) -> LayerPlan:
    """Fix the numbers of one layer."""
    shape = tuple(layer.weight.shape)
    size = math.prod(shape)
    initial = initial_sparsity_of(layer, sparsity, settings)
    topology = choice(settings.initial_topology, layer) or "er"
    if topology == "csti" and layer.kind == "conv":
        raise ConfigError(
            f"layer {layer.name!r} is a convolution; csti correlates input features and fits "
            "linear layers only. Use initial_topology={'linear': 'csti', 'conv': 'er'}."
        )
    score = settings.linear_score if layer.kind == "linear" else settings.conv_score
    return LayerPlan(
        name=layer.name,
        kind=layer.kind,
        shape=shape,
        groups=layer.groups,
        is_classifier=bool(layer.is_classifier),
        initial_sparsity=initial,
        sparsity=sparsity,
        initial_links=active_count(size, initial),
        links=active_count(size, sparsity),
        initial_topology=topology,
        score=SCORE_RULES[score].name,
    )


def initial_sparsity_of(layer: Layer, sparsity: float, settings: PlanSettings) -> float:
    """Return where a layer starts: at its target unless the rule lets density fall."""
    if not settings.decays:
        return sparsity
    if settings.initial_sparsity is None:
        return min(DEFAULT_INITIAL_SPARSITY, sparsity)
    initial = choice(settings.initial_sparsity, layer)
    if initial is None:
        return sparsity
    if initial > sparsity:
        raise ConfigError(
            f"layer {layer.name!r} would start at sparsity {initial} and end at {sparsity}; "
            "density can only fall. Give an initial_sparsity at or below the final one."
        )
    return initial


def check_sparsities(settings: PlanSettings) -> None:
    """Raise `ConfigError` for a sparsity outside [0, 1), or an initial one that is not used."""
    check_shares("initial_sparsity", settings.initial_sparsity)
    if settings.initial_sparsity is not None and not settings.decays:
        raise ConfigError(
            f"initial_sparsity={settings.initial_sparsity!r} needs a rule whose density falls "
            "(chtss, granet, gmp); the chosen one keeps it. Leave initial_sparsity out."
        )
    topologies = settings.initial_topology
    for name in topologies.values() if isinstance(topologies, Mapping) else (topologies,):
        _ = INITIAL_TOPOLOGIES[name]


def require_training(layer: Layer, *, is_named: bool) -> bool:
    """Leave a frozen weight out, with a word; refuse it where it was asked for by name."""
    if layer.trains:
        return True
    said = f"{layer.parameter} does not require a gradient, so its links cannot evolve"
    if is_named:
        raise ConfigError(f"{said}. Leave the layer out, or unfreeze it.")
    warnings.warn(f"{said}; the layer stays as it is.", UserWarning, stacklevel=2)
    return False
