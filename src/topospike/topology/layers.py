"""Stage topology: the layers of a network that carry links, and which of them a user means.

One record, one listing, one selection, for sparse training and for pruning. Names say nothing about
a layer: its kind comes from its type, and the classifier is the layer whose weight enters the last
weighted operation of the model's graph. That may be a weight which is not listed (a transposed
convolution, a product with an embedding); then there is no classifier.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar, cast

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.registry import suggestion
from topospike.topology.classifier import CONVOLUTIONS, dotted, last_weights

T = TypeVar("T")

KINDS = ("linear", "conv")
SUFFIX = "_mask"


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer with links.

    Attributes
    ----------
    name
        Dotted path of the module in the model.
    module
        The module that owns the weight.
    parameter
        Dotted name of the weight in the model.
    kind
        ``linear`` or ``conv``.
    groups
        Groups of a convolution, else 1.
    is_classifier
        Whether the weight enters the last weighted operation of the network; ``None`` where nobody
        has looked (`masked_layers`).
    tied
        Other names of the same weight. One mask cannot belong to several places, so a tied weight
        gets none.
    """

    name: str
    module: nn.Module
    parameter: str
    kind: Literal["linear", "conv"]
    groups: int
    is_classifier: bool | None = None
    tied: tuple[str, ...] = ()

    @property
    def attribute(self) -> str:
        """Name of the weight in its module."""
        return self.parameter.rpartition(".")[2]

    @property
    def weight(self) -> nn.Parameter:
        """The weight itself.

        Raises
        ------
        ConfigError
            If something has taken the place of the plain parameter.
        """
        weight = self.module._parameters.get(self.attribute)
        if weight is None:
            raise ConfigError(
                f"layer {self.name!r} has no plain weight parameter (a parametrization replaced "
                "it); remove the parametrization first."
            )
        return weight

    @property
    def mask(self) -> Bool[Tensor, "*shape"] | None:
        """The mask buffer, or ``None`` for a dense layer."""
        return get_mask(self.module, self.attribute)

    @property
    def trains(self) -> bool:
        """Whether the weight requires a gradient; a frozen one keeps weight and links."""
        return self.weight.requires_grad

    @property
    def is_depthwise(self) -> bool:
        """Whether every output has a graph of its own, in which no link says anything of others."""
        return self.groups > 1 and self.weight.shape[0] == self.groups


def get_mask(module: nn.Module, name: str = "weight") -> Bool[Tensor, "*shape"] | None:
    """Return the mask buffer of a parameter itself (not a copy), or ``None`` for a dense one.

    Examples
    --------
    >>> get_mask(nn.Linear(2, 2)) is None
    True
    """
    buffer = module._buffers.get(name + SUFFIX)
    is_mask = buffer is not None and buffer.dtype is torch.bool
    return buffer if is_mask and module._parameters.get(name) is not None else None


def original(model: nn.Module) -> nn.Module:
    """Return the module that ``torch.compile`` has wrapped, or the model itself."""
    while isinstance(inner := model._modules.get("_orig_mod"), nn.Module):
        model = inner
    return model


def weight_layers(model: nn.Module, example: Tensor | None = None) -> list[Layer]:
    """List the convolutions and linear layers of a model, in module order.

    Parameters
    ----------
    model
        Any module; of a compiled one the original is meant. It is not changed.
    example : Tensor, shape (batch, ...), optional
        One input batch, of any device. With it the classifier is read from the exported graph, or,
        where that cannot be had, from a real run in evaluation mode.

    Returns
    -------
    list of Layer
        ``is_classifier`` is true for the layer whose weight enters the last weighted operation
        of the graph, and for none if that weight is not listed.

    Raises
    ------
    ConfigError
        If the model has lazy layers whose weights do not exist yet.

    Notes
    -----
    Without an example the order comes from `torch.fx`. Where that fails (control flow that depends
    on data) the order of registration is used, which is almost always the order of execution; the
    logger ``topospike.topology.classifier`` then says so. A layer used several times counts where
    it runs last. Transposed convolutions and the packed input projection of
    ``nn.MultiheadAttention`` are not listed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    >>> [(layer.name, layer.kind, layer.is_classifier) for layer in weight_layers(net)]
    [('0', 'conv', False), ('3', 'linear', True)]
    """
    model = original(model)
    layers = listed(model)
    last = last_weights(model, example) if layers else frozenset()
    return [dataclasses.replace(layer, is_classifier=owns(layer, last)) for layer in layers]


