"""What every recorded network costs at equal accuracy, beside its own 8-bit ANN.

Every ``evaluation.json`` of a folder of records is read at the first step whose accuracy is within
0.1 points of its ANN's; where there is none, at its last, and the accuracy is marked ``<``. Columns
are uJ an image (a context of text): the operations of the spiking network, with an update of every
neuron at every step, with memory accesses besides; the ANN in whole numbers of 8 bits on the same
links, activations that are 0 left out; and how many times that the operations cost, without and
with the updates. The last column has both in whole numbers, with the updates: the spiking network's
MACs as the ANN's, its accumulates and the two of an update at 0.1 pJ (32-bit, Horowitz 2014).

Records made before activations were looked at have no memory, and as the 8-bit ANN an upper bound:
every link used. It is marked ``<=``, and the ratios ``>=``: the spiking network loses at least so.

    python benchmarks/costs.py [FOLDER]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from timing import table

from topospike.contracts import Evaluation
from topospike.measure.energy import energy_model
from topospike.measure.wider import INT8_MAC_JOULE, priced

RECORDS = Path(__file__).parent.parent / "results"
FILE = "evaluation.json"
NEAR = 0.001
INT32_ADD_JOULE = 0.1e-12
HEADER = ("network", "ANN %", "SNN %", "T", "operations", "+ updates", "+ memory", "8-bit ANN",
          "its memory", "ratio", "+ updates", "both whole")  # fmt: skip


def recorded(folder: Path) -> dict[str, Evaluation]:
    """Return all evaluations by place; of a run with several conversions each of these."""
    found = sorted(folder.rglob(FILE))
    single = [path for path in found if not (path.parent / "conversions").is_dir()]
    return {str(path.parent.relative_to(folder)): Evaluation.load(path) for path in single}


def costs(name: str, run: Evaluation) -> tuple[str, ...]:
    """Return the row of one network."""
    near = [t for t, found in enumerate(run.accuracy) if found >= run.ann_accuracy - NEAR]
    at = near[0] if near else len(run.timesteps) - 1
    operations = run.energy_joule[at]
    wider = run.wider
    model = energy_model(str(run.conventions["energy_model"]))
    updates = (wider.update_joule if wider else priced(run, 1.0, model)["update_joule"])[at]
    ann = wider.int8_ann_joule if wider else sum(la.macs for la in run.layers) * INT8_MAC_JOULE
    neurons = sum(site.neurons for site in run.sites)
    additions = run.sops[at] + 2 * neurons * run.timesteps[at]
    whole = run.macs_per_step[at] * INT8_MAC_JOULE + additions * INT32_ADD_JOULE
    bound, least = ("", "") if wider else ("<=", ">=")
    return (
        name,
        f"{run.ann_accuracy:.2%}"[:-1],
        ("" if near else "<") + f"{run.accuracy[at]:.2%}"[:-1],
        str(run.timesteps[at]),
        f"{operations * 1e6:.4g}",
        f"{(operations + updates) * 1e6:.4g}",
        f"{(operations + updates + wider.memory_joule[at]) * 1e6:.4g}" if wider else "-",
        f"{bound}{ann * 1e6:.4g}",
        f"{wider.ann_memory_joule * 1e6:.4g}" if wider else "-",
        f"{least}{operations / ann:.1f}",
        f"{least}{(operations + updates) / ann:.1f}",
        f"{least}{whole / ann:.2f}",
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="as all benchmarks have it; no effect")
    parser.add_argument("folder", nargs="?", type=Path, default=RECORDS)
    rows = [costs(name, run) for name, run in recorded(parser.parse_args().folder).items()]
    table(HEADER, rows)
    for column, priced_as in ((-3, "as they are recorded"), (-1, "with both in whole numbers")):
        known = [row[column] for row in rows]
        more = sum(float(ratio.removeprefix(">=")) >= 1 for ratio in known)
        less = sum(not ratio.startswith(">=") and float(ratio) < 1 for ratio in known)
        print(
            f"{priced_as}: {more} of {len(rows)} spiking networks cost more than their 8-bit ANN, "
            f"{less} less, {len(rows) - more - less} cannot be told"
        )


if __name__ == "__main__":
    main()
