"""Stage prune: the smaller network that a network with isolated channels computes.

The inverse view of `topospike.pruning.channels`: rows and columns without links become rows and
columns that do not exist. Only for speed; everything else in the library reads masks.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from topospike.pruning.channels import Cut
from topospike.pruning.coupling import ChannelGroup, Coupling, require_equal
from topospike.topology import original, register_mask, weight_layers


def shrink(model: nn.Module, example: Tensor) -> nn.Module:
    """Make the smaller network that a masked one computes: without its unread channels.

    Parameters
    ----------
    model
        Network with masks; not changed.
    example : Tensor, shape (batch, ...)
        Some images.

    Returns
    -------
    nn.Module
        A copy without the channels that no layer reads any more, in evaluation mode. Layers that
        still lack links have a mask.

    Raises
    ------
    MissingDependencyError
        If torch-pruning is not installed.
    ConfigError
        If channels reach something that cannot lose any, or the smaller network would compute
        something else, since an operation mixes channels.

    Notes
    -----
    Exact up to rounding, which is checked on the example: a channel goes only if all layers that
    read it have no link to it, and no layer or group norm takes a mean over it.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    >>> mask = torch.ones(2, 6, dtype=torch.bool)
    >>> mask[:, :4] = False
    >>> register_mask(model[2], mask)
    >>> shrink(model, torch.rand(1, 4))[0]
    Linear(in_features=4, out_features=2, bias=True)
    """
    model = original(model)
    layers = weight_layers(model, example[:1])
    coupling = Coupling(model, example, keep=[x.name for x in layers if x.is_classifier])
    shapes = {layer.name: layer.weight.shape for layer in layers}
    old = {layer.name: layer.mask for layer in layers}
    gone = Cut()
    for group in coupling.groups:
        indices = unread(coupling, group, old)
        if indices:
            gone.take(coupling.affected(group.root, indices), shapes)
            coupling.remove(group.root, indices)
    for name, mask in old.items():
        stays = gone.masks.get(name)
        if mask is None:
            continue
        left = mask if stays is None else inside(mask, stays.to(mask.device))
        if not bool(left.all()):
            register_mask(coupling.twin.get_submodule(name), left)
    require_equal(coupling.twin, model, example)
    return coupling.twin


def unread(
    coupling: Coupling, group: ChannelGroup, masks: Mapping[str, Tensor | None]
) -> tuple[int, ...]:
    """Return the channels of a group that no layer has a link to; at least one stays."""
    if group.mixed_by or not group.readers():
        return ()
    read = torch.zeros(group.channels, dtype=torch.bool)
    for member in coupling.affected(group.root, range(group.channels)):
        if member.role != "in":
            continue
        mask = masks[member.name]
        if mask is None:
            return ()
        columns = mask.transpose(0, 1).flatten(1).any(1).cpu()
        channels = torch.tensor(member.channels)
        read[channels[columns[list(member.indices)]]] = True
    read[0] |= not bool(read.any())
    return tuple((~read).nonzero().flatten().tolist())


def inside(mask: Tensor, stays: Tensor) -> Tensor:
    """Return the part of a mask that lies in the rows and columns that stay."""
    rows = stays.flatten(1).any(1)
    columns = stays.transpose(0, 1).flatten(1).any(1)
    return mask[rows][:, columns]
