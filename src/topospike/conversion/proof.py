"""A conversion proves itself: what was built answers as the model it was given.

Before a network is handed out its sites act as the ANN's activations once, on rows of the
calibration data, and the answer is compared with the model's own. So a capture that dropped
something, a batch norm folded into the wrong layer or a value that took another path is an error
here instead of a strange accuracy later. The same rows show whether the answer for one depends on
the others: a simulation may divide a batch, and such a network would then answer differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from topospike.conversion.fold import fold_batch_norms
from topospike.errors import ConversionError, ShapeError
from topospike.models.capture import bound, capture, node_module, require_axes
from topospike.models.inputs import (
    InputForm,
    Inputs,
    call,
    described,
    evaluation_mode,
    leaves,
    mapped,
)
from topospike.models.outputs import answer
from topospike.snn.site import Site
from topospike.thresholds.solvers import check_thresholds
from topospike.wiring import linear_maps

ROWS = 4
"""Rows of the calibration data that are compared."""

TOLERANCE: Mapping[torch.dtype, float] = {
    torch.float64: 1e-10,
    torch.float32: 1e-4,
    torch.float16: 0.03,  # about 32 units in the last place: folding rounds every weight anew
    torch.bfloat16: 0.25,
}
"""Relative difference (Euclidean norms) that rounding may make."""

QUANTISED_TOLERANCE = 0.02
"""The same where activations are steps: rounding moves a few values to the next one."""


@dataclass(frozen=True)
class Reference:
    """Rows of calibration data and what the model answers for them, in evaluation mode."""

    rows: Inputs
    result: Any


@torch.no_grad()
def run_model(model: nn.Module, first: Inputs) -> Reference:
    """Run the model on `ROWS` rows of the first calibration batch.

    Fewer rows are filled up with altered ones, so that there is always more than one.

    Raises
    ------
    ShapeError
        If the model cannot run on such inputs, so that a wrong size or dtype is told apart from a
        model that cannot be captured.
    ConfigError
        If its ``forward`` takes other arguments.
    """
    require_axes(first)
    bound(model, first)
    rows = mapped(some_rows, first)
    try:
        with evaluation_mode(model):
            return Reference(rows, call(model, rows))
    except (RuntimeError, ValueError, IndexError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ShapeError(
            f"{type(model).__name__} does not run on the calibration images: inputs of "
            f"{described(first)} ({reason}). {what_to_pass(model, first)}"
        ) from error


def what_to_pass(model: nn.Module, first: Inputs) -> str:
    """Say what inputs a model takes that does not run on these."""
    tables = sorted({m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding)})
    if not tables:
        return "Pass batches as in training: batch first, of the same size, channels and dtype."
    given = leaves(first)
    ranges = [f"{int(x.min())} to {int(x.max())}" for x in given if not x.is_floating_point()]
    return (
        f"Its tables of embeddings have {', '.join(map(str, tables))} rows; the whole numbers run "
        f"from {' and from '.join(ranges) or '(there are none)'}. Token ids are int64, not below 0 "
        "and below the size of the vocabulary, and a sentence has no more of them than there are "
        "positions."
    )


def some_rows(tensor: Tensor) -> Tensor:
    """Return `ROWS` rows; what is missing is made of those there are, shifted and weaker."""
    rows = tensor[:ROWS]
    if len(rows) == ROWS:
        return rows
    others = [rows.roll(k, -1) if rows.ndim > 1 else rows for k in range(ROWS)]
    if rows.is_floating_point():  # whole numbers may be names of tokens
        others = [other * (1 - k / (2 * ROWS)) for k, other in enumerate(others)]
    return torch.cat(others)[:ROWS]


def tolerance_of(dtype: torch.dtype, *, quantised: bool = False) -> float:
    """Return the relative difference that rounding alone can make."""
    least = QUANTISED_TOLERANCE if quantised else 0.0
    return max(least, TOLERANCE.get(dtype, TOLERANCE[torch.float32]))


def difference(found: Tensor, expected: Tensor) -> float:
    """Return ``|found - expected| / |expected|`` (Euclidean norms); infinite for other shapes."""
    if found.shape != expected.shape:
        return float("inf")
    gap = float((found.double() - expected.double()).norm())
    return gap / max(float(expected.double().norm()), 1e-30) if gap else 0.0


def refuse_chance(network: fx.GraphModule) -> None:
    """Raise `ConversionError` if an operation draws random numbers in evaluation mode."""
    for node in network.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.nondeterministic_seeded in tags and not is_switched_off(node):
            place = node_module(node) or "the model itself"
            raise ConversionError(
                f"{place} runs {node.target}, which draws random numbers even in evaluation mode, "
                "so there is no answer to compare with. Write "
                "F.dropout(x, p, training=self.training), use nn.Dropout, or take the noise out."
            )


def is_switched_off(node: fx.Node) -> bool:
    """Tell whether an operation like dropout is in evaluation mode or drops nothing."""
    values = linear_maps.bound(node)
    off = (values.get("train", True), values.get("training", True))
    return off != (True, True) or 0.0 in (values.get("p"), values.get("dropout_p"))


@torch.no_grad()
def require_rows_alone(network: fx.GraphModule, reference: Reference) -> None:
    """Raise `ConversionError` if the answer for some rows depends on which others are there."""
    rows, half = InputForm.of(network).leaves(reference.rows), ROWS // 2
    whole = network(*rows)
    for part in (slice(0, half), slice(half, ROWS)):  # in another order, and without the others
        try:
            alone = network(*(tensor[part].flip(0) for tensor in rows)).flip(0)
        except (RuntimeError, ValueError) as error:
            raise ConversionError(
                f"the captured network cannot be run on {half} rows alone ({error}). Its forward "
                "pass must take any batch size."
            ) from error
        gap = difference(alone, whole[part])
        if not gap <= tolerance_of(whole.dtype):
            raise ConversionError(
                f"the answer for an image depends on the other images of its batch (it differs by "
                f"{gap:.1%} without them), so it would change with the batch size. Give batch "
                "norms running statistics (track_running_stats=True, and train or estimate them), "
                "take means over other axes than the first, and put the batch first."
            )


@torch.no_grad()
def require_model_answer(
    network: fx.GraphModule, model: nn.Module, reference: Reference, *, quantised: bool, fold: bool
) -> None:
    """Raise `ConversionError` unless the network with sites answers as the model it was made from.

    Parameters
    ----------
    network
        The rewritten network; its sites act as the ANN's activations.
    model
        What was captured.
    reference
        What the model given by the user answers.
    quantised
        Whether the sites hold trained step functions.
    fold
        Whether batch norms were folded.
    """
    chosen = network.meta["output"]
    expected = answer(reference.result, chosen)
    limit = tolerance_of(expected.dtype, quantised=quantised)
    if not bool(torch.isfinite(expected).all()):
        raise ConversionError(
            "the model answers NaN or infinity on calibration images, so there is nothing to "
            "compare with. Check the weights and the normalisation of the images."
        )
    gap = difference(network(*InputForm.of(network).leaves(reference.rows)), expected)
    if gap <= limit:
        return
    raise ConversionError(
        f"the converted network with the ANN's own activations differs from the model by {gap:.2%} "
        f"on calibration images; at most {limit:.2%} is rounding. "
        + what_differs(model, reference, chosen, fold=fold)
    )


def what_differs(model: nn.Module, reference: Reference, chosen: str, *, fold: bool) -> str:
    """Return after which step of the conversion the answers differ, and what to do."""
    with evaluation_mode(model):
        now = answer(call(model, reference.rows), chosen)
    limit = tolerance_of(now.dtype)
    again = answer(reference.result, chosen)
    graph = capture(model, reference.rows, output=chosen or None)
    rows = InputForm.of(graph).leaves(reference.rows)
    if not (
        difference(now, again) <= QUANTISED_TOLERANCE and difference(graph(*rows), now) <= limit
    ):
        return (
            "The captured graph differs already: the forward pass reads something that changes "
            "from call to call, or that a graph does not hold. Make it a function of its inputs "
            "and parameters alone."
        )
    if fold and fold_batch_norms(graph) and not difference(graph(*rows), now) <= limit:
        return "It differs once batch norms are folded. Convert with fold=False."
    return (
        "It differs once sites are in the place of its activations: one of them is another "
        "function than its site. Convert the part of the model that has plain activations, and "
        "report the model."
    )


def require_sound_sites(sites: Sequence[Site], like: Tensor) -> None:
    """Raise `ConversionError` unless every site has a name and a usable threshold of its own.

    Thresholds are looked at in the type they are used in: a cast can turn small ones into 0.
    """
    names = [site.name for site in sites]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConversionError(
            f"two sites are called {', '.join(twice)}, so one would take the other's threshold. "
            "Rename one of the modules of that name."
        )
    for site in sites:
        theta = site.threshold
        if theta.dtype != like.dtype:
            raise ConversionError(
                f"{site.name}: its threshold is {theta.dtype}, the parameters are {like.dtype}; "
                "both must agree. Give thresholds as floating-point numbers."
            )
        check_thresholds(theta, site=site.name)


def parameter_like(network: nn.Module, inputs: Sequence[Tensor]) -> Tensor:
    """Return a tensor of the type and device thresholds have: a parameter, not an image."""
    tensors = [*network.parameters(), *network.buffers(), *inputs]
    found = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    return torch.zeros((), device=inputs[0].device) if found is None else found
