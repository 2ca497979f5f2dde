"""Quantised activations inside a model: put in the place of rectifier calls, and taken out again.

``torch.relu(x)`` inside a forward pass is no module that could be exchanged. Instead, hooks of the
model turn on a torch function mode during its forward pass, which hands the k-th rectifier call to
the k-th activation. The model stays what it is: its class, its parameters, its training mode. The
mode only sees what the converter calls a rectifier: ReLU, ReLU6, clamp and hardtanh from 0 up.

Before a trained network is captured its activations are taken out again; a ReLU holds their place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from topospike.errors import ConversionError
from topospike.models.qcfs import QCFS

CHILD = "quantised_calls"
# Functions that rectify whatever their arguments are, and those that do with a lower bound of 0:
# the name of the bound (their second argument), and its value when none is given.
RELUS = ("relu", "relu6")
BOUNDED = {"clamp": ("min", None), "clip": ("min", None), "clamp_min": ("min", None),
           "hardtanh": ("min_val", -1.0)}  # fmt: skip
# Where functions of ``torch.nn.functional`` have ``inplace`` among their positional arguments.
INPLACE_POSITION = {functional.relu: 1, functional.relu6: 1, functional.hardtanh: 3}


def is_rectifier(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Tell whether a torch function call is a ReLU-like operation on its first argument.

    Examples
    --------
    >>> import torch
    >>> x = torch.ones(2)
    >>> is_rectifier(torch.relu, (x,), {}), is_rectifier(torch.clamp, (x, 0, 6), {})
    (True, True)
    >>> is_rectifier(torch.clamp, (x, 1e-6), {}), is_rectifier(torch.sigmoid, (x,), {})
    (False, False)
    """
    called = getattr(function, "__name__", "").rstrip("_")
    if called in RELUS:
        return True
    if called not in BOUNDED:
        return False
    name, default = BOUNDED[called]
    lowest = args[1] if len(args) > 1 else kwargs.get(name, default)
    return isinstance(lowest, int | float) and lowest == 0


