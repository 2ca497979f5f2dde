"""Export: read a NIR file and simulate it, step by step, without any other simulator.

Two readings of a neuron: NIR's own (fire above the threshold, then be set to ``v_reset``), or the
one its metadata asks for (fire at the threshold, lose it, start at ``v_init``; several nodes as one
multi-threshold neuron). It is a reference for checking files, small and slow: feed-forward graphs,
the nodes that `export_nir` writes and a few more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from topospike.errors import CheckpointError, ConversionError, ShapeError
from topospike.export.event_form import pair
from topospike.export.nir_file import require_nir
from topospike.snn.coding import CODINGS
from topospike.snn.neurons import MultiThreshold
from topospike.snn.site import START, Site, site_step


@dataclass(frozen=True)
class NirRun:
    """Outputs (time, batch, ...) of a file, and the spikes of every neuron node by name."""

    output: Tensor
    spikes: dict[str, Tensor] = field(repr=False)


def simulate_nir(path: str | Path, x: Tensor, *, follow_metadata: bool = True) -> NirRun:
    """Simulate the network of a NIR file on a sequence of inputs.

    Parameters
    ----------
    path
        A NIR file.
    x : Tensor, shape (time, batch, ...)
        The input of each step; its dtype is that of the simulation. For files of ours that is the
        image at every step; of networks that read frames, frame t at step t, and their mean after
        the last one.
    follow_metadata
        Whether neurons behave as the metadata of `export_nir` asks, or as NIR defines them.

    Raises
    ------
    CheckpointError
        If the file cannot be read.
    ConversionError
        If the graph has a cycle, or a node this reader does not know.
    ShapeError
        If the input does not have the file's shape.

    Examples
    --------
    >>> import tempfile, torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    >>> x = torch.rand(32, 4, dtype=torch.float64)
    >>> snn = ts.convert(model, "qcfs", [x])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = ts.export_nir(snn, f"{folder}/net.nir")
    ...     run = simulate_nir(f"{folder}/net.nir", x.expand(8, 32, 4))
    >>> torch.allclose(run.output.mean(0), snn(x, timesteps=8)[-1])
    True
    """
    graph = read_graph(path)
    shape = tuple(int(size) for size in graph.nodes["input"].input_type["input"])
    if tuple(x.shape[2:]) != shape:
        raise ShapeError(
            f"the input has shape {tuple(x.shape)}; (time, batch, {', '.join(map(str, shape))}) is "
            f"required by {path}."
        )
    simulation = Simulation(graph, x, follow_metadata=follow_metadata)
    return simulation.run()


def read_graph(path: str | Path) -> Any:
    """Read a NIR file."""
    nir = require_nir()
    try:
        return nir.read(str(path))
    except (OSError, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read as a NIR file ({error}). Export it again."
        ) from error


class Simulation:
    """One run of one graph."""

    def __init__(self, graph: Any, x: Tensor, *, follow_metadata: bool) -> None:
        self.nodes: dict[str, Any] = graph.nodes
        self.x = x
        self.follow_metadata = follow_metadata
        self.parents: dict[str, list[str]] = {name: [] for name in self.nodes}
        for source, target in graph.edges:
            self.parents[target].append(source)
        self.order = execution_order(self.parents)
        self.groups: dict[str, AxonGroup] = {}
        self.neurons = {
            name: self.neurons_of(node)
            for name, node in self.nodes.items()
            if type(node).__name__ in ("IF", "LIF")
        }
        # differential coding takes up changes of what is shown; a mean takes it up at every step
        self.by_changes = any(not g.coding.averages for g in self.groups.values())

    def neurons_of(self, node: Any) -> SingleNeurons | AxonGroup:
        """Make the state of a neuron node, shared by the nodes of a group."""
        metadata = plain(node.metadata) if self.follow_metadata else {}
        if "group" in metadata:
            return self.groups.setdefault(metadata["group"], AxonGroup(metadata))
        return SingleNeurons(node, metadata, self.x)

    def run(self) -> NirRun:
        """Simulate every step."""
        outputs: list[Tensor] = []
        spikes: dict[str, list[Tensor]] = {name: [] for name in self.neurons}
        mean = torch.zeros_like(self.x[0])
        constants = self.values_at(0, mean)
        for t, image in enumerate(self.x, start=1):
            change = image - mean
            mean = mean + change / t
            values = self.values_at(t, change if self.by_changes else image, constants)
            outputs.append(values["output"])
            for name, seen in spikes.items():
                seen.append(values[name])
        return NirRun(torch.stack(outputs), {n: torch.stack(seen) for n, seen in spikes.items()})

    def values_at(
        self, t: int, image: Tensor, constants: dict[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Evaluate every node at one step; step 0 has neither image nor spikes, only biases."""
        values: dict[str, Tensor] = {}
        for name in self.order:
            node = self.nodes[name]
            arriving = [values[parent] for parent in self.parents[name]]
            total = image if not arriving else sum(arriving[1:], arriving[0])
            if name in self.neurons:
                if constants is None:
                    values[name] = torch.zeros_like(total)
                else:
                    values[name] = self.neurons[name].fire(t, total, constants[f"{name} in"], node)
                values[f"{name} in"] = total
            else:
                values[name] = apply(node, total)
        return values


