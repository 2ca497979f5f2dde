"""Command line: ``model.safetensors``, the trained weights and masks of one network.

The file holds the model's state under its own names, masks as bool. A network is built from the
recipe first; the file must fit it exactly. Nothing is pickled.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from topospike.contracts import write_atomically
from topospike.errors import CheckpointError, MissingDataError
from topospike.topology import check_masks, register_mask

MASK = "_mask"


def save_weights(model: nn.Module, path: Path) -> None:
    """Write weights, buffers and masks, atomically."""
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write_atomically(path, safetensors.torch.save(state, metadata={"format": "topospike model"}))


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a freshly built network from a file, its masks included.

    Raises
    ------
    MissingDataError
        There is no such file.
    CheckpointError
        The file is damaged or belongs to another network.
    TopologyViolation
        A weight without a link is not zero.
    """
    if not path.is_file():
        raise MissingDataError(f"no trained network {str(path)!r}; run `topospike train` first.")
    try:
        state = safetensors.torch.load_file(path)
        known = model.state_dict()
        for name, value in state.items():
            owner, _, parameter = name.removesuffix(MASK).rpartition(".")
            if (
                name.endswith(MASK)
                and name.removesuffix(MASK) in state
                and value.dtype is torch.bool
                and name not in known
            ):
                register_mask(model.get_submodule(owner), value, name=parameter)
        model.load_state_dict(state)
    except (SafetensorError, AttributeError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{path} does not hold the weights of this {type(model).__name__} ({reason}). Restore "
            "the file, or delete it and repeat the command that made the run."
        ) from error
    check_masks(model)
