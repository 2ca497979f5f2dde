"""Stage train: between topology updates, train ultra-sparse linear layers on their links alone.

For the length of a block every suited layer multiplies by its links only (see `links`), and the
optimizer holds, in place of the weight, one compact parameter with the values of the links, its
slots gathered from the weight's. Off the mask weights, gradients and slots are zero, so nothing is
lost, and the numbers are those of masked training up to the order of sums. After the block all is
back in its usual form: masks, checkpoints, averages and topology updates know nothing of this.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.topology import masked_layers
from topospike.topology.masks import check_absent
from topospike.train.links import LinkProduct

# Share of present links up to which the compact step is the faster one; benchmarks/compact.py.
DENSITY_BOUND = 0.1
# Optimizers of torch that treat each weight by itself, given its gradient and its own slots.
ELEMENTWISE = [
    "ASGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SGD",
]


class CompactLayer:
    """A linear layer that runs on its links from `enter` to `leave`.

    Attributes
    ----------
    values : nn.Parameter, (links,)
        The weights of the links in row order: what the optimizer trains meanwhile.
    """

    def __init__(self, name: str, module: nn.Linear, mask: Tensor) -> None:
        check_absent(f"{name}.weight", module.weight, mask)
        self.name, self.module = name, module
        self.links = mask.nonzero(as_tuple=True)
        self.values = nn.Parameter(module.weight.detach()[self.links])
        self.product = LinkProduct(mask, self.values)
        self.dense_slots: dict[str, Any] = {}

    def forward(self, input: Tensor) -> Tensor:
        """Take the place of the module's own forward."""
        return self.product(input, self.values, self.module.bias)

    def enter(self, optimizer: Optimizer) -> None:
        """Put the compact parameter and its slots in the place of the weight and its slots."""
        weight = self.module.weight
        weight.grad = None
        self.dense_slots = dict(optimizer.state.pop(weight, {}))
        exchange(optimizer, weight, self.values)
        if self.dense_slots:
            optimizer.state[self.values] = {
                name: slot[self.links] if has_shape(slot, weight) else slot
                for name, slot in self.dense_slots.items()
            }
        self.module.forward = self.forward

    def leave(self, optimizer: Optimizer) -> None:
        """Put weight and slots back, with what the links have learnt."""
        del self.module.forward
        weight = self.module.weight
        self.write_weight()
        slots = optimizer.state.pop(self.values, {})
        exchange(optimizer, self.values, weight)
        if slots:
            optimizer.state[weight] = {
                name: self.scattered(slot, self.dense_slots.get(name))
                if has_shape(slot, self.values)
                else slot
                for name, slot in slots.items()
            }

    @torch.no_grad()
    def write_weight(self) -> None:
        """Copy the values of the links into the weight, which is 0 elsewhere."""
        self.module.weight[self.links] = self.values

    def scattered(self, slot: Tensor, dense: Any) -> Tensor:
        """Return a slot in the weight's shape, in the memory it had there if it had any."""
        if not isinstance(dense, Tensor):
            dense = torch.zeros_like(self.module.weight, dtype=slot.dtype, requires_grad=False)
        dense[self.links] = slot
        return dense


class CompactLayers:
    """The layers of a model that run on their links until `leave`; ``names`` are theirs."""

    def __init__(self, layers: Sequence[CompactLayer], optimizer: Optimizer) -> None:
        self.layers, self.optimizer = list(layers), optimizer
        self.names = tuple(layer.name for layer in layers)
        for layer in self.layers:
            layer.enter(optimizer)

    def leave(self) -> None:
        """Go back to masked training; a second time changes nothing."""
        while self.layers:
            self.layers.pop().leave(self.optimizer)

    def write_weights(self) -> None:
        """Bring the weights up to date, for something that reads them between two steps."""
        for layer in self.layers:
            layer.write_weight()

    def check_step(self) -> None:
        """Call it before every optimizer step.

        Raises
        ------
        ConfigError
            A weight was used outside of its layer.
        """
        for layer in self.layers:
            if layer.module.weight.grad is not None:
                raise ConfigError(
                    f"{layer.name}.weight is used outside of its layer, where execution='compact' "
                    "cannot follow it: its gradient would be lost. Train with execution='masked'."
                )


