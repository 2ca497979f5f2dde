"""What moving numbers costs beside computing with them: memory accesses, as an optional column.

After Lemaire et al. (ICONIP 2022): every operand is read from, every result written to a memory as
large as it has to be, and an access costs what an SRAM of that size costs. For a layer of the ANN a
MAC reads an input and a weight, an output reads its bias and is written once. For a layer fed by
spikes an event is read once, each synaptic operation reads a weight and reads and writes a
membrane; every neuron's membrane is read and written once a step, its bias read, a spike written.
Addresses and control logic are not in it. Only existing links are stored and read.
"""

from __future__ import annotations

from bisect import bisect
from dataclasses import dataclass

import numpy as np

from topospike.contracts import Evaluation
from topospike.errors import ConfigError
from topospike.snn.network import SpikingNetwork

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