def masked_layers(model: nn.Module) -> list[Layer]:
    """List every parameter that has a mask, whatever its name, in module order.

    Nothing asks here which layer is the classifier.

    Examples
    --------
    >>> from topospike.topology import register_mask
    >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    >>> register_mask(model[1], torch.eye(2, dtype=torch.bool))
    >>> [(layer.name, layer.parameter) for layer in masked_layers(model)]
    [('1', '1.weight')]
    """
    return [
        Layer(path, module, dotted(path, name), kind_of(parameter), groups_of(module))
        for path, module in original(model).named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if get_mask(module, name) is not None
    ]


def masks_of(model: nn.Module) -> dict[str, Bool[Tensor, ...]]:
    """Return the mask buffers of a model by the names of their parameters, in module order.

    Examples
    --------
    >>> from topospike.topology import register_mask
    >>> model = nn.Sequential(nn.Linear(2, 2))
    >>> register_mask(model[0], torch.eye(2, dtype=torch.bool))
    >>> [(name, int(mask.sum())) for name, mask in masks_of(model).items()]
    [('0.weight', 2)]
    """
    found = {layer.parameter: layer.mask for layer in masked_layers(model)}
    return {name: mask for name, mask in found.items() if mask is not None}


def listed(model: nn.Module) -> list[Layer]:
    """List convolutions and linear layers, without a look at the graph."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    layers: list[Layer] = []
    for path, module in model.named_modules():
        if not isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            continue
        weight = module._parameters.get("weight")
        if weight is not None and nn.parameter.is_lazy(weight):
            raise ConfigError(
                f"layer {path!r} is lazy and has no weight yet; run the model once on real input"
            )
        # A parametrization keeps the numbers under another name.
        hidden = weight is None and hasattr(module, "parametrizations")
        parameter = dotted(path, "parametrizations.weight.original" if hidden else "weight")
        kind = "linear" if isinstance(module, nn.Linear) else "conv"
        tied = tuple(name for name in names.get(id(weight), ()) if name != parameter)
        layers.append(Layer(path, module, parameter, kind, groups_of(module), tied=tied))
    return layers


def kind_of(weight: Tensor) -> Literal["linear", "conv"]:
    """Return the kind of layer that a weight of this shape belongs to."""
    return "linear" if weight.dim() < 3 else "conv"


def groups_of(module: nn.Module) -> int:
    """Return the groups of a convolution, 1 for anything else."""
    return module.groups if isinstance(module, CONVOLUTIONS) else 1


def owns(layer: Layer, parameters: Iterable[str]) -> bool:
    """Say whether one of these parameters is a layer's weight, under any of its names."""
    paths = (layer.name, *(name.rpartition(".")[0] for name in layer.tied))
    return any(name.startswith(tuple(dotted(path, "") for path in paths)) for name in parameters)


def check_names(value: object, layers: Iterable[Layer]) -> None:
    """Raise `ConfigError` for a key that is neither a kind nor a layer nor a weight."""
    if not isinstance(value, Mapping):
        return
    layers = list(layers)
    known = [*KINDS, *(layer.name for layer in layers if layer.name not in KINDS)]
    accepted = {*known, *(layer.parameter for layer in layers)}
    for key in value:
        if key not in accepted:
            raise ConfigError(
                f"unknown layer or kind {key!r}. Known: {', '.join(known)}."
                f"{suggestion(str(key), known)}"
            )


