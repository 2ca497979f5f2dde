"""Recorded runs with several seeds, rule by rule, and their differences from one rule.

Folders are named ``RULE-seedN-DIGEST`` or ``RULE-N``. Columns are mean and standard deviation over
the seeds: validation accuracy of the last epoch, and where the network was converted test accuracy
of the ANN and energy of the spiking network at its last step, which need not be the same in two
folders (of several conversions, of the last by name). Behind each: the reference less this, with
the same seeds, and its 95 % interval; below, by how much any two rules must differ where noise is
pooled over all of them (`topospike.reproduce.paired`).

    python benchmarks/paired.py [FOLDER ...] [--reference RULE]
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from pathlib import Path

from timing import table

from topospike.contracts import Evaluation
from topospike.reproduce.paired import least_difference, paired_difference, spread

RECORDS = Path(__file__).parent.parent / "results/cht-mlp"
NAME = re.compile(r"(?P<rule>.+?)-(seed)?(?P<seed>\d+)(-[0-9a-f]{10})?")
COLUMNS = {"validation %": "{:.2f}", "ANN %": "{:.2f}", "nJ": "{:.1f}"}

Values = dict[str, dict[str, dict[int, float]]]


def recorded(folders: list[Path]) -> Values:
    """Return each column of each rule by seed."""
    found: Values = defaultdict(lambda: defaultdict(dict))
    for run in sorted(run for folder in folders for run in folder.iterdir()):
        name = NAME.fullmatch(run.name)
        log = next(iter(sorted(run.rglob("metrics.jsonl"))), None)
        if name is None or log is None:
            continue
        rule, seed = found[name["rule"]], int(name["seed"])
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        epochs = [line["validation_accuracy"] for line in lines if line["kind"] == "epoch"]
        rule["validation %"][seed] = 100 * epochs[-1]
        for path in sorted(run.rglob("conversions/*/evaluation.json")):
            evaluation = Evaluation.load(path)
            rule["ANN %"][seed] = 100 * evaluation.ann_accuracy
            rule["nJ"][seed] = 1e9 * evaluation.energy_joule[-1]
    return found


def cells(values: dict[int, float], reference: dict[int, float], form: str) -> list[str]:
    """Return mean and deviation, and the difference with its interval."""
    of = spread(values)
    if of.mean is None:
        return ["-", "-"]
    shown = [form.format(number) for number in (of.mean, of.deviation) if number is not None]
    gap = paired_difference(reference, values)
    if gap is None or gap.low is None or gap.high is None or values is reference:
        return [" +- ".join(shown), "-"]
    return [" +- ".join(shown), f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="as all benchmarks have it; no effect")
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--reference", default="cht-mlp-fashion-mnist-cht-ws")
    given = parser.parse_args()
    found = recorded(given.folders or [RECORDS / "records", RECORDS / "start"])
    reference = found[given.reference]
    rows = [
        [
            rule,
            *(c for name, form in COLUMNS.items() for c in cells(of[name], reference[name], form)),
        ]
        for rule, of in found.items()
    ]
    heading = [column for name in COLUMNS for column in (name, "difference")]
    print(f"differences: {given.reference} less the row")
    table(["rule", *heading], rows)
    for name, form in COLUMNS.items():
        least = least_difference({rule: of[name] for rule, of in found.items() if of[name]})
        if least is not None:
            print(f"{name}: two rules differ from {form.format(least)} on (noise of all rules)")


if __name__ == "__main__":
    main()
