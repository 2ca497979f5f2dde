"""Export: the sparse ANN as an ONNX file, for runtimes that know nothing of spikes.

The network is written as it is at time step 0, batch axis free: masks are exact zeros in dense
weights (ONNX runtimes multiply by them; sparsity there saves size after compression, not time).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils import _pytree as pytree

from topospike.contracts import write_atomically
from topospike.errors import ConversionError, require
from topospike.export.trained import refuse_trained
from topospike.models.capture import arguments, bound, two_rows
from topospike.models.inputs import Inputs, evaluation_mode, mapped
from topospike.snn.frames import mean_of
from topospike.snn.network import SpikingNetwork
from topospike.topology import check_masks


def export_onnx(model: nn.Module, path: str | Path, example: Inputs) -> Path:
    """Write a trained network, or the ANN of a converted one, as ONNX.

    Parameters
    ----------
    model
        A module, or a `SpikingNetwork`, of which the ANN is written (batch norms folded, sites as
        the activations they replaced).
    path
        The file, usually ``*.onnx``.
    example
        Any input of the right shape: a tensor, or a tuple or dictionary of them. For a
        `SpikingNetwork` that reads frames, frames; the ANN that is written takes their mean.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingDependencyError
        If ``onnx`` and ``onnxscript`` are not installed (extra ``onnx``).
    ConversionError
        If torch cannot express the network in ONNX, or it was trained through time and has no ANN.
    TopologyViolation
        If a masked weight is not zero off its mask.
    """
    require("onnx", "onnxscript", purpose="an ONNX file")
    refuse_trained(model, "ONNX")
    check_masks(model)
    network, given = model, example
    if isinstance(model, SpikingNetwork):
        network, given = model.ann, mean_of(model.shown(example, 1).frames)
    rows = mapped(two_rows, given)
    args, kwargs = arguments(rows)
    free = pytree.tree_map(lambda _: {0: torch.export.Dim("batch")}, bound(network, rows))
    names = list(free) if len(free) > 1 else ["input"]
    try:
        with warnings.catch_warnings(), evaluation_mode(network):
            warnings.simplefilter("ignore", FutureWarning)  # torch about its own deprecated names
            warnings.simplefilter("ignore", DeprecationWarning)
            # all inputs have the one batch, which torch remarks on
            warnings.filterwarnings("ignore", "# The axis name", UserWarning)
            program = torch.onnx.export(
                network,
                args,
                kwargs=kwargs,
                dynamo=True,
                dynamic_shapes=free,
                input_names=names,
                output_names=["logits"],
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ConversionError(
            f"{type(model).__name__} cannot be written as ONNX ({str(error).splitlines()[0]}). "
            "Check that torch.export captures it and that its operators exist in ONNX."
        ) from error
    if program is None:
        raise ConversionError("torch.onnx returned nothing to write.")
    write_atomically(path, program.model_proto.SerializeToString())
    return Path(path)
