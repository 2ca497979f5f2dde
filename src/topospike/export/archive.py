"""The folder of a saved spiking network: one JSON file and one file of tensors.

``network.json`` holds the graph, the sites and the conversion report, which names the method and
its options (`topospike.conversion.methods.method` builds the network from them), with a digest of
itself and of the tensor file it names; ``tensors-DIGEST.safetensors`` holds weights, masks,
thresholds and constants. The tensor file is written first and the JSON file is then replaced in one
step, so a folder holds the old network or the new one, whole. Nothing is pickled, and nothing in
the files is run: see `topospike.export.graph_json` for what a graph may name.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, fx, nn

from topospike.contracts import ConversionReport, to_json, write_atomically, write_json
from topospike.conversion.methods.method import (
    METHODS,
    NEURONS,
    Method,
    method_of,
    neuron_from_plain,
    neuron_to_plain,
)
from topospike.errors import CheckpointError, ConversionError, MissingDataError, TopologyViolation
from topospike.export.graph_json import (
    Plain,
    graph_from_plain,
    graph_to_plain,
    value_to_plain,
)
from topospike.files.archives import DAMAGE, check_tensors
from topospike.files.reading import converted, read_record, reason, require_regular, shortened
from topospike.files.seal import INTACT, digest, own_state, require_intact, with_own_digest
from topospike.files.seal import digest_of as digest_of_file
from topospike.models.qcfs import QCFS, SlipReLU
from topospike.registry import Registry
from topospike.snn.coding import CODINGS
from topospike.snn.network import SpikingNetwork
from topospike.snn.site import Site
from topospike.topology import check_masks

FORMAT = "topospike-spiking-network"
VERSION = 2
FILE = "network.json"
MASK = "_mask"
ACTIVATIONS: Registry[type[QCFS]] = Registry(
    "trained activation", {"QCFS": QCFS, "SlipReLU": SlipReLU}
)


def save(snn: SpikingNetwork, folder: str | Path) -> tuple[Path, Path]:
    """Save a spiking network to a folder, so that `load` gives it back exactly.

    Parameters
    ----------
    snn
        A converted network; a simulation in progress is not saved.
    folder
        Made if missing. A network that is there is replaced in one step; other files stay.

    Returns
    -------
    tuple of Path
        The two files: the description (JSON) and the tensors (safetensors).

    Raises
    ------
    ConversionError
        If the graph runs operations that are not PyTorch's own, or the network is of a method, a
        neuron or an activation that is not registered.
    CheckpointError
        If the folder cannot be written.

    Examples
    --------
    >>> import tempfile, torch, topospike as ts
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(32, 4)
    >>> snn = ts.convert(model, calibration=[x])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     files = ts.save(snn, folder)
    ...     again = ts.load(folder)
    >>> files[0].name, torch.equal(again(x, 8), snn(x, 8))
    ('network.json', True)
    """
    folder = Path(folder)
    if snn.report.method not in METHODS:
        raise ConversionError(
            f"a network of method {snn.report.method!r} cannot be saved; the registered methods "
            f"can: {', '.join(METHODS)}. Register yours, or keep the model it was made from."
        )
    tensors, axes, aliases = tensors_of(snn.ann)
    content = safetensors.torch.save(tensors, metadata={"format": FORMAT})
    name = f"tensors-{digest(content)[:16]}.safetensors"
    description = {
        "format": FORMAT,
        "version": VERSION,
        "written_by": {package: version(package) for package in ("topospike", "torch")},
        "tensors": {"file": name, "sha256": digest(content)},
        "parameters": [key for key, _ in snn.ann.named_parameters() if key in tensors],
        "axes": axes,
        "aliases": aliases,
        "graph": graph_to_plain(snn.ann.graph, shapes_of(snn)),
        "sites": {
            str(node.target): site_to_plain(snn.ann.get_submodule(str(node.target)))
            for node in snn.ann.graph.nodes
            if node.op == "call_module"
        },
        "report": to_json(snn.report),
    }
    write_atomically(folder / name, content)
    write_json(folder / FILE, with_own_digest(description))
    for old in folder.glob("tensors-*.safetensors"):
        if old.name != name:
            old.unlink()
    return folder / FILE, folder / name


def load(folder: str | Path, *, device: str | torch.device = "cpu") -> SpikingNetwork:
    """Read what `save` wrote: the same logits at every step, the same counts.

    Parameters
    ----------
    folder
        The folder given to `save`.
    device
        Where to put the network.

    Raises
    ------
    CheckpointError
        If there is no saved network, or it is truncated, changed, or of a newer format.

    Notes
    -----
    Equal logits need the same hardware and number of threads, as for any network in PyTorch.
    """
    folder, place = Path(folder), torch.device(device)
    try:
        description = read_description(folder / FILE)
        path = folder / Path(description["tensors"]["file"]).name
        require_regular(path, remedy=MISSING)
        for file in (folder / FILE, path):
            require_intact(file)
        if digest_of_file(path) != description["tensors"]["sha256"]:
            raise ValueError("the tensor file is not the one that was saved")
        check_tensors(path, lambda name, shape, dtype: None)
        report = converted(description["report"], ConversionReport, folder / FILE)
        # copies, whose memory is aligned as it was: on other memory products round differently
        tensors = {name: t.clone() for name, t in safetensors.torch.load_file(path).items()}
        network = rebuild(description, tensors, place, method_of(report))
        return SpikingNetwork(network, report)
    except MissingDataError as error:
        raise CheckpointError(f"{str(folder)!r} holds no saved network: {error}") from error
    except DAMAGED as error:
        raise CheckpointError(
            f"{str(folder)!r} is not a whole saved network ({type(error).__name__}: "
            f"{reason(error)}). It may be cut off or changed; restore it, or convert and save "
            "again."
        ) from error


MISSING = "Give the folder passed to topospike.save; restore it, or convert and save again."
# What files that were cut or changed can raise.
DAMAGED = (*DAMAGE, ConversionError, TopologyViolation)


def read_description(path: Path) -> dict[str, Plain]:
    """Read the JSON file and check its format and its digest."""
    description = read_record(path, dict[str, Any], remedy=MISSING)
    if description.get("format") != FORMAT:
        raise ValueError(f"{path.name} does not say that it is a {FORMAT}")
    if description.get("version") != VERSION:
        writer = shortened(str(description.get("written_by", {})), 60)
        version = shortened(str(description.get("version")), 60)
        raise CheckpointError(
            f"{str(path)!r} has format version {version} (written by {writer}); this topospike "
            f"reads version {VERSION}. Read it with the version that wrote it."
        )
    if own_state(description) != INTACT:
        raise ValueError(f"{path.name} was changed after it was written")
    return description


def tensors_of(
    network: fx.GraphModule,
) -> tuple[dict[str, Tensor], dict[str, list[int]], dict[str, str]]:
    """Return tensors by name, the axis order of those not laid out row by row, and the aliases.

    Layout is kept because convolutions round differently on another one. What no operation reads
    (the remains of folded batch norms) is left out, except masks.
    """
    calls = [node for node in network.graph.nodes if node.op in ("get_attr", "call_module")]
    read = {str(node.target) for node in calls}
    inside = tuple(f"{node.target}." for node in calls if node.op == "call_module")
    tensors: dict[str, Tensor] = {}
    axes: dict[str, list[int]] = {}
    aliases: dict[str, str] = {}
    first_name: dict[int, str] = {}
    for name, tensor in network.state_dict(keep_vars=True).items():
        if not (name in read or name.removesuffix(MASK) in read or name.startswith(inside)):
            continue
        if id(tensor) in first_name:
            aliases[name] = first_name[id(tensor)]
            continue
        first_name[id(tensor)] = name
        if not tensor.is_contiguous():
            order = sorted(range(tensor.ndim), key=tensor.stride, reverse=True)
            if tensor.permute(order).is_contiguous():
                axes[name] = order
        # a copy: tensors of one storage cannot be written side by side
        tensors[name] = tensor.detach().to("cpu", copy=True).contiguous()
    return tensors, axes, aliases


def shapes_of(snn: SpikingNetwork) -> dict[fx.Node, Plain]:
    """Run the ANN on two blank images and return the shape and dtype of every node's value."""

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            values[n] = value_to_plain(result)
            return result

    values: dict[fx.Node, Plain] = {}
    with torch.no_grad():
        Recorder(snn.ann).run(*snn.inputs.blank(2, snn.like))
    return values


