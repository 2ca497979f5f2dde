"""The graph of any model: one functional ATen graph, whatever Python wrote it.

`torch.export` runs the model once on fake tensors and records every operation, so a module ReLU, a
functional ReLU, an in-place add and a custom padding layer all become plain graph nodes. Both the
converter (which places spiking sites in that graph) and percolation (which needs to know which
layers feed which) read it. This module only captures; it changes nothing and interprets nothing.
"""

from __future__ import annotations

import inspect
import linecache
import traceback
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OperatorBase
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from topospike.errors import ConfigError, ConversionError, ShapeError
from topospike.models.inputs import Inputs, evaluation_mode, is_constant, leaves, mapped
from topospike.models.outputs import choose, results_of

MAX_AXES = 8
"""Whole-number buffers of at most so many entries may hold a shape."""

CHECK_OPS = (
    torch.ops.aten._assert_tensor_metadata.default,
    torch.ops.aten._assert_scalar.default,
    torch.ops.aten.sym_constrain_range_for_size.default,
)


def attention_in_two_products(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Write fused attention as product, softmax, product, so that its operands are visible.

    ``softmax(query key^T scale + mask) value``; the default scale is 1 / sqrt(last axis). A query
    that may attend nothing (padding on the left of a causal mask) gets zeros, as from torch.
    """
    if dropout_p:
        raise ConversionError(
            f"attention with dropout_p={dropout_p} draws random numbers even in evaluation mode. "
            "Write dropout_p=p if self.training else 0.0."
        )
    if enable_gqa:
        key, value = (
            side.repeat_interleave(query.shape[-3] // side.shape[-3], -3) for side in (key, value)
        )
    if is_causal:
        every = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device)
        attn_mask = every.tril()
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if attn_mask is None:
        return torch.matmul(torch.softmax(scores, dim=-1), value)
    if attn_mask.dtype == torch.bool:
        blocked = ~attn_mask
        scores = scores.masked_fill(blocked, float("-inf"))
    else:
        blocked = attn_mask == float("-inf")
        scores = scores + attn_mask
    weights = torch.softmax(scores, dim=-1)
    if not is_causal:
        weights = weights.masked_fill(blocked.all(-1, keepdim=True), 0.0)
    return torch.matmul(weights, value)


def linear_layer(
    bias: Tensor, x: Tensor, weight: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Write ``beta bias + alpha x weight`` as the linear layer it is (Hugging Face's Conv1D)."""
    if (beta, alpha) == (1, 1) and bias.ndim == 1:
        return torch.nn.functional.linear(x, weight.t(), bias)
    return beta * bias + alpha * torch.matmul(x, weight)


DECOMPOSITIONS: dict[OperatorBase, Callable[..., Tensor]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention_in_two_products,
    torch.ops.aten.addmm.default: linear_layer,
}


def capture(
    model: nn.Module,
    example: Inputs,
    *,
    output: str | int | None = None,
    first_output: bool = False,
) -> fx.GraphModule:
    """Record the model's call on an example, in evaluation mode, as a functional ATen graph.

    Parameters
    ----------
    model
        Any module that takes tensors and returns tensors in any structure.
    example
        One batch of real input: a tensor for ``model(example)``, a tuple or list for
        ``model(*example)``, a dictionary for ``model(**example)``. The batch axis, the first of
        every tensor, is left free; all other sizes are fixed.
    output
        Which tensor of the result is kept: a key or attribute of a dictionary or data class, or a
        place in a tuple (``"logits"``, ``1``; parts inside parts as ``"decoder.0"``). Needed where
        more than one floating-point tensor with a batch axis comes back.
    first_output
        Keep the first tensor, whatever it is: for who only reads which layers feed which.

    Returns
    -------
    torch.fx.GraphModule
        Nodes are ``call_function`` of ``torch.ops.aten``; parameters and buffers are ``get_attr``
        nodes named exactly as in the model and *share* its tensors. One placeholder for each input
        tensor, named as the argument of ``forward``; one output. ``node.meta["val"]`` holds the
        shape, ``node_module(node)`` the path of the module that ran it.

    Raises
    ------
    ConversionError
        If the model cannot be captured (for example data-dependent control flow), or its result
        has no floating-point tensor with the batch first.
    ConfigError
        If ``forward`` does not take such an example, or ``output`` names nothing of the result, or
        is needed and missing.
    ShapeError
        If a tensor of ``example`` has no batch axis or an empty one.

    Notes
    -----
    The model's own training flags are restored, its parameters are not touched. The output equals
    that of ``model.eval()``.

    Examples
    --------
    >>> graph = capture(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.zeros(2, 3))
    >>> [node.name for node in graph.graph.nodes if node.op == "call_function"]
    ['linear', 'relu']
    """
    require_axes(example)
    program = export_in_eval_mode(model, mapped(two_rows, example))
    graph = parameters_as_attributes(program)
    require_free_batch_axis(graph, model)
    drop_checks(graph)
    results = results_of(graph, program)
    chosen = next(iter(results)) if first_output else choose(results, output, graph, model)
    next(iter(graph.find_nodes(op="output"))).args = (results[chosen],)
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    state = {name: tensor for name, tensor in tensors_of(program, model).items() if name in used}
    captured = fx.GraphModule(state, graph)
    captured.meta["output"] = chosen
    captured.graph.eliminate_dead_code()
    captured.recompile()
    return captured


def node_module(node: fx.Node) -> str:
    """Return the dotted path of the module whose forward ran this node (``""`` for the root)."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return clean_path(paths[-1]) if paths else ""


def clean_path(path: str) -> str:
    """Strip the decorations `torch.export` adds to module paths, ``L['self'].fc`` -> ``fc``."""
    path = path.removeprefix("L['self']").removeprefix(".")
    return "" if path.startswith("_empty_nn_module_stack") else path.split("@")[0]


def require_axes(example: Inputs) -> None:
    """Raise `ShapeError` unless an example has rows: a batch axis, and numbers for each of them."""
    for tensor in leaves(example):
        if tensor.ndim == 0 or len(tensor) == 0:
            raise ShapeError(
                f"the example input has shape {tuple(tensor.shape)}; a non-empty batch axis and at "
                "least one more axis are required. Pass one batch of real input."
            )
    if all(tensor.ndim == 1 and tensor.is_floating_point() for tensor in leaves(example)):
        raise ShapeError(
            f"the images have shape {tuple(leaves(example)[0].shape)}; a batch axis and at least "
            "one more are required. Add the batch axis: images[None]."
        )


def two_rows(example: Tensor) -> Tensor:
    """Return two rows of the example: a batch of one would be recorded as a constant size."""
    rows = example[:2]
    return rows if len(rows) == 2 else rows.repeat(2, *([1] * (example.ndim - 1)))


def bound(model: nn.Module, example: Inputs) -> dict[str, Any]:
    """Return the example by the names of ``forward``'s arguments.

    Raises
    ------
    ConfigError
        If ``forward`` cannot be called so.
    """
    args, kwargs = arguments(example)
    signature = inspect.signature(model.forward)
    open_names = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]
    try:
        found = dict(signature.bind(*args, **kwargs).arguments)
    except TypeError as error:
        given = ", ".join(kwargs) if kwargs else f"{len(args)} tensors"
        raise ConfigError(
            f"{type(model).__name__}.forward{signature} cannot be called with the inputs given "
            f"({given}): {error}. Pass a tensor, a tuple in the order of forward's arguments, or a "
            "dictionary of their names."
        ) from error
    if any(name in found for name in open_names):
        raise ConfigError(
            f"{type(model).__name__}.forward{signature} does not name the inputs "
            f"{', '.join(kwargs)}, so they cannot be told apart in a graph. Pass the module inside "
            "(model.module of an AveragedModel), or a tuple of tensors."
        )
    return found


def arguments(example: Inputs) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return an example as positional and keyword arguments."""
    if isinstance(example, Mapping):
        return (), dict(example)
    return leaves(example), {}


def export_in_eval_mode(model: nn.Module, example: Inputs) -> ExportedProgram:
    """Export in evaluation mode, restore every flag, and explain a failure."""
    named = bound(model, example)
    free = pytree.tree_map(lambda _: {0: Dim.AUTO}, named)
    # in the order of forward, so that a tuple means the same whatever order the names were given in
    args, kwargs = ((), named) if isinstance(example, Mapping) else (leaves(example), {})
    try:
        with torch.no_grad(), warnings.catch_warnings(), evaluation_mode(model):
            # torch 2.13 warns inside export about its own use of a name it has deprecated
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            # a hook that recomputes a weight at every call (torch's pruning, spectral norm)
            warnings.filterwarnings("ignore", r".*\.weight was assigned during export", UserWarning)
            program = export(model, args, kwargs, dynamic_shapes=free, strict=False)
            return program.run_decompositions(DECOMPOSITIONS)
    except Exception as error:
        # torch.export has no common base class for what it can raise; every one of them means the
        # same to the user, so the cause is kept and the remedy added.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ConversionError(
            f"{type(model).__name__} could not be captured as a graph"
            f"{failing_place(model, error)} ({type(error).__name__}: {reason}). "
            f"{remedy(model, error)}"
        ) from error


