"""What operations leave out: neuron updates, memory, the ANN in 8 bits; and a simulated chip."""

from __future__ import annotations

from topospike.contracts import Evaluation
from topospike.costs import WiderCost
from topospike.files.reading import read_optional
from topospike.measure.chip import ChipRun
from topospike.report.chart import Table
from topospike.report.folder import DENSE, Run
from topospike.report.labels import series_name
from topospike.report.simulation import evaluations, marked_timestep
from topospike.report.units import NARROW, NO_VALUE, count, energy, percent

COLUMNS = (
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
CAPTION = (
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
    return Table(CAPTION, COLUMNS, tuple(rows)) if rows else None


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
