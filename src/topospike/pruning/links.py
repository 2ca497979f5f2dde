"""Stage prune: single links of a trained network, without training (all methods but DepGraph).

Rank the links of a layer, take the last of them, adjust the rest; from the weights alone, or from
the statistics of the layer's inputs. The work is done on a copy of the captured graph and handed to
the model at the end, so a call that fails leaves the model as it was. Layers that read the same
input share its statistics.
"""

from __future__ import annotations

import copy
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from topospike.errors import ConfigError, NonFiniteError
from topospike.models import capture
from topospike.progress import progress
from topospike.pruning.methods import Method, keep_largest
from topospike.pruning.moments import CalibrationImages, InputMoments, geometry_of
from topospike.pruning.reconstruction import output_error, reconstruct
from topospike.pruning.report import LayerPruning
from topospike.pruning.walk import Segment, cut_into_segments, find_blocks, walk
from topospike.topology import Layer, bipartite_graphs, register_mask

aten = torch.ops.aten
LAYER_OPS = frozenset({aten.linear.default, aten.conv1d.default, aten.conv2d.default}) | {
    aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
}  # fmt: skip

# Layers to prune, each with the share of its links to take.
Targets = Mapping[Layer, float]


@dataclass(frozen=True, slots=True)
class LinkSettings:
    """How links are ranked and weights adjusted; see `topospike.pruning.prune`."""

    method: Method
    comparison: str
    inputs: str
    exponent: float
    block: int
    damping: float
    fuse_qkv: bool
    precision: torch.dtype
    measure_errors: bool


@dataclass(frozen=True, slots=True)
class PrunedLayer:
    """The new weight and mask of one layer, in the weight's shape, and the record of it."""

    weight: Tensor
    mask: Tensor
    record: LayerPruning


def prune_links(
    targets: Targets, settings: LinkSettings, *, model: nn.Module, images: CalibrationImages | None
) -> tuple[LayerPruning, ...]:
    """Give layers their masks and weights; return the record of each in order of execution."""
    if images is None or not targets:
        pruned = prune_without_images(targets, settings)
    else:
        pruned = prune_with_images(targets, settings, model=model, images=images)
    with torch.no_grad():
        for layer, result in pruned.items():
            layer.weight.copy_(result.weight)
            register_mask(layer.module, result.mask)
    return tuple(result.record for result in pruned.values())


def prune_without_images(targets: Targets, settings: LinkSettings) -> dict[Layer, PrunedLayer]:
    """Rank weights by themselves; no activations, no errors."""
    pruned: dict[Layer, PrunedLayer] = {}
    with progress(settings.method.name, total=len(targets), unit="layers") as advance:
        for layer, sparsity in targets.items():
            pruned |= prune_together([layer], [layer.weight.detach()], None, sparsity, settings)
            advance()
    return pruned


def prune_with_images(
    targets: Targets, settings: LinkSettings, *, model: nn.Module, images: CalibrationImages
) -> dict[Layer, PrunedLayer]:
    """Walk the calibration images through the model, and prune each block as they reach it."""
    captured = capture(model, images.first, first_output=True)
    network = copy.deepcopy(captured).requires_grad_(False)
    copies = dict(zip(captured.graph.nodes, network.graph.nodes, strict=True))
    calls = {copies[node]: layer for node, layer in layer_calls(captured, targets).items()}
    blocks = find_blocks(model, [layer.name for layer in targets])
    segments = cut_into_segments(
        network.graph, {node: blocks[layer.name] for node, layer in calls.items()}
    )
    pruner = SegmentPruner(network, segments, calls, targets, settings)
    label = f"{settings.method.name}, {len(targets)} layers"
    with progress(label, total=len(segments), unit="blocks") as advance:
        walk(
            network,
            segments,
            images,
            observe=pruner.observe,
            prune=pruner.prune,
            inputs=settings.inputs,
            advance=advance,
        )
    if pruner.deficient:
        warnings.warn(deficiency(pruner.deficient), stacklevel=4)
    return pruner.pruned


