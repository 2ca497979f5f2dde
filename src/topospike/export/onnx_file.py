"""Export: the sparse ANN as an ONNX file, for runtimes that know nothing of spikes.

The network is written as it is at time step 0, batch axis free: masks are exact zeros in dense
weights (ONNX runtimes multiply by them; sparsity there saves size after compression, not time).
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from topospike.contracts import write_atomically
from topospike.errors import ConversionError, require
from topospike.snn.network import SpikingNetwork
from topospike.topology import check_masks


def export_onnx(model: nn.Module, path: str | Path, example: Tensor) -> Path:
    """Write a trained network, or the ANN of a converted one, as ONNX.

    Parameters
    ----------
    model
        A module that takes one tensor, or a `SpikingNetwork`, of which the ANN is written (batch
        norms folded, sites as the activations they replaced).
    path
        The file, usually ``*.onnx``.
    example : Tensor, shape (batch, ...)
        Any input of the right shape.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    MissingDependencyError
        If ``onnx`` and ``onnxscript`` are not installed (extra ``onnx``).
    ConversionError
        If torch cannot express the network in ONNX.
    TopologyViolation
        If a masked weight is not zero off its mask.
    """
    require("onnx", "onnxscript", purpose="an ONNX file")
    check_masks(model)
    network = model.ann if isinstance(model, SpikingNetwork) else model
    rows = example if len(example) > 1 else example.repeat(2, *[1] * (example.ndim - 1))
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # torch about its own deprecated names
            warnings.simplefilter("ignore", DeprecationWarning)
            program = torch.onnx.export(
                network,
                (rows,),
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                input_names=["input"],
                output_names=["logits"],
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ConversionError(
            f"{type(model).__name__} cannot be written as ONNX ({str(error).splitlines()[0]}). "
            "Check that torch.export captures it and that its operators exist in ONNX."
        ) from error
    finally:
        for module, flag in training.items():
            module.training = flag
    if program is None:
        raise ConversionError("torch.onnx returned nothing to write.")
    write_atomically(path, program.model_proto.SerializeToString())
    return Path(path)
