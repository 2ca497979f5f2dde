"""What one operation costs: named energy models, in joules.

``E = N_MAC * E_MAC + N_SOP * E_AC`` (Bao et al. 2026, equation 2). A model says nothing about
memory and neuron updates (`topospike.measure.wider` shows both beside it) or leakage; every report
names the model it used. Arithmetic models price both operations in one technology. Chip models
price a synaptic operation as measured on a chip; such chips do no multiply-accumulates, so what the
network still spends on them (the first layer) and the ANN beside it are priced at 32-bit, 45 nm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from topospike.errors import ConfigError
from topospike.registry import Registry


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
