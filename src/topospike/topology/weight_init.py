"""Stage topology: the first weights of a sparse layer.

Kaiming's rule keeps the variance of activations when a neuron sums over its fan-in; with most links
absent the fan-in that counts is the sparse one. Biases are left alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from jaxtyping import Bool
from torch import Generator, Tensor, nn

from topospike.errors import ConfigError, ShapeError
from topospike.registry import Registry
from topospike.topology.bipartite import matrix_shape, to_bipartite

SPIKING_GAIN = math.sqrt(math.pi) / (math.sqrt(2.0) * math.exp(-0.5))


def init_weights(
    module: nn.Module,
    mask: Bool[Tensor, " n_out *rest"],
    *,
    kind: str = "swi",
    sparsity: float | None = None,
    threshold: float = 1.0,
    first: bool = False,
    generator: Generator,
) -> None:
    """Set the weight of a layer, in place, to starting values that fit its links; 0 elsewhere.

    Parameters
    ----------
    module
        Owner of ``weight``: a linear layer or a convolution.
    mask : bool, shape of the weight
        Present links; need not be registered.
    kind
        ``swi``: normal, variance ``2 / ((1 - S) n_in)`` (sparse weight initialisation).
        ``sparse_kaiming``: normal, variance ``2 / k_i`` with k_i the links of output neuron i.
        ``sswi``: normal, variance ``g / ((1 - S) n_in)``, for layers before spiking neurons (see
        Notes). ``model``: the values the model came with. ``model_scaled``: these over
        ``sqrt(1 - S)``, which restores the variance that masking takes away.
    sparsity
        S, the initial sparsity, in [0, 1); ``None`` takes the mask's own. ``sparse_kaiming`` and
        ``model`` do not use it.
    threshold, first
        Of ``sswi``: theta of the neurons behind the layer, and whether it sees the input.
    generator
        Source of randomness; draws are made on its device in float32, for every position, so the
        weight of a link does not depend on which other links exist. Do not reuse the seed that
        drew the mask: both would see the same random numbers, and weights would depend on links.

    Raises
    ------
    ConfigError
        For an unknown kind, a module without ``weight``, or a sparsity outside [0, 1).
    ShapeError
        If mask and weight differ in shape.

    Notes
    -----
    ``n_in`` is ``in_features``, or ``c_in kh kw`` of one group of a convolution. SWI: Zhang et al.
    (2024); the public code after its rewrite divides by the number of *outputs*, wrong by
    sqrt(n_in / n_out) in standard deviation for layers that are not square; we use the fan-in.
    SSWI (CH-SNN, ICLR 2026): ``g = theta^2 sqrt(pi) / (sqrt(2) e^(-1/2))``, and ``theta^2`` in
    the layer that sees the input. The constant of the first layer is our reading, for input that is
    shown at every step. Actual fan-in per neuron: Evci, Ioannou, Keskin, Dauphin (2022).

    Examples
    --------
    >>> layer, generator = nn.Linear(400, 300), torch.Generator().manual_seed(0)
    >>> mask = torch.rand(300, 400, generator=generator) < 0.1
    >>> init_weights(layer, mask, sparsity=0.9, generator=generator)
    >>> round(layer.weight[mask].std().item(), 2), round(math.sqrt(2 / (0.1 * 400)), 2)
    (0.22, 0.22)
    """
    initialise = WEIGHT_INITS[kind]
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor):
        raise ConfigError(f"{type(module).__name__} has no weight to initialise.")
    if mask.shape != weight.shape:
        raise ShapeError(
            f"the mask has shape {tuple(mask.shape)} but the weight of {type(module).__name__} "
            f"{tuple(weight.shape)}; they must agree."
        )
    if sparsity is None:
        sparsity = 1.0 - int(mask.sum()) / mask.numel()
        sparsity = min(sparsity, 1.0 - 1.0 / mask.numel())
    if not 0.0 <= sparsity < 1.0:
        raise ConfigError(f"sparsity is {sparsity!r}; it must lie in [0, 1).")
    with torch.no_grad():
        gain = threshold**2 * (1.0 if first else SPIKING_GAIN)
        initialise(weight, mask, 1.0 - sparsity, generator, gain)
        weight.masked_fill_(~mask.to(weight.device), 0)


def _swi(
    weight: Tensor, mask: Tensor, density: float, generator: Generator, gain: float = 2.0
) -> None:
    n_in = matrix_shape(weight.shape)[1]
    weight.copy_(_normal(weight, generator) * math.sqrt(gain / (density * n_in)))


def _sparse_kaiming(
    weight: Tensor, mask: Tensor, density: float, generator: Generator, _: float
) -> None:
    links = to_bipartite(mask).sum(dim=1).clamp(min=1).to(generator.device)
    deviation = (2.0 / links).sqrt().view(-1, *[1] * (weight.dim() - 1))
    weight.copy_(_normal(weight, generator) * deviation)


def _model(weight: Tensor, mask: Tensor, density: float, generator: Generator, _: float) -> None:
    """Leave the weights as they are."""


def _model_scaled(
    weight: Tensor, mask: Tensor, density: float, generator: Generator, _: float
) -> None:
    weight.div_(math.sqrt(density))


WEIGHT_INITS: Registry[Callable[[Tensor, Tensor, float, Generator, float], None]] = Registry(
    "weight initialisation",
    {
        "swi": lambda weight, mask, density, generator, _: _swi(weight, mask, density, generator),
        "sswi": _swi,
        "sparse_kaiming": _sparse_kaiming,
        "model": _model,
        "model_scaled": _model_scaled,
    },
)


def _normal(weight: Tensor, generator: Generator) -> Tensor:
    return torch.randn(weight.shape, generator=generator, device=generator.device)
