"""Stage 2 (evolve): which layers are sparse, how sparse, and by which score they grow.

A plan is made once, from the model and the user's numbers, and never changes. A layer that is not
in the plan is dense and gets no mask: "dense" and "a mask of ones" are different states. Link
counts are integers fixed here; nothing later recomputes them from a float.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.evolve.score_rules import SCORE_RULES
from topospike.models import WeightLayer, weight_layers
from topospike.registry import suggestion
from topospike.topology import INITIAL_TOPOLOGIES, active_count, get_mask

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


def beside(model: nn.Module, example: Tensor | None) -> Tensor | None:
    """Return the example on the model's device; a model is moved only when it is trained."""
    parameter = next(model.parameters(), None)
    return example if example is None or parameter is None else example.to(parameter.device)


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
    layers = weight_layers(model, beside(model, example))
    for what in (settings.sparsity, settings.initial_sparsity, settings.initial_topology):
        check_names(what, layers)
    check_sparsities(settings)
    plan: dict[str, LayerPlan] = {}
    for layer in layers:
        sparsity = chosen(settings.sparsity, layer)
        if sparsity and is_selected(layer, settings.sparsity):
            check_parameter(model, layer)
            plan[layer.name] = plan_layer(layer, sparsity, settings)
    if not plan:
        found = ", ".join(f"{layer.name} ({layer.kind})" for layer in layers) or "none"
        raise ConfigError(
            f"sparsity={settings.sparsity!r} selects no layer to sparsify. Layers with links: "
            f"{found}; the classifier and depthwise convolutions stay dense. Give a sparsity "
            "above 0 for a kind or a layer name that exists."
        )
    return plan


def plan_layer(layer: WeightLayer, sparsity: float, settings: PlanSettings) -> LayerPlan:
    """Fix the numbers of one layer."""
    shape = tuple(weight_of(layer).shape)
    size = math.prod(shape)
    initial = initial_sparsity_of(layer, sparsity, settings)
    topology = chosen(settings.initial_topology, layer) or "er"
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
        is_classifier=layer.is_classifier,
        initial_sparsity=initial,
        sparsity=sparsity,
        initial_links=active_count(size, initial),
        links=active_count(size, sparsity),
        initial_topology=topology,
        score=SCORE_RULES[score].name,
    )


def initial_sparsity_of(layer: WeightLayer, sparsity: float, settings: PlanSettings) -> float:
    """Return where a layer starts: at its target unless the rule lets density fall."""
    if not settings.decays:
        return sparsity
    if settings.initial_sparsity is None:
        return min(DEFAULT_INITIAL_SPARSITY, sparsity)
    initial = chosen(settings.initial_sparsity, layer)
    if initial is None:
        return sparsity
    if initial > sparsity:
        raise ConfigError(
            f"layer {layer.name!r} would start at sparsity {initial} and end at {sparsity}; "
            "density can only fall. Give an initial_sparsity at or below the final one."
        )
    return initial


def chosen(value, layer: WeightLayer):
    """Return the entry for a layer: by its name, else by its kind, else ``None``."""
    if not isinstance(value, Mapping):
        return value
    return value.get(layer.name, value.get(layer.kind))


def is_selected(layer: WeightLayer, sparsity: float | Mapping[str, float]) -> bool:
    """Apply the defaults: classifier dense unless named, depthwise always dense."""
    named = isinstance(sparsity, Mapping) and layer.name in sparsity
    if weight_of(layer).shape[0] == layer.groups and layer.groups > 1:
        if named:
            raise ConfigError(
                f"layer {layer.name!r} is a depthwise convolution: each output has one row of its "
                "own, so no link can be predicted from others. Leave it dense."
            )
        return False
    return named or not layer.is_classifier


def check_names(value: object, layers: list[WeightLayer]) -> None:
    """Raise `ConfigError` for a key that is neither a kind nor a layer."""
    known = ["linear", "conv", *(layer.name for layer in layers)]
    for key in value if isinstance(value, Mapping) else ():
        if key not in known:
            raise ConfigError(
                f"unknown layer or kind {key!r}. Known: {', '.join(known)}."
                f"{suggestion(str(key), known)}"
            )


def check_sparsities(settings: PlanSettings) -> None:
    """Raise `ConfigError` for a sparsity outside [0, 1), or an initial one that is not used."""
    for what, value in (
        ("sparsity", settings.sparsity),
        ("initial_sparsity", settings.initial_sparsity),
    ):
        for key, number in (value if isinstance(value, Mapping) else {"": value}).items():
            if number is not None and not 0.0 <= number < 1.0:
                place = f" of {key!r}" if key else ""
                raise ConfigError(
                    f"{what}{place} is {number!r}; it must lie in [0, 1): 0 keeps every link, "
                    "0.99 keeps one in a hundred."
                )
    if settings.initial_sparsity is not None and not settings.decays:
        raise ConfigError(
            f"initial_sparsity={settings.initial_sparsity!r} needs a rule whose density falls "
            "(chtss, granet, gmp); the chosen one keeps it. Leave initial_sparsity out."
        )
    topologies = settings.initial_topology
    for name in topologies.values() if isinstance(topologies, Mapping) else (topologies,):
        _ = INITIAL_TOPOLOGIES[name]


def check_parameter(model: nn.Module, layer: WeightLayer) -> None:
    """Refuse a weight that is shared, does not train, or has a mask already."""
    weight = weight_of(layer)
    owners = Counter(
        id(parameter) for _, parameter in model.named_parameters(remove_duplicate=False)
    )
    if owners[id(weight)] > 1:
        raise ConfigError(
            f"{layer.parameter} is shared by {owners[id(weight)]} modules; one mask cannot belong "
            "to several places. Leave the layer out, for example "
            f"sparsity={{..., {layer.name!r}: 0}}."
        )
    if not weight.requires_grad:
        raise ConfigError(
            f"{layer.parameter} does not require a gradient, so its links cannot evolve. Leave "
            f"the layer out with sparsity={{..., {layer.name!r}: 0}}, or unfreeze it."
        )
    if get_mask(layer.module) is not None:
        raise ConfigError(
            f"{layer.parameter} has a mask already. Sparsify a freshly built model, or restore a "
            "sparsifier with load_state_dict."
        )


def weight_of(layer: WeightLayer) -> nn.Parameter:
    """Return the weight parameter of a layer."""
    weight = layer.module._parameters.get("weight")
    if weight is None:
        raise ConfigError(
            f"layer {layer.name!r} has no plain weight parameter (a parametrization replaced it); "
            "remove the parametrization first."
        )
    return weight
