"""Models: which layers carry weights that can be sparse, and which one is the classifier.

Convolutions and linear layers carry the links of a topology; the classifier stays dense in the
paper. Nothing here looks at names: the classifier is the linear layer that runs last, read from a
symbolic run of the model, or from a real one on an example.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, fx, nn

from topospike.errors import ConfigError

logger = logging.getLogger(__name__)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WeightedModule = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


@dataclass(frozen=True)
class WeightLayer:
    """One layer with links.

    ``name`` is its dotted path in the model and ``name + ".weight"`` its parameter; ``groups`` is
    1 for a linear layer.
    """

    name: str
    module: nn.Module
    kind: Literal["conv", "linear"]
    is_classifier: bool
    groups: int

    @property
    def parameter(self) -> str:
        """Dotted name of the weight."""
        return f"{self.name}.weight" if self.name else "weight"


def weight_layers(model: nn.Module, example: Tensor | None = None) -> list[WeightLayer]:
    """List the convolutions and linear layers of a model, in module order.

    Parameters
    ----------
    model
        Any module. It is neither changed nor, without an example, run on data.
    example : Tensor, shape (batch, ...), optional
        Input for one real run in evaluation mode, which settles the execution order of models
        that cannot be traced symbolically.

    Returns
    -------
    list of WeightLayer
        Exactly one has ``is_classifier`` (if there is any layer): the linear layer that runs
        last; in a model without linear layers the convolution that runs last.

    Raises
    ------
    ConfigError
        If the model has lazy layers whose weights do not exist yet.

    Notes
    -----
    Without an example the order comes from `torch.fx`. Where that fails (control flow that depends
    on data) the order of registration is used, which is almost always the order of execution; the
    logger ``topospike.models.layers`` then says so. A layer used several times counts where it
    runs last. Transposed convolutions and the packed input projection of
    ``nn.MultiheadAttention`` are not listed.

    Examples
    --------
    >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    >>> [(layer.name, layer.kind, layer.is_classifier) for layer in weight_layers(net)]
    [('0', 'conv', False), ('3', 'linear', True)]
    """
    found = weighted_modules(model)
    last = classifier_name(model, found, example)
    return [
        WeightLayer(
            name=name,
            module=module,
            kind="linear" if isinstance(module, nn.Linear) else "conv",
            is_classifier=name == last,
            groups=1 if isinstance(module, nn.Linear) else module.groups,
        )
        for name, module in found.items()
    ]


def weighted_modules(model: nn.Module) -> dict[str, WeightedModule]:
    """Return the convolutions and linear layers of a model by name, in the order of registration.

    Raises
    ------
    ConfigError
        If the model has lazy layers whose weights do not exist yet.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, *CONVOLUTIONS))
    }
    for name, module in found.items():
        if nn.parameter.is_lazy(module.weight):
            raise ConfigError(
                f"layer {name!r} is lazy and has no weight yet; run the model once on real input"
            )
    return found


def classifier_name(
    model: nn.Module, found: Mapping[str, nn.Module], example: Tensor | None
) -> str | None:
    """Name of the linear layer (else convolution) that runs last; ``None`` without layers."""
    linear = [name for name, module in found.items() if isinstance(module, nn.Linear)]
    candidates = linear or list(found)
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    order = traced_order(model) if example is None else observed_order(model, found, example)
    ran = [name for name in order if name in candidates]
    return ran[-1] if ran else candidates[-1]


def traced_order(model: nn.Module) -> list[str]:
    """Names of modules in the order a symbolic run meets them; empty if it cannot run."""
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        # A copy of the structure around the same tensors: tracing may leave proxies in attributes.
        graph = fx.symbolic_trace(copy.deepcopy(model, shared)).graph
    except Exception as error:  # any code of the user's may run, and fail in any way, in here
        logger.warning(
            "%s cannot be traced symbolically (%s: %s); taking the last registered linear layer "
            "as the classifier. Pass an example to settle it.",
            type(model).__name__,
            type(error).__name__,
            error,
        )
        return []
    names = [
        node.target.removesuffix(".weight")
        for node in graph.nodes
        if node.op in ("call_module", "get_attr") and isinstance(node.target, str)
    ]
    return names


def observed_order(model: nn.Module, found: Mapping[str, nn.Module], example: Tensor) -> list[str]:
    """Names of layers in the order they ran on an example; modes are put back afterwards."""
    order: list[str] = []
    modes = {module: module.training for module in model.modules()}
    hooks = [
        module.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, module in found.items()
    ]
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes.items():
            module.training = training
    return order
