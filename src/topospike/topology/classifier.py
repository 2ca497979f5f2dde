"""Stage topology: which weights enter the last weighted operation of a model.

That operation decides which layer is the classifier, whatever it is called and in whatever order
layers were registered. It is read from the exported graph if an example is at hand, else from a
symbolic trace; where that fails too a real run on the example is watched, or, without one, the
layer that was registered last is taken.
"""

from __future__ import annotations

import copy
import logging
import operator
from collections.abc import Container, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from topospike.errors import ConfigError, ConversionError

logger = logging.getLogger(__name__)

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Weighted, so one of them may come last; but their links are not those of the matrix convention.
UNLISTED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d, nn.Bilinear)
aten = torch.ops.aten
PACKETS = (
    *(aten.linear, aten.matmul, aten.mm, aten.bmm, aten.addmm, aten.einsum, aten.bilinear),
    *(aten._native_multi_head_attention, aten._transformer_encoder_layer_fwd),
    *(aten.conv1d, aten.conv2d, aten.conv3d, aten.convolution),
    *(aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d),
)
FUNCTIONS = (
    *(functional.linear, functional.bilinear, torch.matmul, torch.mm, torch.bmm, torch.addmm),
    *(torch.einsum, operator.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__),
    *(torch.conv1d, torch.conv2d, torch.conv3d),
    *(functional.conv1d, functional.conv2d, functional.conv3d),
    *(functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d),
)
METHODS = ("matmul", "__matmul__", "mm", "bmm", "addmm")
WEIGHTED = frozenset(
    {*FUNCTIONS, *METHODS, *(getattr(op, name) for op in PACKETS for name in op.overloads())}
)


def last_weights(model: nn.Module, example: Any) -> frozenset[str]:
    """Return the names of the parameters that enter the last weighted operation of a model."""
    names = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    if example is not None:
        # Here, because a topology is read without any code of models.
        from topospike.models.capture import capture
        from topospike.models.inputs import mapped

        parameter = next(model.parameters(), None)
        if parameter is not None:
            example = mapped(lambda tensor: tensor.to(parameter.device), example)

        with suppress(ConversionError, ConfigError):
            return last_in_graph(capture(model, example, first_output=True).graph, names)
    shared = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    try:
        # A copy of the structure around the same tensors: tracing may leave proxies in attributes.
        graph = fx.symbolic_trace(copy.deepcopy(model, shared)).graph
    except Exception as error:  # any code of the user's may run, and fail in any way, in here
        if example is not None:
            return last_in_run(model, example)
        logger.warning(
            "%s cannot be traced symbolically (%s: %s); taking the last registered linear layer "
            "as the classifier. Pass an example to settle it.",
            type(model).__name__,
            type(error).__name__,
            error,
        )
        linear = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
        return frozenset({dotted(linear[-1], "weight")}) if linear else weights_inside("", model)
    return last_in_graph(graph, names, modules=dict(model.named_modules()))


def last_in_graph(
    graph: fx.Graph, parameters: Container[str], *, modules: Mapping[str, nn.Module] | None = None
) -> frozenset[str]:
    """Return the parameters of the last weighted operation that the first result depends on."""
    used = behind_the_result(graph)
    sources: dict[fx.Node, frozenset[str]] = {}
    last: frozenset[str] = frozenset()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        weights = frozenset().union(*(sources.get(entry, ()) for entry in inputs))
        if node.op == "get_attr":
            sources[node] = frozenset({str(node.target)} if node.target in parameters else ())
        elif inputs and all(entry in sources for entry in inputs):
            # Transposed, cast or masked: still a weight, not yet an operation on data.
            sources[node] = weights
        elif node in used:
            if node.op == "call_module" and modules is not None:
                weights = weights_inside(str(node.target), modules[str(node.target)])
            elif node.target not in WEIGHTED:
                continue
            last = weights or last
    return last


def behind_the_result(graph: fx.Graph) -> set[fx.Node]:
    """Return the nodes that the first result of a graph depends on."""
    (output,) = graph.find_nodes(op="output")
    waiting, used = list(output.all_input_nodes[:1]), set()
    while waiting:
        node = waiting.pop()
        if node not in used:
            used.add(node)
            waiting += node.all_input_nodes
    return used


def weights_inside(path: str, module: nn.Module) -> frozenset[str]:
    """Return the weight that is registered last in a module which is not looked into."""
    weighted = (nn.Linear, *CONVOLUTIONS, *UNLISTED)
    inside = [
        name for name, part in module.named_modules(prefix=path) if isinstance(part, weighted)
    ]
    return frozenset(dotted(name, "weight") for name in inside[-1:])


class LastWeight(TorchFunctionMode):
    """Notes which parameters the last weighted operation of a run has read."""

    def __init__(self, model: nn.Module) -> None:
        self.names = {id(parameter): name for name, parameter in model.named_parameters()}
        self.last: frozenset[str] = frozenset()

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Note the operation, and do it."""
        if func in WEIGHTED:
            read = [self.names.get(id(value)) for value in (*args, *(kwargs or {}).values())]
            self.last = frozenset(name for name in read if name) or self.last
        return func(*args, **(kwargs or {}))


def last_in_run(model: nn.Module, example: Any) -> frozenset[str]:
    """Return the parameters of the last weighted operation of a real run; modes are put back."""
    from topospike.models.inputs import call, evaluation_mode

    with evaluation_mode(model), torch.no_grad(), LastWeight(model) as noted:
        call(model, example)
    return noted.last


def dotted(path: str, name: str) -> str:
    """Join the path of a module and a name in it."""
    return f"{path}.{name}" if path else name
