"""Stage prune: from a trained dense network to a sparse one, in one call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError, MissingDataError
from topospike.models.inputs import Batch
from topospike.pruning.channels import nothing_to_prune, prune_channels
from topospike.pruning.links import LinkSettings, prune_links
from topospike.pruning.methods import PRUNING_METHODS, Method, comparison_of, require_known
from topospike.pruning.moments import CalibrationImages
from topospike.pruning.report import PruneReport
from topospike.topology import original, select, weight_layers
from topospike.topology.layers import listed

Sparsity = float | Mapping[str, float]
DEFAULT_SPARSITY = 0.7
STRUCTURED_SPARSITY = {"conv": 0.78, "linear": 0.99}


def prune(
    model: nn.Module,
    method: str = "magnitude",
    sparsity: Sparsity | None = None,
    calibration: Iterable[Batch] | Tensor | None = None,
    *,
    comparison: str | None = None,
    inputs: str = "sequential",
    exponent: float = 0.5,
    block: int = 128,
    damping: float = 0.01,
    fuse_qkv: bool = False,
    chunk: int = 16,
    precision: torch.dtype = torch.float32,
    measure_errors: bool = True,
    widths: str = "layer",
    tolerance: float = 0.005,
) -> PruneReport:
    """Prune a trained network in place, after training and without training.

    Parameters
    ----------
    model
        Any dense module that `torch.export` can capture (``magnitude`` and ``ri`` without images
        take any module). Its layers get ``weight_mask`` buffers; biases and norms stay.
    method
        ``magnitude``, ``ri``, ``ria``, ``ria-rec``, ``wanda``, ``wanda-rec``, ``sparsegpt`` prune
        single links; ``depgraph`` prunes whole channels and neurons.
    sparsity
        One number for every linear layer but the classifier (default 0.7); or numbers by kind
        (``linear``, ``conv``) or layer name. For ``depgraph`` by kind, or one number for both
        (default conv 0.78, linear 0.99).
    calibration
        Batches of ``x`` or ``(x, y)``, or one tensor of images: a hundred training images without
        augmentation. ``magnitude`` and ``ri`` do without, and then measure no errors.
    comparison : {"row", "layer"}, optional
        Rank weights within each output's row or within the layer; ``None`` is the method's own
        (``row`` for Wanda, ``layer`` for the others).
    inputs : {"sequential", "dense"}
        Whether a block's inputs come from the pruned blocks before it, or from the dense network
        (half the time).
    exponent
        Power of the input norms in RIA.
    block, damping
        Columns in a block of the reconstruction, and what is added to the diagonal of H as a
        share of its mean.
    fuse_qkv
        Rank linear layers that read the same input (queries, keys, values) as one layer, as in
        networks that hold them as one.
    chunk
        Images run at a time; bounds the memory.
    precision
        Of statistics and reconstruction.
    measure_errors
        Measure how far the output of every layer moves; needs whole second moments.
    widths : {"layer", "total"}
        ``depgraph``: solve the width of each hidden linear layer for its own sparsity, or make
        them equal and meet the sparsity of all together.
    tolerance
        ``depgraph``: how far the sparsity of all layers of a kind may lie from the target, since
        widths are whole numbers.

    Returns
    -------
    PruneReport
        Links, density, errors and seconds of every layer.

    Raises
    ------
    ConfigError
        If an option is unknown or does not belong to the method, a sparsity lies outside [0, 1)
        or would leave nothing of a layer, no layer is selected, or one that is shares its weight,
        is parametrized or masked already; for ``depgraph``, if channels cannot go alone.
    MissingDataError, ShapeError, NonFiniteError
        If the method needs images and there are none, they do not fit the model, or they, or
        activations, hold NaN or infinity; the last names the layer.
    ConversionError
        If the model cannot be captured as a graph.
    MissingDependencyError
        If ``depgraph`` is asked for and torch-pruning is not installed.

    Notes
    -----
    A call that fails leaves the model as it was. Sparsity 0 is allowed and does nothing. The
    classifier, the layer of the last weighted operation, stays dense unless it is named; so do
    grouped convolutions with one channel a group. Which layers are meant, and what is refused
    (shared weights among it), is decided as for `topospike.sparsify`.

    Differs from the reference codes in exact counts (`topospike.pruning.methods`), and in 0 / 0 =
    0 for relative importance.

    Examples
    --------
    >>> import topospike as ts
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> report = ts.prune(model, method="wanda", sparsity=0.75, calibration=torch.rand(32, 8))
    >>> report.layers[0].links, int(model[0].weight_mask.sum())
    (32, 32)
    """
    started = time.perf_counter()
    model = original(model)
    chosen = method_named(method)
    require_known("inputs", inputs, ("sequential", "dense"))
    require_known("widths", widths, ("layer", "total"))
    ranked_within = comparison_of(chosen, comparison)
    images = None
    if calibration is not None:
        images = CalibrationImages(calibration, model, chunk=chunk)
    elif chosen.needs_inputs:
        raise MissingDataError(
            f"method {method!r} looks at activations; pass calibration=batches with training "
            "images, or use magnitude or ri."
        )
    target = target_of(chosen, sparsity)
    kept: dict[str, tuple[int, int]] = {}
    if chosen.comparison == "group" and images is not None:
        layers, kept = prune_channels(
            model, images.first[:2], target, widths=widths, tolerance=tolerance
        )
    else:
        found = weight_layers(model, None if images is None else images.first[:2])
        targets = dict(select(found, target))
        if not targets and any(target.values()):
            raise ConfigError(nothing_to_prune(found, sparsity))
        settings = LinkSettings(
            method=chosen,
            comparison=ranked_within,
            inputs=inputs,
            exponent=exponent,
            block=block,
            damping=damping,
            fuse_qkv=fuse_qkv,
            precision=precision,
            measure_errors=measure_errors,
        )
        layers = prune_links(targets, settings, model=model, images=images)
    is_walked = images is not None and images.count > 0
    return PruneReport(
        method=method,
        comparison=ranked_within,
        inputs=inputs if is_walked else "none",
        images=images.count if images is not None else 0,
        target=target,
        layers=layers,
        weights=count_weights(model),
        seconds=time.perf_counter() - started,
        widths=kept,
    )


def method_named(method: str) -> Method:
    """Return a method, and catch what was meant for ``sparsity``."""
    if not isinstance(method, str):
        raise ConfigError(
            f"method is {method!r}; the name of a method is required here. Known: "
            f"{', '.join(PRUNING_METHODS)}. Numbers by layer go to sparsity=."
        )
    return PRUNING_METHODS[method]


def count_weights(model: nn.Module) -> int:
    """Count the weights of all convolutions and linear layers, each once, without biases."""
    # of a parametrized layer the product counts, which is made anew at each look
    weights = {id(weight): weight for weight in (layer.module.weight for layer in listed(model))}
    return sum(weight.numel() for weight in weights.values())  # pyright: ignore[reportCallIssue, reportAttributeAccessIssue]


def target_of(method: Method, sparsity: Sparsity | None) -> dict[str, float]:
    """Return the sparsity by kind or layer name; one number means what the method prunes."""
    if isinstance(sparsity, Mapping):
        return dict(sparsity)
    if method.comparison == "group":
        both = STRUCTURED_SPARSITY if sparsity is None else {"conv": sparsity, "linear": sparsity}
        return dict(both)
    return {"linear": DEFAULT_SPARSITY if sparsity is None else sparsity}
