"""Refuse models that cannot be converted, before any work is done, and say why.

Every message names the module, what is wrong with it, and the remedy. Operations without a spiking
counterpart are found later, in the graph (`topospike.conversion.place`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn

from topospike.conversion.methods.method import Method
from topospike.errors import ConfigError, ConversionError
from topospike.snn.site import Site


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


def refuse_frames(sites: Iterable[Site], method: Method, kind: str) -> None:
    """Raise `ConfigError` for neurons that cannot read frames.

    Some look at a few steps of their image before a run; and neurons on the pixels take the place
    of the events that enter.
    """
    if kind == "image":
        return
    for site in sites:
        if site.coding.presimulation:
            raise ConfigError(
                f"input={kind!r}: {method.name!r} looks at {site.coding.presimulation} steps of "
                "a constant image before a run, and frames are not known before they come. Use "
                "another method, or input='image'."
            )
    if kind == "events" and method.sites_on_inputs:
        raise ConfigError(
            f"input='events': this {method.name!r} puts neurons on the pixels (pixels=True), and "
            "what they send is counted in place of the events. Leave pixels out, or use "
            "input='frames'."
        )


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
