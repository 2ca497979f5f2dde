"""Stage train: find NaN and infinity early, and name the layer they came from.

The loss is checked at every step, before the weights move. Only when it is not finite is the batch
run again with a hook on every module; the weights are checked once an epoch, before a checkpoint
is written. Nothing is repaired or skipped.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from topospike.errors import NonFiniteError
from topospike.train.distributed import ALONE, Processes

REMEDIES = "A lower learning_rate, a longer warm-up or gradient_clip are the usual remedies"


class LossGuard:
    """Tells whether a loss was finite, without idling an accelerator.

    Reading a number from a CUDA stream waits for everything queued on it. Here the one flag is
    copied right behind the forward pass and awaited after the backward pass has been queued, so
    the device has work while the host waits. Of several processes all learn of a loss that is not
    finite in one, so that they stop at the same batch.
    """

    def __init__(self, device: torch.device, processes: Processes = ALONE) -> None:
        self._processes = processes
        self._event = torch.cuda.Event() if device.type == "cuda" else None
        self._finite = torch.ones((), dtype=torch.bool, pin_memory=self._event is not None)

    def watch(self, loss: Tensor) -> None:
        """Queue the check of ``loss``; call it before the backward pass."""
        finite = self._processes.everywhere(torch.isfinite(loss.detach()))
        self._finite.copy_(finite, non_blocking=True)
        if self._event is not None:
            self._event.record()

    def passed(self) -> bool:
        """Wait for the check queued last; call it before the optimizer step."""
        if self._event is not None:
            self._event.synchronize()
        return bool(self._finite)


def diagnose(
    model: nn.Module, images: Tensor, forward: Callable[[], object], *, loss: float, place: str
) -> NonFiniteError:
    """Build the error for a batch whose loss is not finite, naming the first layer or the batch.

    ``forward`` runs the batch again, in the same precision; ``place`` says which epoch and step.
    """
    if math.isfinite(loss):
        return NonFiniteError(
            f"the training loss of another process is not finite at {place}; the message of that "
            "process says where it comes from."
        )
    bad = count_nonfinite(images)
    cause = (
        f"The batch itself holds {bad} non-finite values of {images.numel()}: look at the images "
        "and at their normalisation (a std of 0?)."
        if bad
        else first_nonfinite_layer(model, forward)
    )
    return NonFiniteError(
        f"the training loss is {loss} at {place}. {cause} {REMEDIES} when the data are sound."
    )


def first_nonfinite_layer(model: nn.Module, forward: Callable[[], object]) -> str:
    """Run ``forward`` and say in which module of ``model`` non-finite values first appear."""
    findings: list[str] = []
    names = {module: name or type(model).__name__ for name, module in model.named_modules()}

    def look(module: nn.Module, inputs: Any, output: Any) -> None:
        outputs = tensors_in(output)
        if findings or not any(map(count_nonfinite, outputs)):
            return
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in outputs)
        layer = f"layer {names[module]!r} ({type(module).__name__}, output shape {shapes})"
        if any(map(count_nonfinite, tensors_in(inputs))):
            findings.append(f"They first reach a module as the input of {layer}.")
        else:
            findings.append(f"They first appear in {layer}; {weights_of(module)}.")

    handles = [module.register_forward_hook(look) for module in names]
    try:
        with torch.no_grad():
            forward()
    finally:
        for handle in handles:
            handle.remove()
    return findings[0] if findings else "Every layer's output is finite; the loss itself is not."


def check_weights(model: nn.Module, *, epoch: int) -> None:
    """Refuse to go on with a parameter that holds NaN or infinity.

    Raises
    ------
    NonFiniteError
        Naming the first such parameter.
    """
    for name, parameter in model.named_parameters():
        if bad := count_nonfinite(parameter):
            layer, _, kind = name.rpartition(".")
            raise NonFiniteError(
                f"at the end of epoch {epoch} the {kind} of layer {layer!r} holds {bad} non-finite "
                f"values of {parameter.numel()}, though every loss was finite. {REMEDIES}."
            )


def weights_of(module: nn.Module) -> str:
    """Say how large the module's own parameters are, or that they are non-finite themselves."""
    parts = []
    for name, parameter in module.named_parameters(recurse=False):
        bad = count_nonfinite(parameter)
        size = float(parameter.detach().abs().max()) if parameter.numel() else 0.0
        parts.append(f"its {name} " + (f"holds {bad} of them" if bad else f"reaches {size:.3g}"))
    return " and ".join(parts) or "it has no parameters of its own"


def tensors_in(value: Any) -> list[Tensor]:
    """Return the floating-point tensors of a nested tuple, list or mapping."""
    found = [x for x in tree_leaves(value) if isinstance(x, Tensor)]
    return [tensor for tensor in found if tensor.is_floating_point()]


def count_nonfinite(tensor: Tensor) -> int:
    """Count NaN and infinite entries."""
    return int((~torch.isfinite(tensor.detach())).sum())
