"""What one operation costs, and one memory access beside it: named energy models, in joules.

``E = N_MAC * E_MAC + N_SOP * E_AC`` (Bao et al. 2026, equation 2). A model says nothing about
memory and neuron updates (`topospike.measure.wider` shows both beside it) or leakage; every report
names the model it used. Arithmetic models price both operations in one technology. Chip models
price a synaptic operation as measured on a chip; such chips do no multiply-accumulates, so what the
network still spends on them (the first layer) and the ANN beside it are priced at 32-bit, 45 nm.

Memory accesses are an optional column, after Lemaire et al. (ICONIP 2022): every operand is read
from, every result written to a memory as large as it has to be, and an access costs what an SRAM of
that size costs. For a layer of the ANN a MAC reads an input and a weight, an output reads its bias
and is written once. For a layer fed by spikes an event is read once, each synaptic operation reads
a weight and reads and writes a membrane; every neuron's membrane is read and written once a step,
its bias read, a spike written. Addresses and control logic are not in it. Only existing links are
stored and read.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from topospike.contracts import Evaluation
from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.snn.network import SpikingNetwork


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Energy of one multiply-accumulate and of one accumulate, in joules.

    Attributes
    ----------
    name
        Stored with every figure.
    mac_joule, ac_joule
        Energy of one operation.
    source
        Who measured it, and what for.
    update_joule
        Energy of one update of a neuron, fired or not; ``None`` where it is not known.

    Raises
    ------
    ConfigError
        If an energy is negative or not finite.

    Examples
    --------
    >>> ENERGY_MODELS["45nm"].joule(macs=1000, sops=1000)
    5.5e-09
    >>> EnergyModel("mine", mac_joule=3.1e-12, ac_joule=0.1e-12, source="a data sheet").name
    'mine'
    """

    name: str
    mac_joule: float
    ac_joule: float
    source: str
    update_joule: float | None = None

    def __post_init__(self) -> None:
        for field in ("mac_joule", "ac_joule", "update_joule"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise ConfigError(
                    f"energy model {self.name!r}: {field} is {value}; a finite number of joules, "
                    "0 or more, is required (1 pJ is 1e-12)."
                )

    def joule(self, *, macs: float, sops: float) -> float:
        """Return the energy of ``macs`` multiply-accumulates and ``sops`` accumulates."""
        return macs * self.mac_joule + sops * self.ac_joule


HOROWITZ = "45 nm, 0.9 V (Horowitz, ISSCC 2014)"


def arithmetic(name: str, multiply: float, add: float, source: str) -> EnergyModel:
    """Return a model whose MAC is one multiplication and one addition, given in picojoules.

    An update of a neuron is two additions: the bias, and the comparison with the threshold.
    """
    mac = round(multiply + add, 6) * 1e-12
    return EnergyModel(name, mac, add * 1e-12, source, update_joule=round(2 * add, 6) * 1e-12)


def chip(name: str, synaptic: float, source: str, update: float | None = None) -> EnergyModel:
    """Return a model whose accumulate is a chip's synaptic operation, given in picojoules."""
    held = None if update is None else update * 1e-12
    text = f"{source}; MACs, which it does not do, at 32-bit floating point, {HOROWITZ}"
    return EnergyModel(name, 4.6e-12, synaptic * 1e-12, text, held)


MODELS = (
    arithmetic("45nm", 3.7, 0.9, f"32-bit floating point, {HOROWITZ}"),
    arithmetic("45nm-fp16", 1.1, 0.4, f"16-bit floating point, {HOROWITZ}"),
    arithmetic("45nm-int32", 3.1, 0.1, f"32-bit integer, {HOROWITZ}"),
    arithmetic("45nm-int8", 0.2, 0.03, f"8-bit integer, {HOROWITZ}"),
    chip(
        "loihi",
        23.6,
        "Loihi, 14 nm, smallest energy of a synaptic operation (Davies et al. 2018); an update "
        "of a neuron as in SANA-FE's model of it, 51.2 + 21.6 pJ",
        72.8,
    ),
    chip("truenorth", 26.0, "TrueNorth, 28 nm, a synaptic event (Merolla et al., Science 2014)"),
    chip("odin", 12.7, "ODIN, 28 nm, a synaptic operation (Frenkel et al. 2018)"),
    chip("spinnaker2", 10.0, "SpiNNaker 2, 22 nm, a synaptic operation (Hoeppner et al. 2021)"),
    chip("anp-i", 1.5, "ANP-I, 28 nm, a synaptic operation (Zhang et al., ISSCC 2023)"),
)
ENERGY_MODELS: Registry[EnergyModel] = Registry("energy model", {m.name: m for m in MODELS})


def energy_model(model: str | EnergyModel) -> EnergyModel:
    """Return a model by its name, or the model itself."""
    return ENERGY_MODELS[model] if isinstance(model, str) else model


def cost_advice(energy_joule: Sequence[float], ann_energy_joule: float) -> tuple[str, ...]:
    """Say it in a sentence if the spiking network costs more than its ANN at the last step.

    Examples
    --------
    >>> cost_advice((0.5e-6, 1.1e-6), 1e-6)[0]
    'At t = 2 the spiking network costs 1.10 times its ANN; it is cheaper up to t = 1.'
    """
    steps = len(energy_joule)
    if not energy_joule or energy_joule[-1] <= ann_energy_joule:
        return ()
    cheaper = sum(energy < ann_energy_joule for energy in energy_joule)
    until = f"it is cheaper up to t = {cheaper}" if cheaper else "it is cheaper at no step"
    times = f"{energy_joule[-1] / ann_energy_joule:.2f}" if ann_energy_joule else "infinitely many"
    return (f"At t = {steps} the spiking network costs {times} times its ANN; {until}.",)


SRAM_JOULE: tuple[tuple[float, float], ...] = (
    (0.0, 0.0),
    (8 * 1024.0, 10e-12),
    (32 * 1024.0, 20e-12),
    (1024 * 1024.0, 100e-12),
)
"""Bytes and joules of one 64-bit access, 45 nm (Horowitz, ISSCC 2014); linear in between."""
ACCESS_BITS = 64


@dataclass(frozen=True, slots=True)
class MemoryEnergy:
    """Joules per image spent on memory: of the ANN once, of the spiking network up to each t.

    Beside ``Evaluation.ann_energy_joule`` and ``energy_joule``, which price the operations.
    """

    ann_joule: float
    snn_joule: tuple[float, ...]
    source: str


def access_joule(numbers: float, *, bits: int = 32) -> float:
    """Return the energy of one access to a memory that holds so many numbers.

    Examples
    --------
    >>> access_joule(8 * 1024 / 4)  # 8 KiB: 10 pJ for 64 bits, so 5 pJ for 32
    5e-12
    """
    size = numbers * bits / 8
    place = min(max(bisect([s for s, _ in SRAM_JOULE], size), 1), len(SRAM_JOULE) - 1)
    (left, low), (right, high) = SRAM_JOULE[place - 1 : place + 1]
    return (low + (high - low) * (size - left) / (right - left)) * bits / ACCESS_BITS


def memory_energy(snn: SpikingNetwork, run: Evaluation, *, bits: int = 32) -> MemoryEnergy:
    """Estimate the energy of memory accesses behind an evaluation.

    Parameters
    ----------
    snn
        The network that was evaluated.
    run
        Its evaluation.
    bits
        Width of a weight, a membrane and an activation.

    Raises
    ------
    ConfigError
        If the evaluation is of another network, or ``bits`` is not 1 to 64.

    Notes
    -----
    With a(n) the cost of one access to a memory of n numbers, a layer of the ANN costs
    ``macs (a(inputs) + a(links)) + 2 outputs a(outputs)``. In the spiking network what stays MAC
    costs the same per MAC, and up to step t a layer fed by spikes costs
    ``events a(inputs) + sops (a(links) + 2 a(outputs)) + t outputs (2 a(outputs) + a(outputs))``;
    events are the spikes of the sites before it, whose writing is priced alike.

    Lemaire et al. give different networks different numbers of accesses and let the reader choose
    memory sizes; here every layer has memories of its own, exactly as large as needed.
    """
    if [layer.name for layer in snn.wiring] != [layer.name for layer in run.layers]:
        raise ConfigError(
            "the evaluation has other layers than the network; give the network it was made with."
        )
    if not 1 <= bits <= ACCESS_BITS:
        raise ConfigError(f"bits is {bits}; 1 to {ACCESS_BITS} is required.")
    spikes = {site.name: np.asarray(site.firing_rate).cumsum() * site.neurons for site in run.sites}
    steps = np.asarray(run.timesteps, np.float64)
    ann, snn_total = 0.0, np.zeros_like(steps)
    names = {population.node: name for name, population in snn.populations.items()}
    for memory, layer in zip(snn.wiring, run.layers, strict=True):
        read, link, held = (
            access_joule(n, bits=bits) for n in (memory.inputs, memory.existing, memory.outputs)
        )
        ann += layer.macs * (read + link) + 2 * memory.outputs * held
        snn_total += np.asarray(layer.snn_macs) * (read + link)
        snn_total += np.asarray(layer.sops) * (link + 2 * held)
        snn_total += steps * memory.outputs * 3 * held
        for node in memory.sites:
            snn_total += spikes[names[node]] * 2 * read
    return MemoryEnergy(ann, tuple(snn_total.tolist()), "Lemaire et al., ICONIP 2022; SRAM 45 nm")
