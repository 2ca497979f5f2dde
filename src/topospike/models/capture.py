"""The graph of any model: one functional ATen graph, whatever Python wrote it.

`torch.export` runs the model once on fake tensors and records every operation, so a module ReLU, a
functional ReLU, an in-place add and a custom padding layer all become plain graph nodes. Both the
converter (which places spiking sites in that graph) and percolation (which needs to know which
layers feed which) read it. This module only captures; it changes nothing and interprets nothing.
"""

from __future__ import annotations

import linecache
import traceback
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn
from torch._ops import OperatorBase
from torch.export import Dim, ExportedProgram, export
from torch.export.graph_signature import InputKind

from topospike.errors import ConversionError, ShapeError

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

    ``softmax(query key^T scale + mask) value``; the default scale is 1 / sqrt(last axis).
    """
    if is_causal or enable_gqa or dropout_p:
        raise ConversionError(
            "attention with is_causal, grouped queries or dropout is not supported in a captured "
            "graph; pass an explicit attn_mask, repeat the keys, and evaluate without dropout."
        )
    factor = query.shape[-1] ** -0.5 if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            scores = scores.masked_fill(~attn_mask, float("-inf"))
        else:
            scores = scores + attn_mask
    return torch.matmul(torch.softmax(scores, dim=-1), value)


DECOMPOSITIONS: dict[OperatorBase, Callable[..., Tensor]] = {
    torch.ops.aten.scaled_dot_product_attention.default: attention_in_two_products
}


def capture(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """Record ``model(example)`` in evaluation mode as a functional ATen graph.

    Parameters
    ----------
    model
        Any module that takes one tensor and returns one tensor, or a tuple, dictionary or data
        class whose first tensor is the result (as Hugging Face image classifiers do).
    example : Tensor, shape (batch, ...)
        One batch of real input. The batch axis is left free; all other sizes are fixed.

    Returns
    -------
    torch.fx.GraphModule
        Nodes are ``call_function`` of ``torch.ops.aten``; parameters and buffers are ``get_attr``
        nodes named exactly as in the model and *share* its tensors. One placeholder (the input),
        one output (the result). ``node.meta["val"]`` holds the shape, ``node_module(node)`` the
        path of the module that ran it.

    Raises
    ------
    ConversionError
        If the model cannot be captured (for example data-dependent control flow).
    ShapeError
        If ``example`` has no batch axis or an empty one.

    Notes
    -----
    The model's own training flags are restored, its parameters are not touched. The output equals
    ``model.eval()(example)``.

    Examples
    --------
    >>> graph = capture(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.zeros(2, 3))
    >>> [node.name for node in graph.graph.nodes if node.op == "call_function"]
    ['linear', 'relu']
    """
    if example.ndim < 2 or example.shape[0] == 0:
        raise ShapeError(
            f"the example input has shape {tuple(example.shape)}; a non-empty batch axis and at "
            "least one more axis are required. Pass one batch of real input."
        )
    program = export_in_eval_mode(model, two_rows(example))
    graph = parameters_as_attributes(program)
    require_free_batch_axis(graph, model)
    drop_checks(graph)
    keep_one_output(graph, program)
    used = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    state = {name: tensor for name, tensor in tensors_of(program, model).items() if name in used}
    captured = fx.GraphModule(state, graph)
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


def two_rows(example: Tensor) -> Tensor:
    """Return two rows of the example: a batch of one would be recorded as a constant size."""
    rows = example[:2]
    return rows if len(rows) == 2 else rows.repeat(2, *([1] * (example.ndim - 1)))


def export_in_eval_mode(model: nn.Module, example: Tensor) -> ExportedProgram:
    """Export in evaluation mode, restore every training flag, and explain a failure."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            # torch 2.13 warns inside export about its own use of a name it has deprecated
            warnings.filterwarnings("ignore", ".*LeafSpec.*", FutureWarning)
            # a hook that recomputes a weight at every call (torch's pruning, spectral norm)
            warnings.filterwarnings("ignore", r".*\.weight was assigned during export", UserWarning)
            program = export(model, (example,), dynamic_shapes=({0: Dim.AUTO},), strict=False)
            return program.run_decompositions(DECOMPOSITIONS)
    except Exception as error:
        # torch.export has no common base class for what it can raise; every one of them means the
        # same to the user, so the cause is kept and the remedy added.
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ConversionError(
            f"{type(model).__name__} could not be captured as a graph"
            f"{failing_place(model, error)} ({type(error).__name__}: {reason}). The forward pass "
            "must be expressible without data-dependent Python control flow and take one tensor; "
            "rewrite that branch with torch operations (torch.where, torch.cond) or convert the "
            "part that can be exported."
        ) from error
    finally:
        for module, flag in training.items():
            module.training = flag


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


def is_constant(size: int | torch.SymInt) -> bool:
    """Tell whether a size is one number, written as such or tied to it by a guard."""
    return isinstance(size, int) or size.node.maybe_as_int() is not None


def drop_checks(graph: fx.Graph) -> None:
    """Remove run-time assertions: they hold by construction and only cost time."""
    for node in [node for node in graph.nodes if node.target in CHECK_OPS]:
        graph.erase_node(node)


def keep_one_output(graph: fx.Graph, program: ExportedProgram) -> None:
    """Return the first result alone, whatever container the model returned."""
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if len(inputs) != 1:
        names = [node.name for node in inputs]
        raise ConversionError(
            f"the model takes {len(inputs)} tensors {names}; exactly one is required. "
            "Wrap it in a module whose forward takes the image alone."
        )
    mutated = len(program.graph_signature.buffers_to_mutate)
    output = next(node for node in graph.nodes if node.op == "output")
    results = [item for item in output.args[0][mutated:] if isinstance(item, fx.Node)]
    if not results:
        raise ConversionError("the model returns no tensor; it must return its logits.")
    output.args = (results[0],)


def tensors_of(program: ExportedProgram, model: nn.Module) -> dict[str, Tensor | nn.Parameter]:
    """Return every tensor the graph may read by name, preferring the model's own objects."""
    named: dict[str, Tensor] = dict(program.constants)  # pyright: ignore[reportAssignmentType]
    named.update(program.state_dict)
    named.update(model.named_buffers(remove_duplicate=False))
    named.update(model.named_parameters(remove_duplicate=False))
    return named