def rebuild(
    description: dict[str, Plain],
    tensors: dict[str, Tensor],
    device: torch.device,
    method: Method,
) -> fx.GraphModule:
    """Put graph, sites and tensors together again."""
    for name, order in description["axes"].items():
        rows = tensors[name]
        inverse = sorted(range(rows.ndim), key=order.__getitem__)
        tensors[name] = rows.permute(order).contiguous().permute(inverse)
    parameters = set(description["parameters"])
    state: dict[str, Any] = {
        name: nn.Parameter(tensor.to(device), requires_grad=False)
        if name in parameters
        else tensor.to(device)
        for name, tensor in tensors.items()
    }
    state |= {name: state[first] for name, first in description["aliases"].items()}
    for target, plain in description["sites"].items():
        inside = {
            name.removeprefix(f"{target}."): state.pop(name)
            for name in list(state)
            if name.startswith(f"{target}.")
        }
        state[target] = site_from_plain(plain, inside, method)
    graph = graph_from_plain(description["graph"], device=device)
    read = {str(node.target) for node in graph.nodes if node.op in ("get_attr", "call_module")}
    network = fx.GraphModule({name: state.pop(name) for name in read}, graph)
    for name, tensor in state.items():  # masks, which no operation reads
        path, _, last = name.rpartition(".")
        network.get_submodule(path).register_buffer(last, tensor)
    check_masks(network)
    return network


