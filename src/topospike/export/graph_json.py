"""The graph of a network as plain JSON, and back: nothing is pickled, nothing is evaluated.

A node is its kind, name, target and arguments. Arguments that JSON has no word for are one-entry
objects: ``{"node": "conv1"}``, ``{"dtype": "float32"}``, ``{"tuple": [...]}``. An operation is
written by name and looked up again in PyTorch's own functional operations, so a file can name
nothing else; every name that reaches generated code is checked to be a name. Weights are not here:
see `topospike.export.archive`.
"""

from __future__ import annotations

import keyword
import math
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from topospike.errors import ConversionError
from topospike.models.capture import node_module

Plain = Any  # numbers, strings, None, and lists and dictionaries of them

# Arithmetic on sizes: the only functions of a captured graph that are not PyTorch operations.
SIZE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"operator.{name}": getattr(operator, name)
    for name in ("add", "eq", "floordiv", "getitem", "mod", "mul", "neg", "sub", "truediv")
} | {
    f"torch.{name}": getattr(torch, name)
    for name in ("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not")
}
NAME_OF_SIZE_FUNCTION = {function: name for name, function in SIZE_FUNCTIONS.items()}
OF_TORCH = {
    "dtype": torch.dtype,
    "layout": torch.layout,
    "memory_format": torch.memory_format,
}
# Paths of modules and parameters; such a part is quoted in generated code, so no quotes in it.
PATH = re.compile(r"[\w :+/@-]+(\.[\w :+/@-]+)*")
KINDS = ("placeholder", "get_attr", "call_function", "call_module", "output")


def graph_to_plain(graph: fx.Graph, values: Mapping[fx.Node, Plain]) -> list[dict[str, Plain]]:
    """Return the nodes of a graph in execution order, as numbers and strings.

    Parameters
    ----------
    graph
        Graph of a captured network, with or without sites.
    values
        What each node returns, as `value_to_plain` writes it.

    Raises
    ------
    ConversionError
        If a node runs something that a file cannot name: an operation that is not one of
        PyTorch's own, or an argument that is neither number nor string.
    """
    return [
        {
            "op": node.op,
            "name": node.name,
            "target": target_to_plain(node),
            "args": [argument_to_plain(item, node) for item in node.args],
            "kwargs": {key: argument_to_plain(item, node) for key, item in node.kwargs.items()},
            "value": values.get(node),
            "module": node_module(node),
        }
        for node in graph.nodes
    ]


def target_to_plain(node: fx.Node) -> str:
    """Write what a node calls or reads, and make sure that it can be found again."""
    if node.op != "call_function":
        if not PATH.fullmatch(str(node.target)):
            raise ConversionError(
                f"{str(node.target)!r} has characters that a saved network cannot use in a name; "
                "rename that module or parameter."
            )
        return str(node.target)
    known = NAME_OF_SIZE_FUNCTION.get(node.target)  # pyright: ignore[reportArgumentType]
    name = str(node.target) if known is None else known
    try:
        found = function_named(name)
    except ValueError as error:
        found, reason = None, str(error)
    else:
        reason = f"the name leads to {found}"
    if found is not node.target:
        place = node_module(node) or "the model itself"
        raise ConversionError(
            f"{place} runs {node.target} (node {node.name}), which a saved network cannot name "
            f"({reason}): only PyTorch's own functional operations are written. Rewrite it with "
            "these, or keep the model and convert it again instead of saving."
        )
    return name


def function_named(name: str) -> Callable[..., Any]:
    """Look an operation up by its name; `ValueError` for anything a graph has no need to call.

    Examples
    --------
    >>> function_named("aten.relu.default")
    <OpOverload(op='aten.relu', overload='default')>
    >>> function_named("aten.from_file.default")
    Traceback (most recent call last):
    ...
    ValueError: 'aten.from_file.default' is not a functional tensor operation
    """
    if name in SIZE_FUNCTIONS:
        return SIZE_FUNCTIONS[name]
    parts = name.split(".")
    if len(parts) != 3 or parts[0] != "aten" or not all(part.isidentifier() for part in parts):
        raise ValueError(f"{name!r} is not an operation of PyTorch's own (aten)")
    found = getattr(getattr(torch.ops.aten, parts[1], None), parts[2], None)
    if not isinstance(found, OpOverload):
        raise ValueError(f"this version of PyTorch has no operation {name!r}")
    schema = found._schema
    touches_files = any("file" in argument.name for argument in schema.arguments)
    if schema.is_mutable or touches_files or not schema.returns:
        raise ValueError(f"{name!r} is not a functional tensor operation")
    return found


