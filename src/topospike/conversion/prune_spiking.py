r"""Convert: prune the links of a converted network by what they do in its own time steps (SBC).

A neuron does not see its inputs one by one but their running sum, the membrane. So the second
moment that optimal brain surgery asks for is that of the sums (Spiking Brain Compression):

.. math:: H = E[2 (M X)^T (M X)], \qquad (M X)_t = \sum_{k \le t} x_k

with X the spikes of all inputs over time and M the leak matrix, for neurons that do not leak the
cumulative sum. In decoded values the sum is :math:`g(t) r_{in}(t)`, with g the gain of the coding;
where layers wait for one another, all that is looked at is the whole answer. The rest is SparseGPT
with this H (`topospike.pruning.reconstruction`).

Source: Spiking Brain Compression (NeurIPS 2025, arXiv 2506.03996).
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from topospike.errors import ConfigError, ConversionError, MissingDataError
from topospike.models.inputs import Batch
from topospike.progress import progress
from topospike.pruning import PRUNING_METHODS, PruneReport
from topospike.pruning.links import LAYER_OPS, LinkSettings, PrunedLayer, deficiency, prune_together
from topospike.pruning.moments import InputMoments, geometry_of
from topospike.snn.executors.quanta import plain_weight
from topospike.snn.network import SpikingNetwork
from topospike.snn.records import answer_stays, first_answer
from topospike.topology import Layer, check_masks, register_mask, select
from topospike.topology.layers import kind_of
from topospike.wiring.layers import Layer as WeightLayer

METHOD = "sbc"
BATCH = 64
"""Images simulated together."""

Inputs = tuple[Tensor, ...]


@torch.no_grad()
def prune_spiking(
    snn: SpikingNetwork,
    sparsity: float | Mapping[str, float] = 0.7,
    calibration: Iterable[Batch] | Tensor | None = None,
    timesteps: int = 8,
    *,
    block: int = 128,
    damping: float = 0.01,
    precision: torch.dtype = torch.float32,
) -> tuple[SpikingNetwork, PruneReport]:
    """Return a converted network with fewer links, without training, and what was pruned.

    Parameters
    ----------
    snn
        A converted network; it is not changed.
    sparsity
        Share of links to take: one number for every linear layer but the last, or numbers by kind
        (``linear``, ``conv``) or layer name, as in `topospike.prune`.
    calibration
        Batches of ``x`` or ``(x, y)``, or one tensor of images: a hundred training images.
    timesteps
        Steps of the runs that inputs are collected from.
    block, damping, precision
        As in `topospike.prune`.

    Returns
    -------
    (SpikingNetwork, PruneReport)
        A network of the same method and thresholds, and the record of each layer. Its errors are
        those of the membranes: ``||(W' - W) M X|| / ||W M X||``.

    Raises
    ------
    ConversionError
        If the network was not converted, or is of ``srp``, whose sums start anew.
    ConfigError
        If a sparsity is outside [0, 1), ``timesteps`` is too short for an answer, no layer is
        selected, or one that is has a mask already.
    MissingDataError
        If there are no calibration images.

    Notes
    -----
    Layers follow one another: each is seen behind those pruned before it, in a simulation of its
    own. Exactly ``floor(sparsity * n)`` links of each block of columns go.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(32, 8)
    >>> snn = ts.convert(model, "qcfs", calibration=[x])
    >>> pruned, report = ts.prune_spiking(snn, 0.75, x, timesteps=4)
    >>> report.layers[0].links, pruned.wiring[0].macs, snn.wiring[0].macs
    (32, 32.0, 128.0)
    """
    started = time.perf_counter()
    require_sums(snn, timesteps)
    pruned = copy.deepcopy(snn)
    calls = prunable(pruned)
    layers = list(calls)
    target = dict(sparsity) if isinstance(sparsity, Mapping) else {"linear": sparsity}
    targets = dict(select(layers, target))
    if not targets:
        raise ConfigError(
            f"no layer is pruned with sparsity={sparsity!r}. Layers: "
            f"{', '.join(f'{layer.name} ({layer.kind})' for layer in layers)}; give numbers above "
            "0 by kind (linear, conv) or by name."
        )
    images = list(parts(pruned, calibration))
    settings = LinkSettings(
        method=PRUNING_METHODS["sparsegpt"],
        comparison="block",
        inputs="sequential",
        exponent=0.0,
        block=block,
        damping=damping,
        fuse_qkv=False,
        precision=precision,
        measure_errors=True,
    )
    found: list[PrunedLayer] = []
    deficient: list[InputMoments] = []
    with progress(METHOD, total=len(targets), unit="layers") as advance:
        for layer, share in targets.items():
            # a network of its own: programs remember weights
            seen = SpikingNetwork(pruned.ann, snn.report, pruned._wired())
            moments = moments_of_sums(seen, calls[layer], images, timesteps, precision)
            deficient += [moments] if moments.is_deficient else []
            result = prune_together([layer], [layer.weight], moments, share, settings)[layer]
            layer.weight.copy_(result.weight)
            register_mask(layer.module, result.mask, name=layer.attribute)
            found.append(result)
            advance()
    if deficient:
        warnings.warn(deficiency(deficient), stacklevel=2)
    check_masks(pruned.ann)
    report = PruneReport(
        method=METHOD,
        comparison=settings.comparison,
        inputs=settings.inputs,
        images=sum(len(x[0]) if snn.report.input == "image" else x[0].shape[1] for x in images),
        target=target,
        layers=tuple(result.record for result in found),
        weights=sum(layer.weight.numel() for layer in layers),
        seconds=time.perf_counter() - started,
        widths={},
    )
    return sparser(snn, pruned, report), report


def sparser(snn: SpikingNetwork, pruned: SpikingNetwork, report: PruneReport) -> SpikingNetwork:
    """Return the pruned network, whose links are to be found anew, as its own report says."""
    sentence = f"{report.overall_sparsity:.1%} of the weights were pruned after conversion (sbc)."
    advice = (*snn.report.advice, sentence)
    result = SpikingNetwork(pruned.ann, replace(snn.report, advice=advice))
    result.executor, result.costs = snn.executor, snn.costs
    return result


def require_sums(snn: SpikingNetwork, timesteps: int) -> None:
    """Raise unless the sums that neurons see are known, and a run is long enough to have some."""
    codings = {site.coding.name for site in snn.sites.values() if not site.coding.by_formula}
    if codings and not answer_stays(snn):
        raise ConversionError(
            f"a network of {', '.join(codings)} coding does not add up its inputs from the first "
            "step on, which sbc needs. Prune the model before conversion (topospike.prune), or "
            "convert by 'qcfs'."
        )
    least = first_answer(snn) if answer_stays(snn) else 1
    if timesteps < least:
        raise ConfigError(f"timesteps is {timesteps}; this network needs at least {least}.")


def prunable(snn: SpikingNetwork) -> dict[Layer, WeightLayer]:
    """Return the layers whose weight is a parameter of theirs alone, in execution order.

    The last weight layer of the network counts as its classifier.
    """
    found: dict[Layer, WeightLayer] = {}
    for layer in snn.wiring:
        parameter = plain_weight(layer, snn.ann)
        if parameter is None or layer.node.target not in LAYER_OPS:
            continue
        path, _, _ = parameter.rpartition(".")
        weight = snn.ann.get_parameter(parameter)
        one = Layer(
            name=layer.name,
            module=snn.ann.get_submodule(path),
            parameter=parameter,
            kind=kind_of(weight),
            groups=geometry_of(layer.node, tuple(weight.shape[2:])).groups,
            is_classifier=layer is snn.wiring[-1],
        )
        found[one] = layer
    return found


def parts(snn: SpikingNetwork, calibration: Iterable[Batch] | Tensor | None) -> Iterator[Inputs]:
    """Yield the inputs of some images at a time."""
    axis, none = (0 if snn.report.input == "image" else 1), True
    batches = [calibration] if isinstance(calibration, Tensor) else calibration
    for number, batch in enumerate(batches or ()):
        inputs, _ = snn.split(batch, f"calibration batch {number}")
        for part in zip(*(tensor.split(BATCH, axis) for tensor in inputs), strict=True):
            none = False
            yield part
    if none:
        raise MissingDataError(
            "there are no calibration images; pass calibration=batches with at least one batch of "
            "training images, normalised as in training."
        )


def moments_of_sums(
    snn: SpikingNetwork,
    layer: WeightLayer,
    images: Iterable[Inputs],
    timesteps: int,
    precision: torch.dtype,
) -> InputMoments:
    """Return H of what a layer's neurons have been sent by each step."""
    name = plain_weight(layer, snn.ann)
    kernel = tuple(snn.ann.get_parameter(name).shape[2:]) if name else ()
    geometry = geometry_of(layer.node, kernel)
    moments = InputMoments(layer.name, geometry, products=True, dtype=precision)
    coding = next(iter(snn.sites.values())).coding
    for inputs in images:
        for step in snn.watch(inputs, timesteps, layer.operands, record=False):
            if coding.complete_at is None:
                moments.add(coding.gain(step.t) * step.values[0])
            elif step.t == coding.complete_at:
                moments.add(step.values[0])
    return moments