def layer_calls(network: fx.GraphModule, layers: Targets) -> dict[fx.Node, Layer]:
    """Return the nodes that run the layers to prune, in execution order."""
    by_weight = {id(layer.weight): layer for layer in layers}
    tensors = dict(network.named_parameters(remove_duplicate=False))
    calls: dict[fx.Node, Layer] = {}
    for node in network.graph.nodes:
        if node.target in LAYER_OPS and node.args[1].op == "get_attr":
            layer = by_weight.get(id(tensors[str(node.args[1].target)]))
            if layer is not None:
                calls[node] = layer
    for layer in layers:
        if layer not in calls.values():
            raise ConfigError(
                f"layer {layer.name!r} is not run by the forward pass, so nothing is known of its "
                f"inputs. Leave it out with sparsity={{..., {layer.parameter!r}: 0}}, or prune by "
                "magnitude or ri without calibration images."
            )
    return calls


class SegmentPruner:
    """Collects the inputs of each segment's layers, and prunes them when told to.

    The weights of ``network`` are written to; ``pruned`` holds the results by layer, in order of
    execution, and ``deficient`` what layers saw that saw fewer inputs than they have.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        segments: Sequence[Segment],
        calls: Mapping[fx.Node, Layer],
        targets: Targets,
        settings: LinkSettings,
    ) -> None:
        self.network, self.calls, self.targets, self.settings = network, calls, targets, settings
        self.pruned: dict[Layer, PrunedLayer] = {}
        self.deficient: list[InputMoments] = []
        self.collectors: dict[fx.Node, InputMoments] = {}
        self.groups: dict[Segment, list[tuple[InputMoments, list[Layer]]]] = {}
        seen: set[Layer] = set()
        for segment in segments:
            self.groups[segment] = self.prepare(segment, seen)

    def prepare(self, segment: Segment, seen: set[Layer]) -> list[tuple[InputMoments, list[Layer]]]:
        """Plan which inputs a segment's layers share; a layer run again later is done already."""
        nodes_of: dict[Layer, list[fx.Node]] = {}
        for node in segment.calls:
            nodes_of.setdefault(self.calls[node], []).append(node)
        needs_products = self.settings.method.reconstructs or self.settings.measure_errors
        shared: dict[object, tuple[InputMoments, list[Layer]]] = {}
        for layer, nodes in nodes_of.items():
            if layer in seen:
                warnings.warn(
                    f"layer {layer.name!r} is run in several blocks; it was pruned for its inputs "
                    "in the first of them.",
                    stacklevel=6,
                )
                continue
            seen.add(layer)
            geometry = geometry_of(nodes[0], tuple(layer.weight.shape[2:]))
            key = (tuple(node.args[0] for node in nodes), geometry)
            if key not in shared:
                moments = InputMoments(
                    layer.name, geometry, products=needs_products, dtype=self.settings.precision
                )
                shared[key] = (moments, [])
                self.collectors |= dict.fromkeys(nodes, moments)
            shared[key][1].append(layer)
        return list(shared.values())

    def observe(self, node: fx.Node, x: Tensor) -> None:
        """Take in the input of one layer."""
        if node in self.collectors:
            self.collectors[node].add(x)

    def prune(self, segment: Segment) -> None:
        """Prune the layers of a segment, in the network that is walked through."""
        for moments, layers in self.groups.pop(segment):
            if self.settings.method.reconstructs and moments.is_deficient:
                self.deficient.append(moments)
            for together in self.ranked_together(layers):
                weights = [self.copied_weight(layer) for layer in together]
                sparsity = self.targets[together[0]]
                result = prune_together(together, weights, moments, sparsity, self.settings)
                for layer, weight in zip(together, weights, strict=True):
                    weight.copy_(result[layer].weight)
                self.pruned |= result
        for node in segment.calls:
            self.collectors.pop(node, None)

    def ranked_together(self, layers: list[Layer]) -> list[list[Layer]]:
        """Return the layers that are ranked as one: each alone, or those with one input."""
        alike = len({self.targets[layer] for layer in layers}) == 1 and layers[0].kind == "linear"
        return [layers] if self.settings.fuse_qkv and alike else [[layer] for layer in layers]

    def copied_weight(self, layer: Layer) -> Tensor:
        """Return the weight of a layer in the network that is walked through."""
        node = next(node for node, owner in self.calls.items() if owner is layer)
        return self.network.get_parameter(str(node.args[1].target))  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]


