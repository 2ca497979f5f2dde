"""Hand the topology of the ANN on to the spiking network, checked on both sides.

Conversion may rescale weights (batch-norm folding) but must not add or remove a link. The masks of
the model are checked before the capture, registered under the same names in the captured network,
and checked again after the last rewrite.
"""

from __future__ import annotations

import torch
from torch import fx, nn

from topospike.errors import ConversionError
from topospike.topology import check_masks, masks_of, register_mask


def inherit_masks(model: nn.Module, network: fx.GraphModule) -> list[str]:
    """Register every mask of ``model`` in ``network``; return the parameters that have one.

    Raises
    ------
    ConversionError
        If a masked parameter does not appear in the captured graph: its links would be lost.
    TopologyViolation
        If the network's weights do not obey the masks.
    """
    inherited = []
    parameters = dict(model.named_parameters(remove_duplicate=False))
    known = dict(network.named_parameters(remove_duplicate=False))
    for name, mask in masks_of(model).items():
        shared = [other for other, one in parameters.items() if one is parameters[name]]
        read = next((other for other in shared if other in known), None)
        if read is None:
            raise ConversionError(
                f"{name} has a mask but is not read by the forward pass, so its links would not "
                "reach the spiking network. Remove the unused layer, or call it."
            )
        path, _, parameter = read.rpartition(".")
        register_mask(network.get_submodule(path), mask, name=parameter)
        inherited.append(name)
    inherit_other_masks(model, network)
    check_masks(network)
    return inherited


def inherit_other_masks(model: nn.Module, network: fx.GraphModule) -> None:
    """Register the masks that other tools keep as numbers, where the weights obey them.

    Such a mask is a buffer ``NAME_mask`` of zeros and ones beside the parameter ``NAME``. One that
    the forward pass multiplies with needs no registration: it is part of the weight expression.
    """
    known = dict(network.named_parameters(remove_duplicate=False))
    taken = dict(network.named_buffers(remove_duplicate=False))
    for name, parameter in model.named_parameters():
        path, _, last = name.rpartition(".")
        mask = model.get_submodule(path)._buffers.get(f"{last}_mask")
        if mask is None or mask.dtype is torch.bool or mask.shape != parameter.shape:
            continue
        is_mask = bool(((mask == 0) | (mask == 1)).all()) and not bool(parameter[mask == 0].any())
        if is_mask and name in known and f"{name}_mask" not in taken:
            register_mask(network.get_submodule(path), mask != 0, name=last)
