"""Convert: give a spiking network weights of few bits, as chips hold them, and say what it costs.

With q_i the quantum of input channel i (`topospike.snn.executors.quanta`) and ``m = 2^(bits - 1) -
1``:

    d_o = max_i |W[o, i] q_i| / m,    Wq[o, i] = round(W[o, i] q_i / d_o),    W <- d_o Wq / q

so that what spikes of whole codes add to an output is a whole number times d_o. A layer that is not
fed by whole codes takes q = 1. The network that comes out *has* these weights: every executor runs
on them, and ``integer`` on the whole numbers themselves. Absent links stay exactly 0.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from topospike.errors import ConfigError
from topospike.models.inputs import Inputs
from topospike.registry import suggestion
from topospike.snn.executors.integer import BITS, by_row, codes_of, steps_of
from topospike.snn.executors.quanta import Codes, plain_weight
from topospike.snn.network import SpikingNetwork
from topospike.wiring.layers import PRODUCTS, Layer

COMPUTED = "its weights are computed, or read by several layers, and were left as they are"


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """What quantising did to one layer.

    ``weight_error`` and ``output_error`` are norms of differences over norms: the first of ``W q``,
    what a spike adds, so that a channel whose spikes are tiny counts for little; the second of the
    layer's outputs in the ANN, with what layers before it add, ``None`` without images. ``bits`` is
    ``None`` where the weights were left alone. ``integer`` tells whether the layer runs on whole
    numbers; ``reason`` why not.
    """

    name: str
    bits: int | None
    weight_error: float
    output_error: float | None
    integer: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class WeightReport:
    """What quantising did to a network, layer by layer in execution order."""

    bits: int
    layers: tuple[LayerWeights, ...]

    def text(self) -> str:
        """Return it as a table."""
        lines = [f"{'layer':<28} {'bits':>5} {'weights':>9} {'outputs':>9}  runs on"]
        for row in self.layers:
            output = "" if row.output_error is None else f"{row.output_error:.3%}"
            kind = "whole numbers" if row.integer else f"real numbers: {row.reason}"
            bits = "" if row.bits is None else str(row.bits)
            lines.append(f"{row.name:<28} {bits:>5} {row.weight_error:>9.3%} {output:>9}  {kind}")
        return "\n".join(lines)


@torch.no_grad()
def quantise_weights(
    snn: SpikingNetwork,
    bits: int = 8,
    *,
    images: Inputs | None = None,
    keep: Iterable[str] = (),
) -> tuple[SpikingNetwork, WeightReport]:
    """Return the network with weights of few bits, and what that changed.

    Parameters
    ----------
    snn
        A converted network; it is not changed.
    bits
        2 to 8, sign included.
    images, optional
        Images on which the error of every layer's output is measured, in the ANN; without them it
        is not.
    keep
        Layers that keep their weights, by name: often the first and the last.

    Returns
    -------
    (SpikingNetwork, WeightReport)
        A network of its own, and one row a layer: the relative errors (Frobenius norms) of what
        spikes add, ``W q``, and of outputs, and whether the layer can be run on whole numbers or
        why not.

    Raises
    ------
    ConfigError
        If ``bits`` is outside 2..8, or there is no layer of a name in ``keep``.

    Notes
    -----
    Biases, thresholds and states keep their precision. One step a row (output channel) is what
    chips and int8 libraries take; the quantum enters because spikes, not activations, meet the
    weights: those of a channel of tiny spikes may all become 0, as less than a step of any row. A
    weight that is computed (a weight norm), or read by several layers, is left as it is.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3))
    >>> x = torch.rand(32, 4)
    >>> snn, report = ts.quantise_weights(ts.convert(model, calibration=[x]), bits=8, images=x)
    >>> [(layer.name, layer.integer) for layer in report.layers]
    [('0', False), ('2', True)]
    >>> report.layers[1].weight_error < 0.05
    True
    >>> torch.allclose(snn(x, 4, executor="integer"), snn(x, 4), atol=1e-5)
    True
    """
    if bits not in BITS:
        raise ConfigError(f"bits is {bits}; a weight may have 2 to 8, its sign among them.")
    names = [layer.name for layer in snn.wiring]
    kept = set(keep)
    for name in kept - set(names):
        raise ConfigError(f"there is no layer {name!r} to keep.{suggestion(name, names)}")
    quantised = copy.deepcopy(snn)
    codes = codes_of(quantised)
    errors = {
        layer.name: rounded(layer, codes[layer.name], bits, quantised)
        for layer in quantised.wiring
        if layer.name not in kept
    }
    changed: dict[str, float] = {}
    if images is not None:
        before, after = outputs_of(snn, images), outputs_of(quantised, images)
        changed = {name: distance(after[name], before[name]) for name in before}
    rows = []
    for name in names:
        found, error = codes[name], errors.get(name)
        reason = found if isinstance(found, str) else ""
        if error is None:
            reason = "its weights were kept" if name in kept else COMPUTED
        has = None if error is None else bits
        rows.append(LayerWeights(name, has, error or 0.0, changed.get(name), not reason, reason))
    return quantised, WeightReport(bits, tuple(rows))


def rounded(layer: Layer, codes: Codes | str, bits: int, snn: SpikingNetwork) -> float | None:
    """Round a layer's weights in place; return the error of ``W q``, ``None`` if left alone."""
    name = plain_weight(layer, snn.ann)
    if name is None:
        return None
    parameter = snn.ann.get_parameter(name)
    exact = parameter.detach().double()
    outputs_second = "transpose" in str(layer.node.target) or layer.node.target in PRODUCTS
    exact = exact.transpose(0, 1) if outputs_second else exact
    quantum = 1.0 if isinstance(codes, str) else codes.of_weight(exact).to(exact.device)
    scaled = exact * quantum
    steps = by_row(steps_of(scaled, bits), scaled)
    whole = (scaled / steps).round() * steps
    result = whole / quantum
    parameter.copy_(result.transpose(0, 1) if outputs_second else result)
    return distance(whole, scaled)


class Outputs(fx.Interpreter):
    """Runs the ANN and keeps what its weight layers give."""

    def __init__(self, snn: SpikingNetwork) -> None:
        super().__init__(snn.ann)
        self.names = {layer.node: layer.name for layer in snn.wiring}
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        """Run one node, and keep its value if it is a layer."""
        result = super().run_node(n)
        if n in self.names:
            self.found[self.names[n]] = result
        return result


def outputs_of(snn: SpikingNetwork, images: Inputs) -> dict[str, Tensor]:
    """Return what every weight layer of the ANN gives for some images, by its name."""
    outputs = Outputs(snn)
    outputs.run(*snn.inputs.leaves(images))
    return outputs.found


def distance(one: Tensor, other: Tensor) -> float:
    """Return the norm of a difference over the norm of what it should be."""
    return float((one - other).norm()) / (float(other.norm()) or 1.0)
