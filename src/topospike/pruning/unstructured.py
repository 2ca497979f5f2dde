"""Stage prune: single links of a trained network, without training (all methods but DepGraph).

The work is done on a copy of the captured graph and handed to the model at the end, so a call
that fails leaves the model as it was. Layers that read the same input share its statistics.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx, nn

from topospike.errors import ConfigError
from topospike.models import capture
from topospike.progress import progress
from topospike.pruning.blocks import Segment, cut_into_segments, find_blocks
from topospike.pruning.calibration import CalibrationImages
from topospike.pruning.layers import PruningTarget
from topospike.pruning.moments import InputMoments, geometry_of
from topospike.pruning.ranking import PrunedLayer, RankingSettings, prune_together
from topospike.pruning.walk import walk
from topospike.topology import register_mask

aten = torch.ops.aten
LAYER_OPS = frozenset({aten.linear.default, aten.conv1d.default, aten.conv2d.default}) | {
    aten.conv3d.default, aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
}  # fmt: skip


def prune_without_images(
    targets: Sequence[PruningTarget], settings: RankingSettings
) -> dict[str, PrunedLayer]:
    """Rank weights by themselves; no activations, no errors."""
    pruned: dict[str, PrunedLayer] = {}
    with progress(settings.method.name, total=len(targets), unit="layers") as advance:
        for target in targets:
            pruned |= prune_together([target], [target.weight.detach()], None, settings)
            advance()
    return pruned


def prune_with_images(
    model: nn.Module,
    targets: Sequence[PruningTarget],
    settings: RankingSettings,
    *,
    images: CalibrationImages,
    inputs: str,
) -> dict[str, PrunedLayer]:
    """Walk the calibration images through the model, and prune each block as they reach it."""
    captured = capture(model, images.first)
    calls = layer_calls(captured, targets)
    network = copy.deepcopy(captured).requires_grad_(False)
    nodes = dict(zip(captured.graph.nodes, network.graph.nodes, strict=True))
    owner = {nodes[node]: target for node, target in calls.items()}
    blocks = find_blocks(model, [target.name for target in targets])
    segments = cut_into_segments(
        network.graph, {node: blocks[target.name] for node, target in owner.items()}
    )
    pruner = SegmentPruner(network, segments, owner, settings)
    label = f"{settings.method.name}, {len(targets)} layers"
    with progress(label, total=len(segments), unit="blocks") as advance:
        walk(
            network,
            segments,
            images,
            observe=pruner.observe,
            prune=pruner.prune,
            inputs=inputs,
            advance=advance,
        )
    if pruner.deficient:
        warnings.warn(deficiency(pruner.deficient), stacklevel=4)
    return pruner.pruned


def layer_calls(
    network: fx.GraphModule, targets: Sequence[PruningTarget]
) -> dict[fx.Node, PruningTarget]:
    """Return the nodes that run the layers to prune, in execution order."""
    by_weight = {id(target.weight): target for target in targets}
    tensors = dict(network.named_parameters(remove_duplicate=False))
    calls: dict[fx.Node, PruningTarget] = {}
    for node in network.graph.nodes:
        if node.target in LAYER_OPS and node.args[1].op == "get_attr":
            target = by_weight.get(id(tensors[str(node.args[1].target)]))
            if target is not None:
                calls[node] = target
    reached = {target.name for target in calls.values()}
    for target in targets:
        if target.name not in reached:
            raise ConfigError(
                f"layer {target.name!r} is not run by the forward pass, so nothing is known of its "
                f"inputs. Leave it out with sparsity={{..., {target.name!r}: 0}}, or prune by "
                "magnitude or ri without calibration images."
            )
    return calls


class SegmentPruner:
    """Collects the inputs of each segment's layers, and prunes them when told to.

    Parameters
    ----------
    network
        Captured graph, whose weights are written to.
    segments
        All of its segments.
    owner
        Node that runs a layer -> the layer.
    settings
        How to rank and adjust.

    Attributes
    ----------
    pruned
        Results by layer name, in order of execution.
    deficient
        Layers that saw fewer inputs than they have.
    """

    def __init__(
        self,
        network: fx.GraphModule,
        segments: Sequence[Segment],
        owner: Mapping[fx.Node, PruningTarget],
        settings: RankingSettings,
    ) -> None:
        self.network = network
        self.owner = owner
        self.settings = settings
        self.pruned: dict[str, PrunedLayer] = {}
        self.deficient: list[str] = []
        self.collectors: dict[fx.Node, InputMoments] = {}
        self.groups: dict[Segment, list[tuple[InputMoments, list[PruningTarget]]]] = {}
        seen: set[str] = set()
        for segment in segments:
            self.groups[segment] = self.prepare(segment, seen)

    def prepare(
        self, segment: Segment, seen: set[str]
    ) -> list[tuple[InputMoments, list[PruningTarget]]]:
        """Plan which inputs a segment's layers share; a layer run again later is done already."""
        calls: dict[str, list[fx.Node]] = {}
        for node in segment.calls:
            calls.setdefault(self.owner[node].name, []).append(node)
        shared: dict[object, tuple[InputMoments, list[PruningTarget]]] = {}
        for name, nodes in calls.items():
            target = self.owner[nodes[0]]
            if name in seen:
                warnings.warn(
                    f"layer {name!r} is run in several blocks; it was pruned for its inputs in "
                    "the first of them.",
                    stacklevel=6,
                )
                continue
            seen.add(name)
            geometry = geometry_of(nodes[0], target.kernel)
            key = (tuple(node.args[0] for node in nodes), geometry)
            if key not in shared:
                moments = InputMoments(
                    name,
                    geometry,
                    products=self.settings.needs_products,
                    dtype=self.settings.precision,
                )
                shared[key] = (moments, [])
                self.collectors |= dict.fromkeys(nodes, moments)
            shared[key][1].append(target)
        return list(shared.values())

    def observe(self, node: fx.Node, x: Tensor) -> None:
        """Take in the input of one layer."""
        if node in self.collectors:
            self.collectors[node].add(x)

    def prune(self, segment: Segment) -> None:
        """Prune the layers of a segment, in the network that is walked through."""
        for moments, targets in self.groups.pop(segment):
            if moments.products and moments.is_deficient and self.settings.method.reconstructs:
                self.deficient.append(moments.layer)
            for together in self.fused(targets):
                weights = [self.parameter(target) for target in together]
                result = prune_together(together, weights, moments, self.settings)
                for target, parameter in zip(together, weights, strict=True):
                    parameter.copy_(result[target.name].weight)
                self.pruned |= result
        for node in segment.calls:
            self.collectors.pop(node, None)

    def fused(self, targets: list[PruningTarget]) -> list[list[PruningTarget]]:
        """Return the layers that are ranked together: each alone, or those with one input."""
        alike = len({target.sparsity for target in targets}) == 1 and not targets[0].kernel
        return [targets] if self.settings.fuse_qkv and alike else [[t] for t in targets]

    def parameter(self, target: PruningTarget) -> Tensor:
        """Return the weight of a layer in the network that is walked through."""
        node = next(node for node, owner in self.owner.items() if owner is target)
        path, _, name = str(node.args[1].target).rpartition(".")  # pyright: ignore[reportAttributeAccessIssue, reportOptionalMemberAccess]
        return getattr(self.network.get_submodule(path), name)


def deficiency(layers: Sequence[str]) -> str:
    """Say which layers saw too few inputs."""
    named = ", ".join(layers[:3]) + (f" and {len(layers) - 3} more" if len(layers) > 3 else "")
    return (
        f"the calibration images give {named} fewer inputs (tokens or positions) than the layer "
        "has, so reconstruction rests on damping; use more images."
    )


@torch.no_grad()
def install(targets: Sequence[PruningTarget], pruned: Mapping[str, PrunedLayer]) -> None:
    """Hand new weights and masks to the model."""
    for target in targets:
        layer = pruned[target.name]
        target.weight.copy_(layer.weight)
        register_mask(target.module, layer.mask)
