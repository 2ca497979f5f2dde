"""Export: a NIR file (Neuromorphic Intermediate Representation) of a spiking network.

Written is the subset of NIR that importers agree on: integrate-and-fire nodes with threshold 1 and
r = 1, convolutions without groups, sum pools instead of average pools, linear layers behind images
as convolutions of full kernel size instead of a flatten. Masks stay as exact zeros. NIR has neither
a reset by subtraction nor an initial membrane nor graded spikes; what the file cannot say is
written as node metadata and listed in the report that comes back.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from topospike.conversion.methods.method import require_export
from topospike.errors import ConfigError, ConversionError, require
from topospike.export.event_form import EventForm, Pathway, Population, SumPool, Weights, event_form
from topospike.export.folding import fold
from topospike.export.trained import refuse_trained
from topospike.snn.executors.integer import grid_of
from topospike.snn.network import SpikingNetwork
from topospike.snn.neurons import IntegrateAndFire, MultiThreshold

NEURONS = ("if", "lif")
TIME_STEP = 1e-4
"""Seconds of a step where a file must name one (leaky neurons); importers assume the same."""
SLOW_LEAK = 1e9
"""Time constant in steps; a membrane then keeps 1 - 1e-9 of itself, which is 1 in float32."""


@dataclass(frozen=True, slots=True)
class NirReport:
    """What a NIR file says exactly, and what it cannot say.

    Attributes
    ----------
    nodes, links
        Nodes of the file, and non-zero weights in it.
    exact, lost
        Sentences. Where something is lost the file names it in its metadata, and a reader that
        follows the metadata loses nothing.
    """

    path: str
    neuron: str
    nodes: int
    links: int
    exact: tuple[str, ...]
    lost: tuple[str, ...]

    def text(self) -> str:
        """Return the report as lines."""
        head = f"{self.path}: {self.nodes} nodes, {self.links} links, neurons as {self.neuron}"
        return "\n".join(
            [head, *(f"  exact: {s}" for s in self.exact), *(f"  lost:  {s}" for s in self.lost)]
        )


def export_nir(
    snn: SpikingNetwork,
    path: str | Path,
    *,
    neuron: str = "if",
    binary_axons: bool = False,
) -> NirReport:
    """Write a converted network as a NIR file.

    Parameters
    ----------
    snn
        A network of integrate-and-fire neurons (methods ``qcfs``, ``cs-qcfs``, ``slip-relu``) with
        convolutions, linear layers, average pools and residual additions.
    path
        The file, usually ``*.nir``.
    neuron : {"if", "lif"}
        ``if``: read exactly by SpikingJelly and norse. ``lif``: leaky neurons whose leak is below
        the rounding of float32; snnTorch reads these and no plain integrate-and-fire.
    binary_axons
        Write a multi-threshold neuron with n levels as 2n nodes, one for each signed threshold,
        whose outgoing weights carry the size of its spike. Their joint firing rule (one of them at
        most) and differential coding exist in the metadata only.

    Returns
    -------
    NirReport
        What was written, and what NIR cannot express.

    Raises
    ------
    ConversionError
        For multi-threshold neurons without ``binary_axons``, for signed integrate-and-fire
        neurons, for methods that do more than neurons do (``srp``, ``offset-spike``), and for what
        no weights express (max-pools, products of activations, ...).
    ConfigError
        If ``neuron`` is neither of the two.
    MissingDependencyError
        If the package ``nir`` is not installed (extra ``nir``).

    Notes
    -----
    Read by NIR's own definition an IF node fires at ``v > 1`` and is then set to 0; ours fires at
    ``v >= 1``, loses 1, and starts at 1/2 (where its shift says, if trained with SlipReLU). The
    metadata of every neuron node says so (``reset="subtract"``, ``v_init``,
    ``fires="at_threshold"``); `read_nir` follows it, and other importers need two lines
    (docs/stages/export.md). The logits after T steps are the mean of the output over the steps,
    with the image presented at each of them; of a network that reads frames, with frame t at step
    t, and with the mean of all frames after the last.

    Examples
    --------
    >>> import tempfile, torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> snn = ts.convert(model, "qcfs", [torch.rand(32, 4)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = export_nir(snn, f"{folder}/net.nir")
    >>> report.nodes, report.links
    (5, 56)
    """
    if neuron not in NEURONS:
        raise ConfigError(f"neuron is {neuron!r}; one of {', '.join(NEURONS)} is required.")
    nir = require_nir()
    refuse_trained(snn, "a NIR file")
    require_export(snn.report, "nir")
    check_neurons(snn, binary_axons=binary_axons)
    form = fold(event_form(snn))
    writer = Writer(nir, form, neuron, {la.name: la.links for la in snn.wiring if la.is_sparse})
    graph = writer.graph()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    nir.write(str(path), graph)
    return NirReport(
        path=str(path),
        neuron="2n binary axons" if binary_axons else neuron,
        nodes=len(graph.nodes),
        links=writer.links,
        exact=EXACT,
        lost=losses(snn, binary_axons=binary_axons),
    )


EXACT = (
    "weights, biases, thresholds (folded into the weights, all 1 now) and pools (as sums, their "
    "divisor folded)",
    "the topology: an absent link is an exact zero; links and density are metadata of each layer",
)


def require_nir() -> Any:
    """Import ``nir``, or say how to get it."""
    require("nir", purpose="a NIR file")
    import nir

    return nir


def check_neurons(snn: SpikingNetwork, *, binary_axons: bool) -> None:
    """Refuse neurons that NIR cannot express."""
    for name, site in snn.sites.items():
        if isinstance(site.neuron, IntegrateAndFire) and site.coding.name == "rate":
            continue
        if binary_axons and isinstance(site.neuron, MultiThreshold):
            continue
        remedy = (
            "Convert by 'qcfs' or 'cs-qcfs', hand the weights over with export_csr, or write each "
            "neuron as binary axons (binary_axons=True)."
        )
        raise ConversionError(
            f"site {name} holds {site.neuron.name} neurons with {site.coding.name} coding. NIR has "
            "neurons with one threshold and spikes of one size: no thresholds of several sizes, no "
            f"negative spikes, no weighting of a spike by 1/t. {remedy}"
        )


def losses(snn: SpikingNetwork, *, binary_axons: bool) -> tuple[str, ...]:
    """Say what the file cannot express."""
    always = (
        "the readout has no neurons: the logits after T steps are the mean of the output over "
        "the steps",
    )
    if snn.report.input != "image":
        always += (
            "what follows the last frame: give the mean of all frames at every later step (frame t "
            "at step t before)",
        )
    if binary_axons:
        return (
            "the rule of a multi-threshold neuron: at most one of the nodes of a group fires, the "
            "one whose value is nearest to the membrane they share (metadata: group, value, gated)",
            f"{next(iter(snn.sites.values())).coding.name} coding (metadata: coding); in "
            "differential coding a spike at step t counts 1/t, and biases and image enter once",
            *always,
        )
    starts = ", ".join(
        f"{share:g}" for share in sorted({s.neuron.initial_membrane for s in snn.sites.values()})
    )
    return (
        "the reset by subtraction: NIR sets the membrane to 0 (metadata: reset='subtract')",
        f"the initial membrane of {starts} of a threshold: NIR starts at 0 (metadata: v_init)",
        "firing exactly at the threshold: NIR fires above it (metadata: fires='at_threshold')",
        *always,
    )


class Writer:
    """Collects the nodes and edges of one file."""

    def __init__(self, nir: Any, form: EventForm, neuron: str, masks: dict[str, Any]) -> None:
        self.nir = nir
        self.form = form
        self.neuron = neuron
        self.masks = masks
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.links = 0
        self.outlets: dict[str | None, list[tuple[str, float]]] = {}
        self.shapes: dict[str | None, tuple[int, ...]] = {None: form.input_shape}

    def graph(self) -> Any:
        """Write everything and return the graph."""
        shape = np.array(self.form.input_shape)
        self.nodes["input"] = self.nir.Input(input_type={"input": shape})
        self.outlets[None] = [("input", 1.0)]
        for population in self.form.populations:
            ends = [end for pathway in population.pathways for end in self.pathway(pathway)]
            if population.site is None:
                self.nodes["output"] = self.nir.Output(
                    output_type={"output": np.array(population.shape)}
                )
                self.edges += [(end, "output") for end in ends]
            else:
                self.neurons(population, ends)
        return self.nir.NIRGraph(nodes=self.nodes, edges=self.edges)

    def pathway(self, pathway: Pathway) -> list[str]:
        """Write a pathway once for every kind of spike its source sends; return its last nodes."""
        ends = []
        for index, (outlet, size) in enumerate(self.outlets[pathway.source]):
            end, shape = outlet, self.shapes[pathway.source]
            scaled = size == 1.0
            for step in pathway.steps:
                if isinstance(step, SumPool):
                    end = self.pool(step, end)
                else:
                    factor = 1.0 if scaled else size
                    end = self.layer(step, end, shape, factor, with_bias=index == 0)
                    scaled = True
                shape = step.shape_behind(shape)
            ends.append(end)
        return ends

    def pool(self, step: SumPool, behind: str) -> str:
        """Write a sum pool behind a node."""
        settings = (np.array(step.kernel), np.array(step.stride), np.array(step.padding))
        return self.add("pool", self.nir.SumPool2d(*settings), behind)

    def layer(
        self, step: Weights, behind: str, shape: tuple[int, ...], factor: float, *, with_bias: bool
    ) -> str:
        """Write a layer behind a node whose output has ``shape``; its weights times ``factor``."""
        weight = (step.weight * factor).cpu().numpy()
        bias = np.zeros(len(weight), dtype=weight.dtype)
        if step.bias is not None and with_bias:
            bias = step.bias.cpu().numpy()
        self.links += int(np.count_nonzero(weight))
        metadata = self.topology(step)
        if weight.ndim == 2:
            node = self.nir.Affine(weight=weight, bias=bias, metadata=metadata)
        else:
            node = self.nir.Conv2d(
                input_shape=(shape[1], shape[2]),
                weight=weight,
                stride=step.stride,
                padding=step.padding,
                dilation=step.dilation,
                groups=1,
                bias=bias,
                metadata=metadata,
            )
        return self.add(step.name, node, behind)

    def topology(self, step: Weights) -> dict[str, Any]:
        """Return the metadata of a layer: its links, and the step of each row of whole weights."""
        mask, grid = self.masks.get(step.name), grid_of(step.weight)
        found = {}
        if mask is not None:
            found |= {"links": int(mask.sum()), "density": float(mask.double().mean())}
        if grid is not None and not step.is_shortcut:
            found |= {"bits": grid.bits, "step": grid.steps.numpy()}
        return found

    def neurons(self, population: Population, ends: list[str]) -> None:
        """Write the nodes of a population behind the nodes that feed it."""
        site = population.site
        self.shapes[population.name] = population.shape
        if site is None or isinstance(site.neuron, IntegrateAndFire):
            start = 0.5 if site is None else site.neuron.initial_membrane
            metadata = {"reset": "subtract", "v_init": start, "fires": "at_threshold"}
            node = self.neuron_node(population.shape, 1.0, metadata)
            name = self.add(population.name, node, *ends)
            self.outlets[population.name] = [(name, 1.0)]
            return
        outlets = []
        for level in range(site.neuron.levels):
            for sign in (1.0, -1.0):
                value = sign * 2.0**-level
                metadata = {
                    "group": population.name, "value": value, "levels": site.neuron.levels,
                    "coding": site.coding.name, "gated": int(site.neuron.gated),
                }  # fmt: skip
                node = self.neuron_node(population.shape, 0.75 * abs(value), metadata)
                outlets.append((self.add(f"{population.name}_axon", node, *ends), value))
        self.outlets[population.name] = outlets

    def neuron_node(
        self, shape: tuple[int, ...], threshold: float, metadata: dict[str, Any]
    ) -> Any:
        """Return an integrate-and-fire node, or the leaky one that stands for it."""
        ones = np.ones(shape, dtype=np.float32)
        fields = {"v_threshold": threshold * ones, "v_reset": 0 * ones, "metadata": metadata}
        if self.neuron == "if":
            return self.nir.IF(r=ones, **fields)
        tau = SLOW_LEAK * TIME_STEP * ones
        return self.nir.LIF(tau=tau, r=SLOW_LEAK * ones, v_leak=0 * ones, **fields)

    def add(self, name: str, node: Any, *behind: str) -> str:
        """Add a node under a name no other has, with its edges; return the name."""
        base = "n" + name if name[:1].isdigit() else name
        base = base.replace(".", "_").replace("#", "_").replace("/", "_")
        number, unique = 1, base
        while unique in self.nodes:
            number += 1
            unique = f"{base}_{number}"
        self.nodes[unique] = node
        self.edges += [(end, unique) for end in behind]
        return unique
