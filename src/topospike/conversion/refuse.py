"""Refuse models and images that cannot be converted, before any work is done, and say why.

Every message names the module, what is wrong with it, and the remedy. Operations without a spiking
counterpart are found later, in the graph (`topospike.conversion.place`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError, ConversionError, ShapeError


def refuse_model(model: nn.Module) -> None:
    """Raise if the model is of a kind that cannot be captured or has no spiking counterpart.

    Raises
    ------
    ConfigError
        If it is no module at all.
    ConversionError
        If it is wrapped, scripted, quantised or complex; the module and the remedy are named.
    """
    if not isinstance(model, nn.Module):
        raise ConfigError(
            f"the model is a {type(model).__name__}; a torch.nn.Module is required. Put the "
            "function into the forward method of a module."
        )
    for path, module in model.named_modules():
        for is_hopeless, reason, remedy in HOPELESS:
            if is_hopeless(module):
                place = path or "the model itself"
                raise ConversionError(f"{place} ({type(module).__name__}) {reason}. {remedy}")
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if tensor.is_complex():
            raise ConversionError(
                f"{name} is {tensor.dtype}, but spikes are signed real numbers. Rewrite that layer "
                "with real and imaginary parts as channels."
            )
        if tensor.is_meta:
            raise ConversionError(
                f"{name} has no values (it is on the meta device). Load the trained weights first."
            )


def is_wrapper(module: nn.Module) -> bool:
    """Tell whether a module only passes calls on, to other devices or to compiled code."""
    compiled = hasattr(module, "_orig_mod")
    parallel = (nn.DataParallel, nn.parallel.DistributedDataParallel)
    return compiled or isinstance(module, parallel)


def is_quantised(module: nn.Module) -> bool:
    """Tell whether a module computes on integers."""
    own = type(module).__module__.split(".")
    return any(part in ("quantized", "quantizable") for part in own) or any(
        tensor.is_quantized for tensor in [*module._parameters.values(), *module._buffers.values()]
        if tensor is not None
    )  # fmt: skip


HOPELESS: tuple[tuple[Callable[[nn.Module], bool], str, str], ...] = (
    (
        is_wrapper,
        "only wraps another module",
        "Pass the module inside: model.module of DataParallel, model._orig_mod of torch.compile.",
    ),
    (
        lambda module: isinstance(module, torch.jit.ScriptModule),
        "is TorchScript, whose code cannot be captured",
        "Pass the Python module it was made from.",
    ),
    (
        is_quantised,
        "is quantised, and integer layers have no decoded values",
        "Convert the floating-point model it was made from; thresholds are found anew.",
    ),
    (
        lambda module: isinstance(module, nn.RNNBase | nn.RNNCellBase),
        "is recurrent: its steps over a sequence are not the time steps of spikes",
        "Replace it by convolutions or attention, or convert the part of the model without it.",
    ),
)


def refuse_images(model: nn.Module, images: Tensor) -> None:
    """Raise `ShapeError` if the model cannot run on two of the calibration images.

    So a wrong size or dtype is told apart from a model that cannot be captured.
    """
    if images.ndim < 2:
        raise ShapeError(
            f"the calibration images have shape {tuple(images.shape)}; a batch axis and at least "
            "one more are required. Add the batch axis: images[None]."
        )
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            model(images[:2])
    except TypeError:
        return  # a forward that does not take one tensor is for the capture to tell
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ShapeError(
            f"{type(model).__name__} does not run on the calibration images, shape "
            f"{tuple(images.shape)} and dtype {images.dtype} ({reason}). Pass batches as in "
            "training: batch first, of the same size, channels and dtype."
        ) from error
    finally:
        for module, flag in training.items():
            module.training = flag