class SingleNeurons:
    """Integrate-and-fire neurons of one node."""

    def __init__(self, node: Any, metadata: dict[str, Any], like: Tensor) -> None:
        self.threshold = torch.as_tensor(node.v_threshold).to(like)
        self.resting = torch.as_tensor(node.v_reset).to(like)
        self.gain = 1.0
        self.kept = 1.0
        r = torch.as_tensor(node.r).double()
        if type(node).__name__ == "LIF":  # v += (r I - v) dt / tau with r = tau / dt
            self.kept = float(1.0 - 1.0 / r.flatten()[0])
        elif bool((r != 1).any()):
            self.gain = float(r.flatten()[0])
        self.subtracts = metadata.get("reset") == "subtract"
        self.at_threshold = metadata.get("fires") == "at_threshold"
        self.membrane: Tensor | float = float(metadata.get("v_init", 0.0))

    def fire(self, t: int, current: Tensor, constant: Tensor, node: Any) -> Tensor:
        """Integrate one step and return the spikes."""
        v = self.membrane * self.kept + self.gain * current
        fired = v >= self.threshold if self.at_threshold else v > self.threshold
        after = v - self.threshold if self.subtracts else self.resting.expand_as(v)
        self.membrane = torch.where(fired, after, v)
        return fired.to(v.dtype)


class AxonGroup:
    """The nodes that together are one population of multi-threshold neurons."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        self.coding = CODINGS[metadata["coding"]]
        gated = bool(metadata["gated"])
        self.site = Site(
            metadata["group"],
            gated=gated,
            neuron=MultiThreshold(int(metadata["levels"]), gated=gated),
            coding=self.coding,
        )
        self.t, self.state = 0, START
        self.received: Tensor | None = None

    def fire(self, t: int, current: Tensor, constant: Tensor, node: Any) -> Tensor:
        """Return the spikes of one axon; the first one asked at a step advances the group."""
        if self.t != t:
            change = current - constant
            before = torch.zeros_like(change) if self.received is None else self.received
            self.received = self.coding.decode(t, before, change)
            self.site.threshold = current.new_ones(())
            self.t, self.state = t, site_step(self.site, t, self.received + constant, self.state)
        if self.state.spikes is None:
            raise RuntimeError("the group has not run")
        return (self.state.spikes == float(plain(node.metadata)["value"])).to(current.dtype)


def plain(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return metadata as HDF5 gives it back, with text as text."""
    return {k: v.decode() if isinstance(v, bytes) else v for k, v in metadata.items()}


def execution_order(parents: dict[str, list[str]]) -> list[str]:
    """Sort the nodes so that each comes after those that feed it."""
    order: list[str] = []
    waiting = dict(parents)
    while waiting:
        ready = [n for n, before in waiting.items() if not any(p in waiting for p in before)]
        if not ready:
            raise ConversionError(
                f"the nodes {', '.join(sorted(waiting))} form a cycle; this reader simulates "
                "feed-forward graphs."
            )
        order += ready
        for name in ready:
            del waiting[name]
    return order


def apply(node: Any, x: Tensor) -> Tensor:
    """Evaluate a node without state."""
    kind = type(node).__name__
    if kind not in STATELESS:
        raise ConversionError(
            f"this reader does not know the node {kind}; it knows IF, LIF, {', '.join(STATELESS)}."
        )
    return STATELESS[kind](node, x)


def convolve(node: Any, x: Tensor) -> Tensor:
    """Evaluate a Conv2d node."""
    weight, bias = (torch.as_tensor(a).to(x) for a in (node.weight, node.bias))
    stride, padding, dilation = (pair(v) for v in (node.stride, node.padding, node.dilation))
    return functional.conv2d(x, weight, bias, stride, padding, dilation, int(node.groups))


def pool(node: Any, x: Tensor, divisor: int | None) -> Tensor:
    """Evaluate a pool; with divisor 1 it sums."""
    kernel, stride, padding = (pair(v) for v in (node.kernel_size, node.stride, node.padding))
    return functional.avg_pool2d(x, kernel, stride, padding, divisor_override=divisor)


def matrix(node: Any, x: Tensor) -> Tensor:
    """Evaluate an Affine or Linear node."""
    bias = torch.as_tensor(node.bias).to(x) if hasattr(node, "bias") else None
    return functional.linear(x, torch.as_tensor(node.weight).to(x), bias)


def flatten(node: Any, x: Tensor) -> Tensor:
    """Evaluate a Flatten node, whose axes count without the batch."""
    return x.reshape(len(x), *(int(size) for size in node.output_type["output"]))


STATELESS: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "Input": lambda node, x: x,
    "Output": lambda node, x: x,
    "Identity": lambda node, x: x,
    "Conv2d": convolve,
    "Affine": matrix,
    "Linear": matrix,
    "SumPool2d": lambda node, x: pool(node, x, 1),
    "AvgPool2d": lambda node, x: pool(node, x, None),
    "Flatten": flatten,
    "Scale": lambda node, x: x * torch.as_tensor(node.scale).to(x),
}
