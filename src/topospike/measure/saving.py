"""Where a saving comes from: links that are absent, events that do not happen, cheaper operations.

The energy of a spiking network relative to a reference is a product of three factors, so logarithms
split the saving exactly, whatever the order:

    E / E_ref = structural * temporal * arithmetic
    structural = links / links_ref                      how many links there are
    temporal   = operations per link / the same of ref  how often each is used, up to step t
    arithmetic = joule per operation / the same of ref  what a use costs

The reference is the ANN with every link (each used once, for one MAC), or another evaluation, such
as the dense twin's: then the temporal factor says whether the links that stayed are used more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from topospike.contracts import Evaluation
from topospike.errors import ConfigError
from topospike.measure.energy import EnergyModel, cost_advice, energy_model
from topospike.measure.wider import priced


@dataclass(frozen=True, slots=True)
class Saving:
    """The three factors of an energy ratio, and each one's share of the saving.

    ``ratio`` is the product of the factors; a share is ``log(factor) / log(ratio)``. Shares add up
    to 1; one is negative where its factor works against the saving, and ``nan`` without a saving
    (ratio 1) or without any operation.
    """

    timestep: int
    ratio: float
    structural: float
    temporal: float
    arithmetic: float

    def shares(self) -> dict[str, float]:
        """Return each factor's share of the saving."""
        factors = {
            "structural": self.structural,
            "temporal": self.temporal,
            "arithmetic": self.arithmetic,
        }
        if self.ratio in (0.0, 1.0) or not math.isfinite(self.ratio):
            return dict.fromkeys(factors, math.nan)
        whole = math.log(self.ratio)
        return {name: math.log(factor) / whole for name, factor in factors.items()}


def split_saving(run: Evaluation, timestep: int, *, reference: Evaluation | None = None) -> Saving:
    """Split the energy of a run up to one time step, relative to a reference.

    Parameters
    ----------
    run
        The evaluation of a spiking network.
    timestep
        Which t, from 1.
    reference
        Another evaluation under the same conventions, taken at the same t; ``None`` is the run's
        own ANN with every link present.

    Raises
    ------
    ConfigError
        If a run was not simulated for so long, or the energy models differ.

    Notes
    -----
    Operations are MACs and SOPs of the spiking network; links are those a MAC of the ANN stands
    for, ``sum of layers.macs``.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(16, 4)
    >>> run = ts.evaluate(ts.convert(model, calibration=[x]), [(x, torch.arange(16) % 3)], 4)
    >>> saving = split_saving(run, 4)
    >>> saving.structural, round(sum(saving.shares().values()), 6)
    (1.0, 1.0)
    """
    energy, operations, links = at_step(run, timestep)
    if reference is None:
        mac = float(run.conventions["mac_joule"])
        links_before = sum(layer.macs_dense for layer in run.layers)
        energy_before, operations_before = links_before * mac, links_before
    else:
        for key in ("mac_joule", "ac_joule"):
            if reference.conventions[key] != run.conventions[key]:
                raise ConfigError(
                    f"{key} is {run.conventions[key]} in the run and {reference.conventions[key]} "
                    "in the reference; price both with one energy model (reprice)."
                )
        energy_before, operations_before, links_before = at_step(reference, timestep)
    if not (operations and operations_before):
        return Saving(timestep, 0.0, links / links_before, 0.0, math.nan)
    return Saving(
        timestep=timestep,
        ratio=energy / energy_before,
        structural=links / links_before,
        temporal=(operations / links) / (operations_before / links_before),
        arithmetic=(energy / operations) / (energy_before / operations_before),
    )


def at_step(run: Evaluation, timestep: int) -> tuple[float, float, float]:
    """Return energy and operations up to a step, and the number of links."""
    if not 1 <= timestep <= len(run.timesteps):
        raise ConfigError(
            f"timestep is {timestep}; the run was simulated for 1 to {len(run.timesteps)} steps."
        )
    operations = run.macs_per_step[timestep - 1] + run.sops[timestep - 1]
    return run.energy_joule[timestep - 1], operations, sum(layer.macs for layer in run.layers)


def event_rates(run: Evaluation) -> dict[str, tuple[float, ...]]:
    """Return, for each layer, the events per existing link at each single time step.

    ``rates[name][t - 1]`` is the SOPs of step t over the layer's links (MACs of the ANN); 0 for a
    layer that is fed by the image or by graded numbers.
    """
    return {
        layer.name: tuple(
            (now - before) / layer.macs if layer.macs else 0.0
            for before, now in zip((0.0, *layer.sops), layer.sops, strict=False)
        )
        for layer in run.layers
    }


def saving_text(runs: Mapping[str, Evaluation], timestep: int) -> str:
    """Return a table: one row a run, its energies side by side and the split of its saving.

    The first run is the reference of the last three columns (give the dense twin first).
    """
    header = (
        f"{'network':<20} {'ANN dense':>10} {'ANN':>10} {'SNN':>10} | {'saving':>7} "
        f"{'links':>7} {'events':>7} {'op.':>6} | {'vs first':>8} {'links':>7} {'events':>7}"
    )
    first = next(iter(runs.values()), None)
    conventions = "" if first is None else conventions_text(first)
    lines = [f"energy per image in uJ up to t = {timestep}; {conventions}", header]
    for name, run in runs.items():
        own = split_saving(run, timestep)
        other = split_saving(run, timestep, reference=first)
        shares = own.shares()
        joules = (run.ann_dense_energy_joule, run.ann_energy_joule, run.energy_joule[timestep - 1])
        lines.append(
            f"{name:<20} " + " ".join(f"{joule * 1e6:>10.4g}" for joule in joules) + " | "
            f"{1 - own.ratio:>7.1%} {shares['structural']:>7.1%} {shares['temporal']:>7.1%} "
            f"{shares['arithmetic']:>6.1%} | {other.ratio:>8.3f} {other.structural:>7.3f} "
            f"{other.temporal:>7.3f}"
        )
    return "\n".join(lines)


def conventions_text(run: Evaluation) -> str:
    """Return the conventions of a run on one line."""
    values = run.conventions.items()
    return ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in values)


def reprice(run: Evaluation, model: str | EnergyModel) -> Evaluation:
    """Return an evaluation under another energy model; counts stay, energies are computed anew.

    Examples
    --------
    >>> import torch, topospike as ts
    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> x = torch.rand(16, 4)
    >>> run = ts.evaluate(ts.convert(net, calibration=[x]), [(x, torch.arange(16) % 3)], 4)
    >>> reprice(run, "loihi").conventions["energy_model"]
    'loihi'
    """
    chosen = energy_model(model)
    energy = tuple(
        chosen.joule(macs=macs, sops=sops)
        for macs, sops in zip(run.macs_per_step, run.sops, strict=True)
    )
    ann_energy = chosen.joule(macs=sum(la.macs for la in run.layers), sops=0)
    wider = run.wider
    return replace(
        run,
        wider=wider and replace(wider, **priced(run, wider.active_share, chosen)),
        energy_joule=energy,
        ann_energy_joule=ann_energy,
        advice=cost_advice(energy, ann_energy),
        ann_dense_energy_joule=chosen.joule(macs=sum(la.macs_dense for la in run.layers), sops=0),
        conventions={
            **run.conventions,
            "energy_model": chosen.name,
            "mac_joule": chosen.mac_joule,
            "ac_joule": chosen.ac_joule,
        },
    )
