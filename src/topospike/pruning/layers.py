"""Stage prune: which layers of a model are pruned, and how far.

Nothing goes by name: linear layers and convolutions are found by type, the classifier by the order
of execution. The classifier and depthwise convolutions stay dense unless, the classifier only, a
layer is listed by its own name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from topospike.errors import ConfigError
from topospike.topology import Layer, get_mask, select, weight_layers

Sparsity = float | Mapping[str, float]


@dataclass(frozen=True, slots=True)
class PruningTarget:
    """One layer to prune, and the share of its links to take."""

    name: str
    kind: str
    module: nn.Module
    groups: int
    sparsity: float

    @property
    def weight(self) -> nn.Parameter:
        """The layer's weight."""
        return self.module.weight  # pyright: ignore[reportReturnType]

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of a convolution's kernel; empty for a linear layer."""
        return tuple(self.weight.shape[2:])

    @property
    def inputs(self) -> int:
        """Inputs of one output, after unfolding."""
        return math.prod(self.weight.shape[1:])


def find_targets(
    model: nn.Module, sparsity: Sparsity, example: Tensor | None = None
) -> list[PruningTarget]:
    """List the layers to prune, in module order.

    Parameters
    ----------
    model
        Dense model; not changed.
    sparsity
        One number for every linear layer; or numbers by kind (``linear``, ``conv``) or layer
        name, where the name wins and what is not listed stays dense.
    example : Tensor, shape (batch, ...), optional
        One batch, to see which layer runs last.

    Raises
    ------
    ConfigError
        If no layer is left, a name does not exist, a number lies outside [0, 1), or a layer has a
        mask already.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> [(target.name, target.sparsity) for target in find_targets(model, 0.5)]
    [('0', 0.5)]
    """
    wanted = sparsity if isinstance(sparsity, Mapping) else {"linear": sparsity}
    layers = weight_layers(model, example)
    targets = [
        PruningTarget(layer.name, layer.kind, layer.module, layer.groups, share)
        for layer, share in select(layers, wanted)
    ]
    if not targets and any(wanted.values()):
        raise ConfigError(nothing_to_prune(model, layers, sparsity))
    return targets


def nothing_to_prune(model: nn.Module, layers: list[Layer], sparsity: Sparsity) -> str:
    """Say which layers there are and how to select them."""
    found = ", ".join(
        f"{layer.name} ({'classifier' if layer.is_classifier else layer.kind})" for layer in layers
    )
    return (
        f"{type(model).__name__} has no layer that sparsity={sparsity!r} selects. Its layers: "
        f"{found or 'none'}. One number prunes linear layers other than the classifier; give "
        "sparsity={'conv': ..., 'linear': ...} for convolutions, or name layers."
    )


def check_dense(layer: Layer) -> None:
    """Refuse a layer that has a mask already."""
    if get_mask(layer.module) is not None:
        raise ConfigError(
            f"{layer.parameter} has a mask already. Pruning starts from a dense network: pass the "
            "dense one, or leave this layer out."
        )


def as_matrices(
    weight: Float[Tensor, "outputs ..."], groups: int
) -> Float[Tensor, "groups outputs inputs"]:
    """View a weight as one matrix a group, convolutions unfolded as in im2col.

    Examples
    --------
    >>> import torch
    >>> as_matrices(torch.zeros(6, 2, 3, 3), groups=2).shape
    torch.Size([2, 3, 18])
    """
    return weight.reshape(groups, weight.shape[0] // groups, -1)
