"""Stage topology: the bool buffer ``weight_mask`` beside a weight.

True = the link exists. A weight without the buffer is dense; a mask of all True is a sparse layer
that happens to be full. The invariant kept here is "weights off the mask are exactly +0", written
with ``masked_fill_`` because a product would leave -0.0 or spread NaN. Gradients and optimizer
slots are the evolution stage's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Shaped, UInt8
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from topospike.errors import ConfigError, ShapeError, TopologyViolation
from topospike.topology.layers import SUFFIX, get_mask, masks_of, original


def register_mask(module: nn.Module, mask: Bool[Tensor, "*shape"], *, name: str = "weight") -> None:
    """Give a parameter a persistent mask buffer and zero its weights off the mask.

    Parameters
    ----------
    module
        The module that owns the parameter directly (a ``Linear``, a ``Conv2d``).
    mask : bool, shape of the parameter
        Present links; copied to the parameter's device and memory layout.
    name
        Name of the parameter in ``module``; the buffer is ``name + "_mask"``.

    Raises
    ------
    ConfigError
        If there is no such parameter, the mask is not bool, or one is registered already.
    ShapeError
        If mask and parameter differ in shape.

    Examples
    --------
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> register_mask(layer, torch.tensor([[True, False]]))
    >>> layer.weight[0, 1].item(), sorted(layer.state_dict())
    (0.0, ['weight', 'weight_mask'])
    """
    parameter = _parameter(module, name)
    if hasattr(module, name + SUFFIX):
        raise ConfigError(
            f"{type(module).__name__}.{name} already has {name + SUFFIX!r}; "
            "change its links with set_mask."
        )
    _check_mask(module, parameter, mask, name=name)
    # The copy takes the parameter's memory layout, so that products with the gradient stay fast.
    buffer = torch.empty_like(parameter, dtype=torch.bool, requires_grad=False).copy_(mask)
    module.register_buffer(name + SUFFIX, buffer, persistent=True)
    _zero_absent(parameter, buffer)


def set_mask(module: nn.Module, mask: Bool[Tensor, "*shape"], *, name: str = "weight") -> None:
    """Write new links into the existing buffer, in place, and zero the weights off them.

    The buffer keeps its identity, so a compiled model is not compiled again.

    Raises
    ------
    ConfigError
        If the parameter has no mask yet, or ``mask`` is not bool.
    ShapeError
        If mask and parameter differ in shape.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> register_mask(layer, torch.tensor([[True, False]]))
    >>> set_mask(layer, torch.tensor([[False, True]]))
    >>> layer.weight_mask.tolist(), layer.weight.tolist()
    ([[False, True]], [[0.0, 0.0]])
    """
    parameter = _parameter(module, name)
    buffer = get_mask(module, name)
    if buffer is None:
        raise ConfigError(
            f"{type(module).__name__}.{name} has no mask to change; call register_mask first."
        )
    _check_mask(module, parameter, mask, name=name)
    buffer.copy_(mask)
    _zero_absent(parameter, buffer)


def copy_masks(model: nn.Module, other: nn.Module) -> None:
    """Give another copy of a model its masks, and set the copy's weights off them to 0.

    Parameters
    ----------
    model
        With masks.
    other
        With the same layers, or an ``AveragedModel`` around them; links that are gone from the
        model would live on in an average.

    Examples
    --------
    >>> one, other = nn.Linear(2, 1), nn.Linear(2, 1)
    >>> register_mask(one, torch.tensor([[True, False]]))
    >>> copy_masks(one, other)
    >>> other.weight_mask.tolist(), other.weight[0, 1].item()
    ([[True, False]], 0.0)
    """
    inner = other.module if isinstance(other, AveragedModel) else other
    for parameter, mask in masks_of(model).items():
        owner, _, name = parameter.rpartition(".")
        module = original(inner).get_submodule(owner)
        write = register_mask if get_mask(module, name) is None else set_mask
        write(module, mask, name=name)


def enforce(model: nn.Module) -> None:
    """Set every weight off its mask to exactly +0, in place, NaN and -0.0 included.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> register_mask(layer, torch.tensor([[True, False]]))
    >>> _ = layer.weight.data.fill_(2.0)
    >>> enforce(layer)
    >>> layer.weight.tolist()
    [[2.0, 0.0]]
    """
    for name, mask in masks_of(model).items():
        _zero_absent(original(model).get_parameter(name), mask)


def check_masks(model: nn.Module) -> None:
    """Raise if any weight off its mask differs from zero (NaN differs, -0.0 does not).

    Raises
    ------
    TopologyViolation
        Names the parameter, how many weights are wrong, the first index and its value.

    Examples
    --------
    >>> layer = nn.Linear(2, 1)
    >>> register_mask(layer, torch.tensor([[True, False]]))
    >>> _ = layer.weight.data.fill_(2.0)
    >>> check_masks(layer)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    topospike.errors.TopologyViolation: weight: 1 weight off the mask is not zero, ...
    """
    for name, mask in masks_of(model).items():
        check_absent(name, original(model).get_parameter(name), mask)


def check_absent(name: str, weight: Shaped[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> None:
    """Raise `TopologyViolation`, naming ``name``, if ``weight`` is not zero off ``mask``.

    Examples
    --------
    >>> check_absent("fc", torch.tensor([1.0, -0.0]), torch.tensor([True, False]))
    """
    bad = (weight.detach() != 0) & ~mask
    n_bad = int(bad.sum())
    if n_bad == 0:
        return
    index = tuple(bad.nonzero()[0].tolist())
    noun = "weight off the mask is" if n_bad == 1 else "weights off the mask are"
    raise TopologyViolation(
        f"{name}: {n_bad} {noun} not zero, the first at index {index} with value "
        f"{weight[index].item()}. Every weight without a link must be 0: call enforce(model) "
        "after whatever changed the weights, or check why the links changed."
    )


def pack_bits(mask: Bool[Tensor, "*shape"]) -> UInt8[Tensor, " bytes"]:
    """Pack a mask into bytes on the CPU, row-major, first link in the highest bit.

    Examples
    --------
    >>> pack_bits(torch.tensor([True, False, True])).tolist()
    [160]
    """
    return torch.from_numpy(np.packbits(mask.detach().cpu().contiguous().numpy().reshape(-1)))


def unpack_bits(packed: UInt8[Tensor, " bytes"], shape: Sequence[int]) -> Bool[Tensor, "*shape"]:
    """Undo `pack_bits`.

    Examples
    --------
    >>> unpack_bits(torch.tensor([160], dtype=torch.uint8), (3,)).tolist()
    [True, False, True]
    """
    flat = np.unpackbits(packed.cpu().numpy(), count=math.prod(shape))
    return torch.from_numpy(flat.view(np.bool_)).view(tuple(shape))


def _parameter(module: nn.Module, name: str) -> nn.Parameter:
    parameter = module._parameters.get(name)
    if parameter is None:
        known = ", ".join(repr(key) for key, _ in module.named_parameters(recurse=False))
        raise ConfigError(
            f"{type(module).__name__} has no parameter {name!r} of its own; "
            f"it has {known or 'none'}. Pass the module that owns the weight."
        )
    return parameter


def _check_mask(module: nn.Module, parameter: nn.Parameter, mask: Tensor, *, name: str) -> None:
    layer = f"{type(module).__name__}.{name}"
    if mask.dtype is not torch.bool:
        raise ConfigError(f"the mask of {layer} has dtype {mask.dtype}; torch.bool is required.")
    if mask.shape != parameter.shape:
        raise ShapeError(
            f"the mask of {layer} has shape {tuple(mask.shape)}; "
            f"{tuple(parameter.shape)}, the parameter's, is required."
        )


def _zero_absent(parameter: nn.Parameter, mask: Tensor) -> None:
    with torch.no_grad():
        parameter.masked_fill_(~mask, 0)
