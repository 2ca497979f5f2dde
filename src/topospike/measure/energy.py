"""What one operation costs: named energy models, in joules.

``E = N_MAC * E_MAC + N_SOP * E_AC`` (Bao et al. 2026, equation 2). A model says nothing about
memory, neuron updates or leakage; every report names the model it used.
"""

from __future__ import annotations

from dataclasses import dataclass

from topospike.registry import Registry


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """Energy of one multiply-accumulate and of one accumulate, in joules.

    Examples
    --------
    >>> ENERGY_MODELS["45nm"].joule(macs=1000, sops=1000)
    5.5e-09
    """

    name: str
    mac_joule: float
    ac_joule: float
    source: str

    def joule(self, *, macs: float, sops: float) -> float:
        """Return the energy of ``macs`` multiply-accumulates and ``sops`` accumulates."""
        return macs * self.mac_joule + sops * self.ac_joule


ENERGY_MODELS: Registry[EnergyModel] = Registry(
    "energy model",
    {
        "45nm": EnergyModel(
            "45nm",
            4.6e-12,
            0.9e-12,
            "32-bit floating point, 45 nm, 0.9 V (Horowitz, ISSCC 2014)",
        ),
        "45nm-int8": EnergyModel(
            "45nm-int8",
            0.23e-12,
            0.03e-12,
            "8-bit integer, 45 nm, 0.9 V (Horowitz, ISSCC 2014)",
        ),
    },
)
