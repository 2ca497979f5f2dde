"""Export: the weights of every layer as compressed sparse rows, and all settings as JSON.

Lossless and of any network, multi-threshold neurons included: ``network.json`` says how each layer
is fed and what the neurons of each site do, ``weights.npz`` holds the arrays. A row is an output
(channel), a column an input (channel and kernel tap); an existing link whose weight happens to be
zero is stored as a zero, an absent one is not stored. It is made for readers without torch; the
network itself is saved by `topospike.save`.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypedDict

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, fx

from topospike.contracts import to_json, write_atomically, write_json
from topospike.conversion.methods.method import require_export
from topospike.errors import ConversionError
from topospike.files.archives import Arrays, read_arrays, reading
from topospike.files.ranges import Order
from topospike.files.reading import converted, read_record
from topospike.snn.executors.integer import codes_of, grid_of
from topospike.snn.executors.quanta import Codes
from topospike.snn.network import SpikingNetwork
from topospike.wiring.layers import Layer

if TYPE_CHECKING:
    import scipy.sparse

FORMAT = "topospike csr 1"
DESCRIPTION, ARRAYS = "network.json", "weights.npz"


@dataclass(frozen=True, eq=False)
class CsrLayer:
    """One layer as it was read back: its weight, its links, its bias."""

    weight: Tensor
    mask: Bool[Tensor, "*shape"]
    bias: Tensor | None
    matrix: scipy.sparse.csr_array


@dataclass(frozen=True, eq=False)
class CsrNetwork:
    """What `read_csr` returns: the description as dictionaries, and the arrays.

    ``shifts`` and ``scales``: of sites that have them (`topospike.conversion.methods.shifts`).
    """

    description: dict[str, Any]
    layers: dict[str, CsrLayer]
    thresholds: dict[str, Tensor]
    shifts: dict[str, Tensor] = field(default_factory=dict)
    scales: dict[str, Tensor] = field(default_factory=dict)


def export_csr(snn: SpikingNetwork, folder: str | Path) -> Path:
    """Write a converted network as sparse matrices and JSON.

    Parameters
    ----------
    snn
        Any converted network.
    folder
        Where ``network.json`` and ``weights.npz`` go; made if missing.

    Returns
    -------
    Path
        The folder.

    Raises
    ------
    ConversionError
        If a layer's weight is computed rather than stored, so there is no matrix to write.

    Notes
    -----
    Per layer ``L`` the arrays ``L/data``, ``L/indices``, ``L/indptr`` and, if there is one,
    ``L/bias``; per site ``S`` the array ``S/threshold``, of ``parallel`` also ``S/shift`` and
    ``S/scale``. The JSON has for each layer its weight's
    ``shape``, ``kind``, ``settings`` (stride, padding, ... as the operator orders them), ``fed_by``
    and the ``sites`` that feed it; for each site neuron, levels, coding, gate and initial membrane;
    and the conversion report.

    Weights that are whole numbers of up to 8 bits (`topospike.quantise_weights`) are there as such
    too: ``L/whole`` (int8, in the order of ``L/data``), ``L/step`` (one a row) and ``L/quantum``
    (one an input channel), and ``bits`` in the JSON. The weight is step times whole over quantum.

    Examples
    --------
    >>> import tempfile, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> snn = ts.convert(model, calibration=[torch.rand(32, 4)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     network = read_csr(export_csr(snn, folder))
    >>> torch.equal(network.layers["2"].weight, model[2].weight), network.layers["2"].matrix.nnz
    (True, 24)
    """
    require_export(snn.report, "csr")
    arrays: dict[str, np.ndarray] = {}
    codes = codes_of(snn)
    layers = [describe_layer(snn, layer, codes[layer.name], arrays) for layer in snn.wiring]
    sites = []
    for name, site in snn.sites.items():
        for part, tensor in site.named_buffers(recurse=False):
            arrays[f"{name}/{part}"] = tensor.cpu().numpy()
        sites.append(
            {
                "name": name,
                "neuron": site.neuron.name,
                "levels": site.neuron.levels,
                "coding": site.coding.name,
                "gated": site.neuron.gated,
                "initial_membrane": site.neuron.initial_membrane,
            }
        )
    content = {
        "format": FORMAT,
        "input_shape": list(snn.input_shape),
        "layers": layers,
        "sites": sites,
        "conversion": to_json(snn.report),
    }
    folder = Path(folder)
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)  # pyright: ignore[reportArgumentType]
    write_atomically(folder / ARRAYS, packed.getvalue())
    write_json(folder / DESCRIPTION, content)
    return folder


def describe_layer(
    snn: SpikingNetwork, layer: Layer, codes: Codes | str, arrays: dict[str, np.ndarray]
) -> dict[str, Any]:
    """Add the arrays of a layer and return its description."""
    settings: list[Any] = [plain(value) for value in layer.node.args[3:]]
    site_names = {str(node.target): node for node in layer.sites}
    by_target = {node: snn.ann.get_submodule(target) for target, node in site_names.items()}
    content = {
        "name": layer.name,
        "kind": layer.kind,
        "operator": str(layer.node.target),
        "settings": settings,
        "fed_by": layer.fed_by,
        "sites": [module.name for module in by_target.values()],
        "pooled": layer.pooled,
    }
    if len(layer.operands) == 2:
        return content  # a product of two activations has no weight
    weight, bias = parameters_of(snn, layer)
    mask = torch.ones_like(weight, dtype=torch.bool) if layer.links is None else layer.links
    rows = mask.reshape(len(mask), -1)
    arrays[f"{layer.name}/data"] = weight.cpu().reshape(rows.shape)[rows].numpy()
    quantum = torch.ones(1).double() if isinstance(codes, str) else codes.quantum
    beside = 1.0 if isinstance(codes, str) else codes.of_weight(weight)
    grid = grid_of(weight.double().cpu() * beside)
    if grid is not None:
        arrays[f"{layer.name}/whole"] = grid.whole.reshape(rows.shape)[rows].numpy()
        arrays[f"{layer.name}/step"] = grid.steps.numpy()
        arrays[f"{layer.name}/quantum"] = quantum.numpy()
        content["bits"] = grid.bits
    arrays[f"{layer.name}/indices"] = rows.nonzero()[:, 1].to(torch.int32).numpy()
    counts = torch.cat([torch.zeros(1, dtype=torch.int64), rows.sum(1).cumsum(0)])
    arrays[f"{layer.name}/indptr"] = counts.numpy()
    if bias is not None:
        arrays[f"{layer.name}/bias"] = bias.cpu().numpy()
    return {**content, "shape": list(weight.shape), "links": int(rows.sum())}


def parameters_of(snn: SpikingNetwork, layer: Layer) -> tuple[Tensor, Tensor | None]:
    """Return the weight and the bias a layer reads."""
    found = [
        value
        for argument in layer.node.args[:3]
        if argument is not layer.operand and (value := parameter(snn, argument)) is not None
    ]
    if not found:
        raise ConversionError(
            f"{layer.name}: its weight is computed in the forward pass, so there is no matrix to "
            "write. Store it as a parameter that the layer reads directly."
        )
    return found[0], found[1] if len(found) > 1 else None


def parameter(snn: SpikingNetwork, argument: object) -> Tensor | None:
    """Return the tensor a node reads, if it is a stored one."""
    if not isinstance(argument, fx.Node) or argument.op != "get_attr":
        return None
    path, _, name = str(argument.target).rpartition(".")
    return getattr(snn.ann.get_submodule(path), name).detach()


def plain(value: object) -> object:
    """Return a setting as JSON takes it."""
    return value if isinstance(value, int | float | bool | str) else list(value)  # pyright: ignore[reportArgumentType, reportCallIssue]


def read_csr(folder: str | Path) -> CsrNetwork:
    """Read what `export_csr` wrote.

    Raises
    ------
    CheckpointError
        If a file is missing, damaged, or something else.
    """
    folder = Path(folder)
    path = folder / DESCRIPTION
    description = read_record(path, dict[str, Any], remedy=AGAIN)
    content = converted(description, Content, path, remedy=AGAIN)
    arrays = read_arrays(folder / ARRAYS, remedy=AGAIN)
    with reading(folder / ARRAYS, AGAIN):
        layers = {
            entry["name"]: read_layer(arrays, entry["name"], entry["shape"])
            for entry in content["layers"]
            if "shape" in entry
        }
        names = [site["name"] for site in content["sites"]]
        thresholds, shifts, scales = (
            {
                name: torch.from_numpy(arrays.read(f"{name}/{part}", most=MOST_THRESHOLDS))
                for name in names
                if part == "threshold" or f"{name}/{part}" in arrays
            }
            for part in ("threshold", "shift", "scale")
        )
    return CsrNetwork(description, layers, thresholds, shifts, scales)


AGAIN = "Export the network again."
MOST_THRESHOLDS = 2**24
MOST_WEIGHTS = 2**31
ITEM = 8
"""Most bytes of a number."""


class LayerEntry(TypedDict):
    """What is needed of a layer; one without a shape has no weight."""

    name: str
    shape: NotRequired[tuple[Order, ...]]


class SiteEntry(TypedDict):
    """What is needed of a site."""

    name: str


class Content(TypedDict):
    """What is needed of ``network.json`` to read the arrays."""

    format: Literal["topospike csr 1"]
    layers: list[LayerEntry]
    sites: list[SiteEntry]


def read_layer(arrays: Arrays, name: str, shape: tuple[int, ...]) -> CsrLayer:
    """Read the matrix and the bias of a layer; no array may be larger than its shape allows."""
    rows, columns = shape[0], math.prod(shape[1:])
    if rows * columns > MOST_WEIGHTS:
        raise ValueError(f"{name} has shape {shape}; {MOST_WEIGHTS} weights at most are read")
    most = {"data": ITEM * rows * columns, "indices": ITEM * rows * columns}
    parts = [
        arrays.read(f"{name}/{part}", most=most.get(part, ITEM * (rows + 1)))
        for part in ("data", "indices", "indptr")
    ]
    matrix = csr_matrix(tuple(parts), (rows, columns))
    matrix.check_format(full_check=True)
    bias = arrays.read(f"{name}/bias", most=ITEM * rows) if f"{name}/bias" in arrays else None
    return csr_layer(matrix, shape, bias)


def csr_matrix(parts: tuple[np.ndarray, ...], shape: tuple[int, int]) -> scipy.sparse.csr_array:
    """Return the scipy matrix of (data, indices, indptr)."""
    from scipy.sparse import csr_array

    return csr_array(parts, shape=shape)


def csr_layer(
    matrix: scipy.sparse.csr_array, shape: tuple[int, ...], bias: np.ndarray | None
) -> CsrLayer:
    """Turn a sparse matrix back into weight and mask."""
    rows = np.repeat(np.arange(shape[0]), np.diff(matrix.indptr))
    size = (shape[0], int(np.prod(shape[1:])))
    weight, mask = np.zeros(size, matrix.dtype), np.zeros(size, bool)
    weight[rows, matrix.indices] = matrix.data
    mask[rows, matrix.indices] = True
    return CsrLayer(
        torch.from_numpy(weight).reshape(shape),
        torch.from_numpy(mask).reshape(shape),
        None if bias is None else torch.from_numpy(bias),
        matrix,
    )