def argument_to_plain(item: Any, node: fx.Node) -> Plain:
    """Write one argument of a node."""
    if isinstance(item, fx.Node):
        return {"node": item.name}
    if isinstance(item, float) and not math.isfinite(item):
        return {"float": str(item)}
    if item is None or type(item) in (bool, int, float, str):
        return item
    for kind, of_torch in OF_TORCH.items():
        if isinstance(item, of_torch):
            return {kind: str(item).removeprefix("torch.")}
    if isinstance(item, torch.device):
        return {"device": "of the network"}
    if isinstance(item, slice):
        bounds = (item.start, item.stop, item.step)
        return {"slice": [argument_to_plain(bound, node) for bound in bounds]}
    if isinstance(item, tuple | list):
        plain = [argument_to_plain(part, node) for part in item]
        return plain if isinstance(item, list) else {"tuple": plain}
    raise ConversionError(
        f"node {node.name} ({node.target}) has an argument of type {type(item).__name__}, which a "
        "saved network cannot hold; numbers, strings, dtypes and nodes can be written."
    )


def graph_from_plain(nodes: list[dict[str, Plain]], *, device: torch.device) -> fx.Graph:
    """Build the graph again; tensors it makes by itself are put on ``device``.

    Raises
    ------
    ValueError, LookupError, TypeError
        If the nodes are not what `graph_to_plain` writes.
    """
    graph, known = fx.Graph(), dict[str, fx.Node]()
    for entry in nodes:
        kind, name = entry["op"], entry["name"]
        if kind not in KINDS or not is_name(name) or name in known:
            raise ValueError(f"node {name!r} of kind {kind!r} is not one of a captured graph")
        target = entry["target"]
        if kind == "call_function":
            target = function_named(target)
        elif not PATH.fullmatch(target):
            raise ValueError(f"node {name} has target {target!r}, which is not a dotted name")
        elif kind == "placeholder" and not is_name(target):
            raise ValueError(f"the input is called {target!r}, which is not a name")
        args = tuple(argument_from_plain(item, known, device) for item in entry["args"])
        kwargs = {
            key: argument_from_plain(item, known, device) for key, item in entry["kwargs"].items()
        }
        if not all(is_name(key) for key in kwargs):
            raise ValueError(f"node {name} has an argument that is not a name")
        node = graph.create_node(kind, target, args, kwargs, name=name)
        node.meta["val"] = value_from_plain(entry["value"])
        node.meta["nn_module_stack"] = {"": (str(entry["module"]), "")}
        if node.name != name:
            raise ValueError(f"node {name} cannot keep its name")
        known[name] = node
    graph.lint()
    return graph


def is_name(text: str) -> bool:
    """Tell whether a text may stand for a variable in generated code."""
    return text.isidentifier() and not keyword.iskeyword(text)


def argument_from_plain(item: Plain, known: Mapping[str, fx.Node], device: torch.device) -> Any:
    """Read one argument of a node."""
    if isinstance(item, list):
        return [argument_from_plain(part, known, device) for part in item]
    if not isinstance(item, dict):
        return item
    ((kind, content),) = item.items()
    if kind == "node":
        return known[content]
    if kind == "float":
        return float(content)
    if kind == "device":
        return device
    if kind in OF_TORCH:
        return torch_constant(kind, content)
    if kind in ("tuple", "slice"):
        parts = (argument_from_plain(part, known, device) for part in content)
        return tuple(parts) if kind == "tuple" else slice(*parts)
    raise ValueError(f"an argument is of the unknown kind {kind!r}")


def torch_constant(kind: str, name: str) -> Any:
    """Return ``torch.float32`` for ``("dtype", "float32")``."""
    found = getattr(torch, name, None)
    if not isinstance(found, OF_TORCH[kind]):
        raise ValueError(f"{name!r} is not a {kind} of PyTorch")
    return found


def value_to_plain(value: Any) -> Plain:
    """Write the shape and dtype of what a node returns; numbers as they are."""
    if isinstance(value, torch.Tensor):
        return {"shape": list(value.shape), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, tuple | list):
        return [value_to_plain(part) for part in value]
    return value if type(value) in (bool, int, float) else None


def value_from_plain(value: Plain) -> Any:
    """Return a tensor without content for a shape and dtype."""
    if isinstance(value, dict):
        dtype = torch_constant("dtype", value["dtype"])
        return torch.empty(value["shape"], dtype=dtype, device="meta")
    if isinstance(value, list):
        return [value_from_plain(part) for part in value]
    return value