def site_to_plain(site: nn.Module) -> dict[str, Plain]:
    """Write a site without its tensors."""
    if not isinstance(site, Site):
        raise ConversionError(
            f"the network calls a {type(site).__name__}, which is no spiking site. Save the "
            "network as `topospike.convert` returned it."
        )
    neuron, activation = site.neuron, site.activation
    if type(neuron) not in NEURONS.values():
        raise ConversionError(
            f"{site.name}: its neurons ({type(neuron).__name__}) are not registered; known are "
            f"{', '.join(NEURONS)}. Register yours in topospike.conversion.methods.method.NEURONS."
        )
    return {
        "name": site.name,
        "gated": site.gated,
        "neuron": neuron_to_plain(neuron),
        "coding": site.coding.name,
        "activation": None if activation is None else activation_to_plain(site.name, activation),
    }


def site_from_plain(plain: dict[str, Plain], tensors: dict[str, Tensor], method: Method) -> Site:
    """Build a site as its method does, and give it what it had and its tensors.

    Raises
    ------
    ValueError, LookupError, TypeError
        If the description or the tensors are not those of a site.
    """
    site = method.site(plain["name"], plain["gated"])
    site.neuron = neuron_from_plain(plain["neuron"])
    if site.coding.name != plain["coding"]:
        site.coding = CODINGS[plain["coding"]]
    if plain["activation"] is not None:
        site.activation = activation_from_plain(plain["activation"], tensors)
    site.threshold = tensors["threshold"]
    for name in {name for name, _ in site.named_buffers(recurse=False)} & set(tensors):
        site.register_buffer(name, tensors[name])
    return site


def activation_to_plain(name: str, activation: nn.Module) -> dict[str, Plain]:
    """Write the settings of a trained activation."""
    if not isinstance(activation, QCFS) or type(activation) not in ACTIVATIONS.values():
        raise ConversionError(
            f"{name}: a saved network cannot hold a trained {type(activation).__name__}; "
            f"{', '.join(ACTIVATIONS)} are known. Keep the trained model and convert it again."
        )
    return {"kind": type(activation).__name__, **activation.settings()}


def activation_from_plain(plain: dict[str, Plain], tensors: dict[str, Tensor]) -> nn.Module:
    """Build a trained activation with its threshold."""
    settings = dict(plain)
    activation = ACTIVATIONS[settings.pop("kind")](**settings).requires_grad_(False)
    beta = tensors["activation.beta"]
    if beta.shape != activation.beta.shape:
        raise ValueError(f"beta has shape {tuple(beta.shape)}, not {tuple(activation.beta.shape)}")
    activation.beta = nn.Parameter(beta, requires_grad=False)
    return activation
