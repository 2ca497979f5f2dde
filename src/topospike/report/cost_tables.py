"""Tables of cost: what energies count, what they leave out, and where a saving comes from.

The formula with its prices and every convention in words; neuron updates, memory, the ANN in 8
bits and a simulated chip; links that are absent, events that do not happen, cheaper operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from topospike.contracts import Evaluation
from topospike.costs import WiderCost
from topospike.files.reading import read_optional
from topospike.measure import split_saving
from topospike.measure.chip import ChipRun
from topospike.report.charts.figure import Table
from topospike.report.folder import DENSE, Run
from topospike.report.labels import series_name
from topospike.report.simulation import evaluations, marked_timestep
from topospike.report.units import NARROW, NO_VALUE, count, energy, percent, plain

CONVENTION_NAMES: Mapping[str, str] = {
    "first_layer": "first layer",
    "pooled": "average pools",
    "padding": "padding tokens",
    "links": "links counted",
    "energy_model": "energy model",
    "mac_joule": "one multiply-accumulate (MAC)",
    "ac_joule": "one accumulate (AC)",
}


@dataclass(frozen=True, slots=True)
class Formula:
    """The two prices in E(t) = N_MAC(t) E_MAC + N_SOP(t) E_AC, ready to print."""

    mac: str
    accumulate: str


def picojoule(joules: float) -> str:
    r"""Write the price of one operation with all the digits it was given.

    Examples
    --------
    >>> picojoule(4.6e-12), picojoule(9e-13)
    ('4.6\u202fpJ', '0.9\u202fpJ')
    """
    return f"{joules * 1e12:.6g}{NARROW}pJ"


def energy_formula(conventions: Mapping[str, str | float]) -> Formula | None:
    """Return the formula with the prices of this run, or ``None`` if they were not recorded."""
    mac, accumulate = conventions.get("mac_joule"), conventions.get("ac_joule")
    if not isinstance(mac, int | float) or not isinstance(accumulate, int | float):
        return None
    return Formula(picojoule(mac), picojoule(accumulate))


def convention_table(conventions: Mapping[str, str | float]) -> Table:
    """Return every convention of an evaluation with the sentence that defines it."""
    rows = tuple(
        (CONVENTION_NAMES.get(name, name), in_words(name, value))
        for name, value in conventions.items()
    )
    return Table("Counting conventions of this run.", ("convention", "meaning"), rows)


def in_words(name: str, value: str | float) -> str:
    """Explain one convention; a value nobody has described is shown as it is."""
    # Imported here: the package behind it loads torch, which reading a run folder does not need.
    from topospike.measure.counting.conventions import CHOICES
    from topospike.measure.energy import ENERGY_MODELS

    if isinstance(value, int | float):
        return picojoule(value) if name.endswith("_joule") else str(value)
    if name == "energy_model" and value in set(ENERGY_MODELS):
        return f"{value}: {ENERGY_MODELS[value].source}"
    described = CHOICES.get(name, {}).get(value)
    return f"{value}: {described}" if described else value


COST_COLUMNS = (
    "network",
    "t",
    "operations",
    "neuron updates",
    "memory",
    "ANN, int8, same links",
    "memory of the ANN",
    "events per link and step",
    "cheaper below",
    "steps on a chip",
)
COST_CAPTION = (
    "Beside the operations, per image; nothing is added up. Neuron updates: every neuron at every "
    "step, fired or not. Memory: accesses to SRAM as large as needed, 45 nm (Lemaire et al. 2022). "
    "ANN, int8: existing links, 8-bit weights and activations, activations that are not 0, 0.3 pJ "
    "each (45 nm, Horowitz 2014). Cheaper below: events per link and step at which the layers fed "
    "by spikes cost what they cost there. On a chip every layer adds a step, or the T steps of the "
    "layer before where it waits for these."
)


def cost_table(run: Run) -> Table | None:
    """Return one row for each converted network whose evaluation has these figures, or None."""
    rows = []
    for network, method, result in evaluations(run):
        wider = result.wider
        if wider is None:
            continue
        step = marked_timestep(run, network, method, result)
        at = step - 1
        rows.append(
            (
                series_name(network, method),
                str(step),
                energy(result.energy_joule[at]) + of_token(result, at),
                energy(wider.update_joule[at]) if wider.update_joule else NO_VALUE,
                energy(wider.memory_joule[at]),
                energy(wider.int8_ann_joule),
                energy(wider.ann_memory_joule),
                percent(wider.event_rate[at], 2),
                percent(wider.break_even_rate[at], 2),
                chip_steps(wider, at),
            )
        )
    return Table(COST_CAPTION, COST_COLUMNS, tuple(rows)) if rows else None


def of_token(result: Evaluation, at: int) -> str:
    """Write the energy of one real token behind that of a sentence; nothing for images."""
    if not result.tokens:
        return ""
    return f" ({energy(result.energy_per_token_joule[at])} a token)"


CHIP_COLUMNS = (
    "network",
    "chip",
    "T",
    "energy",
    "synapses",
    "neurons",
    "messages",
    "time",
    "steps",
    "cores",
    "synaptic events",
)
CHIP_CAPTION = (
    "On a simulated chip (SANA-FE), per image, mean over a few test images. Its spikes and "
    "synaptic events equal those counted here, but for ties that chip.json names. The image comes "
    "as a constant current: what multiplying it costs is not on the chip."
)


def chip_table(run: Run) -> Table | None:
    """Return one row for each network that ``topospike chip`` has run, or None."""
    rows = []
    for network in run.networks:
        folder = run.folder / DENSE if network.is_dense else run.folder
        for method in network.conversions:
            found = read_optional(folder / "conversions" / method / "chip.json", ChipRun)
            if found is not None:
                name = series_name(network.name, method)
                part = f" ({found.part} alone)" if found.part else ""
                rows.append((name + part, *chip_row(found)))
    return Table(CHIP_CAPTION, CHIP_COLUMNS, tuple(rows)) if rows else None


def chip_steps(wider: WiderCost, at: int) -> str:
    """Write after how many steps a chip has got so far, and when answers begin if that is late."""
    first = wider.first_answer
    return str(wider.chip_steps[at]) + (f" (answers from t = {first} on)" if first > 1 else "")


def chip_row(run: ChipRun) -> tuple[str, ...]:
    """Write what one network cost on a chip."""
    joules = run.energy_joule
    shares = (percent(joules[part] / joules["total"]) for part in ("synapse", "soma", "network"))
    return (
        run.architecture,
        str(run.timesteps),
        energy(joules["total"]),
        *shares,
        f"{run.seconds * 1e6:.4g}{NARROW}us",
        str(run.chip_steps),
        str(run.cores),
        count(round(run.synaptic_events)),
    )


SAVING_COLUMNS = (
    "network",
    "t",
    "saved",
    "by absent links",
    "by fewer events",
    "by cheaper operations",
    "energy / dense",
    "links / dense",
    "events per link / dense",
)
SAVING_CAPTION = (
    "Saved: one minus the energy over that of the ANN with every link, each used once for one MAC. "
    "The ratio of the two energies is a product of links, uses of each link, and energy of a use, "
    "so its logarithm splits exactly into the three shares; a negative share costs energy. The "
    "last three columns compare with the dense twin converted by the same method."
)


def saving_table(run: Run) -> Table | None:
    """Return one row for each converted network whose evaluation counts layers; None without."""
    counted = [item for item in evaluations(run) if item.result.layers]
    twins = {method: result for network, method, result in counted if network == DENSE}
    rows = tuple(
        saving_row(series_name(network, method), result, twin_of(twins, method, result), step)
        for network, method, result in counted
        for step in (marked_timestep(run, network, method, result),)
    )
    return Table(SAVING_CAPTION, SAVING_COLUMNS, rows) if rows else None


def twin_of(twins: Mapping[str, Evaluation], method: str, result: Evaluation) -> Evaluation | None:
    """Return the dense twin's evaluation under the same conventions, if there is one."""
    twin = twins.get(method)
    if twin is None or twin is result or twin.conventions != result.conventions:
        return None
    return twin


def saving_row(
    name: str, result: Evaluation, twin: Evaluation | None, step: int
) -> tuple[str, ...]:
    """Write the split of one network's saving at a time step."""
    own = split_saving(result, step)
    shares = own.shares().values()
    row = (name, str(step), percent(1 - own.ratio, 1), *(percent(share, 1) for share in shares))
    if twin is None or len(twin.timesteps) < step:
        return (*row, NO_VALUE, NO_VALUE, NO_VALUE)
    other = split_saving(result, step, reference=twin)
    return (*row, *(plain(part) for part in (other.ratio, other.structural, other.temporal)))