def remedy(model: nn.Module, error: Exception) -> str:
    """Return what to do about a failed capture."""
    numbers = [
        name for name, buffer in model.named_buffers()
        if not buffer.is_floating_point() and buffer.ndim < 2 and buffer.numel() <= MAX_AXES
        and not name.endswith("num_batches_tracked")
    ]  # fmt: skip
    if numbers and "data-dependent" in str(error).lower():
        return (
            f"The model keeps whole numbers in buffers ({', '.join(numbers[:5])}), as networks "
            "made from ONNX do with sizes; a capture sees their shape, not their values. Replace "
            "them by Python numbers: value = module.shape.tolist(); del module.shape; "
            "module.shape = value."
        )
    if "Cache" in str(error):
        return (
            "The model returns a cache of keys and values, which is no tensor. Set "
            "model.config.use_cache = False, or pass use_cache=False inside its forward."
        )
    return (
        "The forward pass must be expressible without data-dependent Python control flow; rewrite "
        "that branch with torch operations (torch.where, torch.cond) or convert the part that can "
        "be exported."
    )


def failing_place(model: nn.Module, error: BaseException) -> str:
    """Return where the innermost module stopped, as `` in layer1.0 (Block), line: code``."""
    paths = {id(module): path for path, module in model.named_modules()}
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        module = frame.f_locals.get(code.co_varnames[0]) if code.co_argcount else None
        if id(module) in paths and code.co_name == "forward":
            place = paths[id(module)] or "the model itself"
            text = linecache.getline(code.co_filename, line).strip()
            found = f" in {place} ({type(module).__name__}), line {line}: {text}"
    return found