def is_in_place(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> bool:
    """Tell whether a rectifier call overwrites its argument."""
    if function in INPLACE_POSITION:
        position = INPLACE_POSITION[function]
        return bool(args[position] if len(args) > position else kwargs.get("inplace", False))
    return function.__name__.endswith("_")


class RectifierMode(TorchFunctionMode):
    """Gives the k-th rectifier call inside the block to ``take(k, x)``; counts the calls."""

    def __init__(self, take: Callable[[int, Tensor], Tensor]) -> None:
        super().__init__()
        self.take = take
        self.calls = 0

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Answer one call of a torch function."""
        kwargs = kwargs or {}
        if not is_rectifier(func, args, kwargs):
            return func(*args, **kwargs)
        x = args[0] if args else kwargs["input"]
        number, self.calls = self.calls, self.calls + 1
        if is_in_place(func, args, kwargs):
            # the activation keeps its input for the backward pass, so that must not be overwritten
            return x.copy_(self.take(number, x.clone()))
        return self.take(number, x)


class QuantisedCalls(nn.ModuleList):
    """The activations of a model's rectifier calls, in the order of the calls.

    ``names`` are those of the sites they become at conversion.
    """

    def __init__(self, activations: Mapping[str, QCFS]) -> None:
        super().__init__(activations.values())
        self.names = tuple(activations)
        self.modes: list[RectifierMode] = []

    def forward(self, x: Any) -> Any:
        """Return the input: a container such as ``nn.Sequential`` runs every child it has."""
        return x

    def begin(self) -> None:
        """Let the activations take the rectifier calls from now on."""
        mode = RectifierMode(self.take)
        mode.__enter__()
        self.modes.append(mode)

    def end(self) -> int:
        """Leave the calls alone again; return how many there were."""
        mode = self.modes.pop()
        mode.__exit__(None, None, None)
        return mode.calls

    def by_name(self) -> dict[str, QCFS]:
        """Return the activations by site name."""
        pairs = zip(self.names, self, strict=True)
        return {name: activation for name, activation in pairs if isinstance(activation, QCFS)}

    def take(self, number: int, x: Tensor) -> Tensor:
        """Apply the activation of a call."""
        if number >= len(self):
            raise ConversionError(unexpected(f"more than {len(self)}", len(self)))
        return self[number](x)

    def __getstate__(self) -> dict[str, Any]:
        # a copy made during a forward pass is not in that pass
        return {**self.__dict__, "modes": []}


def begin_calls(model: nn.Module, args: tuple[Any, ...]) -> None:
    """Forward pre-hook of a model with `QuantisedCalls`."""
    calls_of(model).begin()


def end_calls(model: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    """Forward hook of a model with `QuantisedCalls`; runs after a failed pass too."""
    calls = calls_of(model)
    made = calls.end()
    # a failed pass (no output) has an error of its own
    if output is not None and made != len(calls):
        raise ConversionError(unexpected(str(made), len(calls)))


def calls_of(model: nn.Module) -> QuantisedCalls:
    """Return the activations of a model's own rectifier calls."""
    calls = model._modules.get(CHILD)
    if not isinstance(calls, QuantisedCalls):
        raise ConversionError(
            f"{type(model).__name__} has lost its submodule {CHILD!r}; keep it, or quantise the "
            "activations of the plain model again."
        )
    return calls


def unexpected(made: str, known: int) -> str:
    """Say that a forward pass did not make the calls it made when it was captured."""
    return (
        f"the forward pass made {made} rectifier calls where {known} were found in evaluation "
        "mode; the activations cannot be told apart. Make the number of relu calls the same in "
        "training and evaluation, or use nn.ReLU modules."
    )


def install_calls(model: nn.Module, activations: Mapping[str, QCFS]) -> None:
    """Let activations take the model's rectifier calls, in their order, whenever it is called."""
    if CHILD in model._modules:
        raise ConversionError(f"{type(model).__name__} has quantised rectifier calls already.")
    model.add_module(CHILD, QuantisedCalls(activations))
    model.register_forward_pre_hook(begin_calls)
    model.register_forward_hook(end_calls, always_call=True)


def remove_calls(model: nn.Module) -> dict[str, QCFS]:
    """Undo `install_calls`; return the activations by site name (none if there were none)."""
    calls = model._modules.get(CHILD)
    if not isinstance(calls, QuantisedCalls):
        return {}
    delattr(model, CHILD)
    for hooks, ours in ((model._forward_pre_hooks, begin_calls), (model._forward_hooks, end_calls)):
        for key in [key for key, hook in hooks.items() if hook is ours]:
            del hooks[key]
            model._forward_hooks_always_called.pop(key, None)
    return calls.by_name()


@dataclass(frozen=True)
class TrainedActivations:
    """The quantised activations of a network: its modules by path, its calls by site name."""

    modules: Mapping[str, QCFS]
    calls: Mapping[str, QCFS]

    def __len__(self) -> int:
        return len(self.named)

    @property
    def named(self) -> dict[str, QCFS]:
        """All of them, by module path or site name."""
        return {**self.modules, **self.calls}

    def at(self, site: str, module: str) -> QCFS | None:
        """Return the activation of a site, which runs in a module; ``None`` if it has none."""
        return self.calls.get(site, self.modules.get(module))


def take_out_activations(model: nn.Module) -> tuple[nn.Module, TrainedActivations]:
    """Return the model with rectifiers in the place of its QCFS activations, and those.

    A model without any is returned as it is; otherwise a copy is changed.
    """
    if not any(isinstance(module, QCFS) for module in model.modules()):
        return model, TrainedActivations({}, {})
    plain = copy.deepcopy(model)
    owners = [
        path.rpartition(".")[0]
        for path, module in plain.named_modules()
        if isinstance(module, QuantisedCalls)
    ]
    calls = {
        ".".join(part for part in (owner, name) if part): activation
        for owner in owners
        for name, activation in remove_calls(plain.get_submodule(owner)).items()
    }
    modules = {
        path: module
        for path, module in plain.named_modules(remove_duplicate=False)
        if isinstance(module, QCFS)
    }
    for path in modules:
        plain.set_submodule(path, nn.ReLU())
    for activation in (*modules.values(), *calls.values()):
        activation.requires_grad_(False)
    return plain, TrainedActivations(modules, calls)