@contextmanager
def on_links(
    model: nn.Module, optimizer: Optimizer, *, density_bound: float = DENSITY_BOUND
) -> Iterator[CompactLayers]:
    """Train the suited layers of a model on their links for the length of a block.

    A layer is suited if it is an ``nn.Linear`` (no subclass) with a mask of at most
    ``density_bound`` of all links, a float32 or float64 weight that the optimizer trains and no
    other module shares. All other layers stay as they are. Inside the block do not change masks,
    and do not read weights or optimizer state without ``write_weights``.

    Parameters
    ----------
    model
        Its masks say which links there are.
    optimizer
        One that treats every weight by itself (SGD, Adam and their like).
    density_bound
        Largest share of present links; 1 takes every suited layer.

    Yields
    ------
    CompactLayers
        To end the block early, and to be asked before every step.

    Raises
    ------
    ConfigError
        For an optimizer that mixes weights, or a compiled model.
    TopologyViolation
        A weight without a link is not 0.

    Notes
    -----
    Under autocast these layers compute in the dtype of their weights. Gradients of absent links do
    not exist inside the block, so a rule that grows by gradient needs its last step outside.
    Results lie in memory the other way round, so a dropout after such a layer draws other noise.

    Examples
    --------
    >>> from topospike.topology import register_mask
    >>> layer = nn.Linear(3, 2, bias=False)
    >>> register_mask(layer, torch.tensor([[True, False, False], [False, False, True]]))
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    >>> with on_links(layer, optimizer, density_bound=0.5) as layers:
    ...     layer(torch.ones(4, 3)).sum().backward()
    ...     optimizer.param_groups[0]["params"][0].grad
    tensor([4., 4.])
    """
    require_elementwise(optimizer)
    require_uncompiled(model)
    layers = CompactLayers(suited_layers(model, optimizer, density_bound), optimizer)
    try:
        yield layers
    finally:
        layers.leave()


@contextmanager
def on_masks(model: nn.Module, optimizer: Optimizer) -> Iterator[CompactLayers]:
    """Train whole weights, whose absent links are 0: no layer is compact."""
    yield CompactLayers((), optimizer)


EXECUTIONS: Registry[Callable[[nn.Module, Optimizer], AbstractContextManager[CompactLayers]]] = (
    Registry("execution", {"masked": on_masks, "compact": on_links})
)


def suited_layers(model: nn.Module, optimizer: Optimizer, bound: float) -> list[CompactLayer]:
    """Build a compact layer for every suited one, in module order."""
    trained = {id(p) for group in optimizer.param_groups for p in group["params"]}
    return [
        CompactLayer(name, module, mask)
        for name, module, mask in linear_layers(model)
        if id(module.weight) in trained and 0 < int(mask.sum()) <= bound * mask.numel()
    ]


def linear_layers(model: nn.Module) -> list[tuple[str, nn.Linear, Tensor]]:
    """List the masked linear layers that can run on their links, whatever their density."""
    uses = Counter(id(p) for module in model.modules() for p in module._parameters.values())
    found = []
    for layer in masked_layers(model):
        module, weight, mask = layer.module, layer.weight, layer.mask
        # A subclass may compute something else with its weight, or let others do so.
        is_plain = type(module) is nn.Linear and "forward" not in module.__dict__
        is_own = uses[id(weight)] == 1 and layer.trains
        if is_plain and is_own and weight.dtype in (torch.float32, torch.float64):
            found.append((layer.name, module, mask))
    return found


def check_execution(execution: str, model: nn.Module, *, processes: int) -> None:
    """Refuse an unknown execution, or a model that can never run on its links.

    A model without any mask, the dense twin of a sparse one, has nothing to run on and is trained
    as always.

    Raises
    ------
    ConfigError
        For ``compact``: several processes, a compiled model, or masks but no linear layer among
        them.
    """
    if EXECUTIONS[execution] is on_masks:
        return
    if processes > 1:
        raise ConfigError(
            f"train.execution is 'compact' in a run of {processes} processes; gradients are "
            "averaged between processes for whole weights only. Use execution='masked', or one "
            "process."
        )
    require_uncompiled(model)
    masked = [layer.name for layer in masked_layers(model)]
    if masked and not linear_layers(model):
        raise ConfigError(
            f"train.execution is 'compact', but none of the masked layers ({', '.join(masked)}) "
            "is an nn.Linear with a float32 or float64 weight of its own that is trained. Use "
            "execution='masked'."
        )


def require_elementwise(optimizer: Optimizer) -> None:
    """Refuse an optimizer whose step needs the shape of a weight."""
    kinds = [k for k in type(optimizer).__mro__ if k.__module__.startswith("torch.optim")]
    if not any(kind.__name__ in ELEMENTWISE for kind in kinds):
        raise ConfigError(
            f"execution='compact' does not work with {type(optimizer).__name__}, which may treat "
            f"the weights of a layer together. Use one of {', '.join(ELEMENTWISE)}, or "
            "execution='masked'."
        )


def require_uncompiled(model: nn.Module) -> None:
    """Refuse a compiled model, whose code would be compiled again at every update."""
    for name, module in model.named_modules():
        if module._compiled_call_impl is not None or "_orig_mod" in module._modules:
            raise ConfigError(
                f"{name or type(model).__name__} is compiled; execution='compact' cannot exchange "
                "the forward pass of its layers. Train the model uncompiled, or use "
                "execution='masked'."
            )


def exchange(optimizer: Optimizer, old: Tensor, new: Tensor) -> None:
    """Put ``new`` where ``old`` is among the parameters of an optimizer."""
    for group in optimizer.param_groups:
        group["params"] = [new if parameter is old else parameter for parameter in group["params"]]


def has_shape(slot: Any, parameter: Tensor) -> bool:
    """Say whether an optimizer slot has one entry for each of the parameter."""
    return isinstance(slot, Tensor) and slot.shape == parameter.shape