def parameters_as_attributes(program: ExportedProgram) -> fx.Graph:
    """Replace the lifted parameter inputs of the exported graph by ``get_attr`` nodes."""
    graph = program.graph_module.graph
    targets = {
        spec.arg.name: spec.target
        for spec in program.graph_signature.input_specs
        if spec.kind != InputKind.USER_INPUT
    }
    for node in [node for node in graph.nodes if node.op == "placeholder"]:
        target = targets.get(node.name)
        if target is None:
            continue
        if node.users:
            with graph.inserting_before(node):
                attribute = graph.create_node("get_attr", str(target), name=node.name)
            attribute.meta.update(node.meta)
            node.replace_all_uses_with(attribute)
        graph.erase_node(node)
    return graph


def require_free_batch_axis(graph: fx.Graph, model: nn.Module) -> None:
    """Refuse a graph that was recorded for one batch size: the last batch would not fit it."""
    for node in graph.nodes:
        if node.op == "placeholder" and is_constant(node.meta["val"].shape[0]):
            raise ConversionError(
                f"the forward pass of {type(model).__name__} turns the batch size into a constant "
                "(for example by len(x) or int(x.shape[0])), so its graph would hold for one batch "
                "size only. Use x.shape[0] or x.size(0) as they are, or -1 in reshapes."
            )


def drop_checks(graph: fx.Graph) -> None:
    """Remove run-time assertions: they hold by construction and only cost time."""
    for node in [node for node in graph.nodes if node.target in CHECK_OPS]:
        graph.erase_node(node)


def tensors_of(program: ExportedProgram, model: nn.Module) -> dict[str, Tensor | nn.Parameter]:
    """Return every tensor the graph may read by name, preferring the model's own objects."""
    named: dict[str, Tensor] = dict(program.constants)  # pyright: ignore[reportAssignmentType]
    named.update(program.state_dict)
    named.update(model.named_buffers(remove_duplicate=False))
    named.update(model.named_parameters(remove_duplicate=False))
    return named
