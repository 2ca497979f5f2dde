"""What a model answers: tensors in any structure, of which one, chosen by name, is simulated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from topospike.errors import ConfigError, ConversionError
from topospike.models.inputs import is_constant


def results_of(graph: fx.Graph, program: ExportedProgram) -> dict[str, fx.Node]:
    """Return every tensor of the model's result by its name, ``""`` for a plain tensor.

    Raises
    ------
    ConversionError
        If there is none.
    """
    mutated = len(program.graph_signature.buffers_to_mutate)
    (node,) = graph.find_nodes(op="output")
    named = zip(result_names(program), node.args[0][mutated:], strict=True)
    results = {name: item for name, item in named if isinstance(item, fx.Node)}
    if not results:
        raise ConversionError("the model returns no tensor; it must return its logits.")
    return results


def choose(
    results: Mapping[str, fx.Node], wanted: str | int | None, graph: fx.Graph, model: nn.Module
) -> str:
    """Return the name of the one result to be kept.

    Raises
    ------
    ConfigError
        If ``wanted`` is not there, or is needed to choose.
    ConversionError
        If the result has no tensor that could be simulated.
    """
    sizes = [node.meta["val"].shape[0] for node in graph.find_nodes(op="placeholder")]
    held = "; ".join(f"{name or 'result'}: {in_words(item)}" for name, item in results.items())
    fitting = [name for name, item in results.items() if is_answer(item, sizes)]
    kind = type(model).__name__
    if not fitting:
        raise ConversionError(
            f"{kind} returns nothing that can be simulated ({held}): a floating-point tensor with "
            "the batch as its first axis is required. Return the logits instead of their arg-max, "
            "values for each image instead of a mean over them, and put the batch first."
        )
    if wanted is None and len(fitting) == 1:
        return fitting[0]
    if str(wanted) not in fitting:
        asked = "there is more than one" if wanted is None else f"output is {wanted!r}"
        raise ConfigError(
            f"{kind} returns {held}; one floating-point tensor with the batch first is simulated, "
            f"but {asked}. Pass output= one of {', '.join(map(repr, fitting))}."
        )
    return str(wanted)


def result_names(program: ExportedProgram) -> list[str]:
    """Return a name for every leaf of the model's result, ``""`` for a plain tensor."""
    spec = program.call_spec.out_spec
    if spec is None:
        return [""]
    return list(named_results(pytree.tree_unflatten(list(range(spec.num_leaves)), spec)))


def named_results(result: Any) -> dict[str, Any]:
    """Return every leaf of a model's result by its name."""
    paths = pytree.tree_flatten_with_path(result)[0]
    return {".".join(str(step_name(step)) for step in path): leaf for path, leaf in paths}


def answer(result: Any, name: str) -> Tensor:
    """Return the tensor of a model's result that a captured graph of it returns."""
    return named_results(result)[name]


def step_name(step: Any) -> object:
    """Return a key, an index or an attribute's name."""
    for kind in ("key", "idx", "name"):
        if hasattr(step, kind):
            return getattr(step, kind)
    return step


def is_answer(item: fx.Node, sizes: list[Any]) -> bool:
    """Tell whether a result is a floating-point tensor with the batch as its first axis."""
    value = item.meta["val"]
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim == 0:
        return False
    return any(str(value.shape[0]) == str(size) for size in sizes)


def in_words(item: fx.Node) -> str:
    """Return the type and shape of a result; free sizes appear as ``batch``."""
    value = item.meta["val"]
    if not isinstance(value, Tensor):
        return type(value).__name__
    shape = ", ".join("batch" if not is_constant(s) else str(int(s)) for s in value.shape)
    return f"{str(value.dtype).removeprefix('torch.')} ({shape})"