def deficiency(deficient: Sequence[InputMoments]) -> str:
    """Say which layers saw too few inputs."""
    named = ", ".join(
        f"{seen.layer!r} ({seen.columns} for {seen.values.shape[-1]})" for seen in deficient[:3]
    )
    more = f" and {len(deficient) - 3} more" if len(deficient) > 3 else ""
    return (
        "fewer calibration inputs (tokens or positions) than weights of one output, so that "
        f"reconstruction rests on damping: layer {named}{more}; use more images."
    )


def prune_together(
    layers: Sequence[Layer],
    weights: Sequence[Tensor],
    moments: InputMoments | None,
    sparsity: float,
    settings: LinkSettings,
) -> dict[Layer, PrunedLayer]:
    """Rank the rows of layers with one input as if they were one layer; adjust, and take apart."""
    started = time.perf_counter()
    parts = [
        bipartite_graphs(weight.to(settings.precision), groups=layer.groups)
        for layer, weight in zip(layers, weights, strict=True)
    ]
    stacked = torch.cat(parts, dim=1)
    mask, after = pruned_matrices(stacked, moments, sparsity, settings, name=layers[0].name)
    rows = [part.shape[1] for part in parts]
    seconds = (time.perf_counter() - started) / len(layers)
    pieces = zip(layers, weights, parts, mask.split(rows, 1), after.split(rows, 1), strict=True)
    result: dict[Layer, PrunedLayer] = {}
    for layer, weight, before, keep, adjusted in pieces:
        masked = before.masked_fill(~keep, 0.0)
        record = LayerPruning(
            name=layer.name,
            kind=layer.kind,
            shape=tuple(weight.shape),
            links=int(keep.sum()),
            possible=keep.numel(),
            error_before=error_of(masked, before, moments),
            error_after=error_of(adjusted, before, moments),
            seconds=seconds,
        )
        new = adjusted.reshape(weight.shape).to(weight.dtype)
        result[layer] = PrunedLayer(new, keep.reshape(weight.shape), record)
    return result


def pruned_matrices(
    weight: Tensor,
    moments: InputMoments | None,
    sparsity: float,
    settings: LinkSettings,
    *,
    name: str,
) -> tuple[Tensor, Tensor]:
    """Return the mask of one layer and its weights under it."""
    if not bool(weight.isfinite().all()):
        raise NonFiniteError(
            f"{name}: its weights hold NaN or infinite values, which cannot be ranked. Nothing was "
            "pruned. Train again, or load weights that are finite."
        )
    method = settings.method
    mask = None
    if method.score is not None:
        norms = weight.new_ones(()) if moments is None else moments.norms
        scores = method.score(weight, norms, settings.exponent)
        mask = keep_largest(scores, sparsity, comparison=settings.comparison)
    if mask is not None and not method.reconstructs:
        return mask, weight.masked_fill(~mask, 0.0)
    if moments is None:
        raise ConfigError(f"method {method.name!r} needs calibration images; pass calibration.")
    done = reconstruct(
        weight,
        moments.values,
        mask=mask,
        sparsity=sparsity if mask is None else None,
        block=settings.block,
        damping=settings.damping,
        layer=name,
    )
    if done.damping > settings.damping:
        warnings.warn(
            f"{name}: the inputs' second moment could be inverted only with damping "
            f"{done.damping:g} instead of {settings.damping:g}.",
            stacklevel=2,
        )
    return done.mask, done.weight


def error_of(weight: Tensor, dense: Tensor, moments: InputMoments | None) -> float | None:
    """Return the relative output error of new weights, if the inputs are known well enough."""
    if moments is None or not moments.products:
        return None
    return output_error(weight - dense, dense, moments.values)
