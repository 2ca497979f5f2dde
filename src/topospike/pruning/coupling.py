"""Stage prune: which channels of a network can only go together.

torch-pruning traces the model and knows (Fang et al. 2023): removing a channel removes a row of
the layer that makes it, its entry in every norm, and the columns of all layers that read it; a
residual sum ties the channels of all its branches. This module turns its answer into names,
indices and scores on the dense network, and asks nothing else of the library.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from topospike.errors import ConfigError, require
from topospike.modes import evaluating
from topospike.topology.classifier import CONVOLUTIONS

Role = Literal["out", "in", "norm"]
LAYERS = (nn.Linear, *CONVOLUTIONS)
# What normalises each channel by itself, and what takes its mean over channels.
NORMS = (nn.modules.batchnorm._NormBase,)
MIXING_NORMS = (nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, slots=True)
class Member:
    """What one layer or norm loses with some channels: rows, columns, or a norm's entries.

    ``channels`` says to which channel of the group each of the ``indices`` belongs.
    """

    name: str
    role: Role
    indices: tuple[int, ...]
    channels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that go together in all layers they reach.

    Attributes
    ----------
    root
        The layer the group is named after.
    kind
        ``conv`` if a convolution makes the channels, else ``linear``.
    channels
        How many there are.
    members
        Name and role of all layers and norms the channels reach.
    scores : Tensor, shape (channels,)
        Mean over the members of the squared norm of what belongs to a channel, divided by the
        mean over channels.
    mixed_by
        A norm on the way that takes its mean over these channels, so that none can be removed
        without changing the others; empty if there is none.
    """

    root: str
    kind: str
    channels: int
    members: tuple[tuple[str, Role], ...]
    scores: Tensor
    mixed_by: str

    def makers(self) -> list[str]:
        """Return the layers that make the channels."""
        return [name for name, role in self.members if role == "out"]

    def readers(self) -> list[str]:
        """Return the layers that read the channels."""
        return [name for name, role in self.members if role == "in"]


class Coupling:
    """The channel groups of a network, with scores of it as it came.

    They are found on a copy without masks, the ``twin``, which `remove` makes smaller. The outputs
    of the layers to ``keep``, such as the classifier, all stay.
    """

    def __init__(self, model: nn.Module, example: Tensor, *, keep: Sequence[str] = ()) -> None:
        require("torch_pruning", purpose="method 'depgraph'")
        import torch_pruning as library

        self.twin = without_masks(model)
        self.names = {module: name for name, module in self.twin.named_modules()}
        self.modules = {name: module for module, name in self.names.items()}
        with torch.enable_grad():
            self.graph: Any = library.DependencyGraph().build_dependency(self.twin, example)
        score = library.importance.GroupMagnitudeImportance(p=2)
        kept = [self.modules[name] for name in keep]
        self.groups = [
            self.describe(group, score) for group in self.graph.get_all_groups(ignored_layers=kept)
        ]

    def describe(self, group: Any, score: Any) -> ChannelGroup:
        """Say in our words what the library found."""
        members = self.members_of(group)
        makers = [self.modules[member.name] for member in members if member.role == "out"]
        kind = "conv" if any(isinstance(maker, CONVOLUTIONS) for maker in makers) else "linear"
        root = next(member.name for member in members if member.role == "out")
        mixed_by = next((m.name for m in members if self.is_mixing(m.name)), "")
        # none of these channels can go, and the library cannot rank behind every such norm
        scores = torch.zeros(len(group[0].idxs)) if mixed_by else score(group)
        return ChannelGroup(
            root=root,
            kind=kind,
            channels=len(scores),
            members=tuple((member.name, member.role) for member in members),
            scores=scores.detach(),
            mixed_by=mixed_by,
        )

    def is_mixing(self, name: str) -> bool:
        """Tell whether a member takes a mean over channels."""
        return isinstance(self.modules[name], MIXING_NORMS)

    def affected(self, root: str, channels: Sequence[int]) -> list[Member]:
        """Return everything that goes with some channels of a layer."""
        return self.members_of(self.group_of(root, channels))

    def remove(self, root: str, channels: Sequence[int]) -> None:
        """Make the copy smaller by some channels of a layer."""
        self.group_of(root, channels).prune()

    def group_of(self, root: str, channels: Sequence[int]) -> Any:
        """Ask the library for the group of some channels."""
        module = self.modules[root]
        function = self.graph.get_pruner_of_module(module).prune_out_channels
        return self.graph.get_pruning_group(module, function, list(channels))

    def members_of(self, group: Any) -> list[Member]:
        """Name the layers and norms of a library group."""
        members: list[Member] = []
        for item in (group[position] for position in range(len(group))):
            module = item.dep.layer
            role: Role | None = None
            if isinstance(module, LAYERS):
                refuse_groups(module, self.names[module])
                out = self.graph.is_out_channel_pruning_fn(item.dep.pruning_fn)
                role = "out" if out else "in"
            elif isinstance(module, (*NORMS, *MIXING_NORMS)):
                role = "norm"
            if role is not None:
                indices, channels = tuple(item.idxs), tuple(item.root_idxs)
                members.append(Member(self.names[module], role, indices, channels))
            elif isinstance(module, nn.Parameter) or module in self.names:
                found = self.names.get(module, "a parameter of its own")
                raise ConfigError(
                    f"channels reach {found} ({type(module).__name__}), which has no rows or "
                    "columns to lose. DepGraph is for convolutional networks and perceptrons; "
                    "prune this network by another method."
                )
        return members


def refuse_groups(module: nn.Module, name: str) -> None:
    """Refuse a convolution whose channels are bound in groups."""
    if getattr(module, "groups", 1) not in (1, getattr(module, "in_channels", 1)):
        raise ConfigError(
            f"{name!r} is a grouped convolution; its channels cannot go one by one. Prune this "
            "network by another method."
        )


def without_masks(model: nn.Module) -> nn.Module:
    """Return a copy of the model in evaluation mode that has no mask buffers."""
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    for module in twin.modules():
        for name in [name for name in module._buffers if name.endswith("_mask")]:
            if name.removesuffix("_mask") in module._parameters:
                del module._buffers[name]
    return twin


@torch.no_grad()
def require_equal(small: nn.Module, masked: nn.Module, example: Tensor) -> None:
    """Refuse a smaller network that computes something else than the masked one.

    Raises
    ------
    ConfigError
        If the results for the example differ by more than rounding explains.
    """
    try:
        with evaluating(small), evaluating(masked):
            results = [outputs_of(model(example)) for model in (small, masked)]
        pairs = list(zip(*results, strict=True))
        precision = max((torch.finfo(ours.dtype).eps for ours, _ in pairs), default=0.0)
        same = all(
            bool((ours - theirs).abs().max() <= 1e3 * precision * theirs.abs().max().clamp_min(1.0))
            for ours, theirs in pairs
        )
    except (RuntimeError, ValueError, TypeError, IndexError):
        same = False  # it does not even run
    if not same:
        raise ConfigError(
            f"{type(masked).__name__} without these channels computes something else than with "
            "them at 0: some operation mixes channels (a norm, a softmax or a mean over them, a "
            "reshape), or they are results themselves. Prune single links instead."
        )


def outputs_of(result: object) -> list[Tensor]:
    """Return the tensors that a model returned, alone, in a tuple or in a dictionary."""
    if isinstance(result, Tensor):
        return [result]
    parts = result.values() if isinstance(result, Mapping) else result
    return [part for part in cast("Iterable[object]", parts) if isinstance(part, Tensor)]