def named_entry(value: Mapping[str, T], layer: Layer) -> T | None:
    """Return the entry under a layer's own name, or under that of its weight.

    A layer that is called ``linear`` or ``conv`` has to be named by its weight: those words mean
    the kinds.
    """
    own = None if layer.name in KINDS else value.get(layer.name)
    return value.get(layer.parameter) if own is None else own


def choice(value: T | Mapping[str, T], layer: Layer) -> T | None:
    """Return what was chosen for a layer: by its name, else by its kind, else ``None``.

    Examples
    --------
    >>> first, second = weight_layers(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)))
    >>> choice({"linear": 0.5, "1": 0.9}, first), choice({"linear": 0.5, "1": 0.9}, second)
    (0.5, 0.9)
    """
    if not isinstance(value, Mapping):
        return value
    entries = cast("Mapping[str, T]", value)
    own = named_entry(entries, layer)
    return entries.get(layer.kind) if own is None else own


def select(
    layers: Iterable[Layer], sparsity: float | Mapping[str, float]
) -> list[tuple[Layer, float]]:
    """Choose the layers that become sparse, each with its share of absent links.

    Parameters
    ----------
    layers
        As `weight_layers` lists them.
    sparsity
        One number for all layers, or numbers by kind (``linear``, ``conv``), by layer name or by
        the name of the weight; a name goes before a kind. 0, and kinds that are not listed, leave
        layers dense. The classifier stays dense unless it is listed by name, depthwise
        convolutions always.

    Raises
    ------
    ConfigError
        For names that do not exist, numbers outside [0, 1), and chosen weights that are tied,
        parametrized or masked already.

    Examples
    --------
    >>> layers = weight_layers(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    >>> [(layer.name, share) for layer, share in select(layers, 0.5)]
    [('0', 0.5)]
    >>> [(layer.name, share) for layer, share in select(layers, {"2": 0.5})]
    [('2', 0.5)]
    """
    layers = list(layers)
    check_names(sparsity, layers)
    check_shares("sparsity", sparsity)
    chosen = [(layer, choice(sparsity, layer)) for layer in layers]
    return [
        (layer, share)
        for layer, share in chosen
        if share and may_be_sparse(layer, is_named=is_named(sparsity, layer))
    ]


def is_named(value: object, layer: Layer) -> bool:
    """Say whether a mapping lists a layer by a name of its own, not by its kind."""
    return isinstance(value, Mapping) and named_entry(value, layer) is not None


def check_shares(what: str, value: float | Mapping[str, float] | None) -> None:
    """Raise `ConfigError` for a share of absent links outside [0, 1)."""
    for key, number in (value if isinstance(value, Mapping) else {"": value}).items():
        if number is not None and not 0.0 <= number < 1.0:
            place = f" of {key!r}" if key else ""
            raise ConfigError(
                f"{what}{place} is {number!r}; it must lie in [0, 1): 0 keeps every link, "
                "0.99 keeps one in a hundred."
            )


def may_be_sparse(layer: Layer, *, is_named: bool) -> bool:
    """Apply the defaults, and refuse a weight that cannot have a mask of its own."""
    if layer.is_classifier and not is_named:
        return False
    if layer.is_depthwise:
        if is_named:
            raise ConfigError(
                f"layer {layer.name!r} is a depthwise convolution: each output has one row of its "
                "own, so no link can be predicted from others. Leave it dense."
            )
        return False
    _ = layer.weight
    if layer.tied:
        raise ConfigError(
            f"{layer.parameter} is the same weight as {', '.join(layer.tied)}; one mask cannot "
            "belong to several places. Untie them, or leave the layer out: "
            f"sparsity={{..., {layer.parameter!r}: 0}}."
        )
    if layer.mask is not None:
        raise ConfigError(
            f"{layer.parameter} has a mask already. Start from a dense network, or leave this "
            "layer out; a sparsifier is restored with load_state_dict."
        )
    return True
