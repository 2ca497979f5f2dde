"""Reproduce: the comparison of rules with controls, as Markdown and as JSON with every digit."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from topospike.contracts import to_json, write_atomically
from topospike.report.units import NO_VALUE, energy
from topospike.reproduce.controls import (
    CONVERSIONS,
    EPSILONS,
    REFERENCE,
    TOPOLOGY,
    WINDOWS,
    curves,
    measured_values,
    saturation_name,
)
from topospike.reproduce.outcomes import DONE, Outcome
from topospike.reproduce.paired import PairedDifference, paired_difference, spread
from topospike.reproduce.published import PublishedRow
from topospike.reproduce.render import shown_label
from topospike.reproduce.targets import Target

# Where less is better.
COSTS = ("energy_joule", "events_per_link")
WORDS: Mapping[str, str] = {
    "ann_accuracy": "accuracy of the ANN",
    "mean_epoch_accuracy": "mean accuracy over the epochs",
    "snn_accuracy": "accuracy of the SNN",
    "energy_joule": "energy",
    "events_per_link": "events per link",
}
HEADINGS: Mapping[str, str] = {
    "network_sparsity": "sparsity, %",
    "gamma": "gamma",
    "meta_depth": "meta-depth",
    "small_world": "small world sigma",
    "modularity": "modularity",
    "active": "active neurons, %",
    "paths": "paths",
    "through_hubs": "share through hubs",
}


@dataclass(frozen=True)
class ControlLine:
    """One rule converted by one method, over its seeds.

    Attributes
    ----------
    row
        Which rule and conversion.
    outcomes
        By seed.
    values
        By quantity and seed; accuracies in per cent, energies in joules.
    differences
        From `REFERENCE`, which itself has none, seed by seed: accuracies in points, energies and
        events in per cent of the reference's, the rest in its own unit.
    """

    row: PublishedRow
    outcomes: Mapping[int, Outcome]
    values: Mapping[str, Mapping[int, float]]
    differences: Mapping[str, PairedDifference]

    @property
    def rule(self) -> str:
        """Name of the rule."""
        return self.row.labels["method"]

    @property
    def conversion(self) -> str:
        """Name of the conversion."""
        return self.row.labels["conversion"]

    @property
    def done(self) -> tuple[int, ...]:
        """Seeds that came to an end."""
        return tuple(seed for seed, o in self.outcomes.items() if o.state == DONE)


def control_lines(
    target: Target, outcomes: Mapping[str, Sequence[Outcome]], seeds: Sequence[int]
) -> tuple[ControlLine, ...]:
    """Collect the values of every row over its seeds, and compare them with the reference."""
    by_seed = {key: dict(zip(seeds, own, strict=True)) for key, own in outcomes.items()}
    values = {
        row.key: values_by_quantity(by_seed[row.key], row.timesteps or 1)
        for row in target.table.rows
    }
    reference = {
        row.labels["conversion"]: values[row.key]
        for row in target.table.rows
        if row.labels["method"] == REFERENCE
    }
    return tuple(
        ControlLine(
            row,
            by_seed[row.key],
            values[row.key],
            {}
            if row.labels["method"] == REFERENCE
            else differences_from(values[row.key], reference[row.labels["conversion"]]),
        )
        for row in target.table.rows
    )


def values_by_quantity(
    outcomes: Mapping[int, Outcome], timesteps: int
) -> dict[str, dict[int, float]]:
    """Return every quantity's values by seed."""
    found: dict[str, dict[int, float]] = {}
    for seed, outcome in outcomes.items():
        for name, value in measured_values(outcome, timesteps).items():
            found.setdefault(name, {})[seed] = value
    return found


def differences_from(
    own: Mapping[str, Mapping[int, float]], reference: Mapping[str, Mapping[int, float]]
) -> dict[str, PairedDifference]:
    """Return the paired differences of all quantities that both have."""
    found: dict[str, PairedDifference] = {}
    for name, values in own.items():
        other = reference.get(name, {})
        if name in COSTS:
            values = {s: 100 * v / other[s] for s, v in values.items() if other.get(s)}
            other = dict.fromkeys(values, 100.0)
        difference = paired_difference(values, other)
        if difference is not None:
            found[name] = difference
    return found


def shown(values: Mapping[int, float] | None, digits: str = ".2f") -> str:
    """Write mean and standard deviation.

    Examples
    --------
    >>> shown({0: 1.0, 1: 3.0}), shown({0: 1.0}), shown(None)
    ('2.00 ± 1.41', '1.00', '–')
    """
    found = spread(values or {})
    if found.mean is None:
        return NO_VALUE
    text = f"{found.mean:{digits}}"
    return text if found.deviation is None else f"{text} ± {found.deviation:{digits}}"


def against(difference: PairedDifference | None) -> str:
    """Write a difference with its interval, in brackets where it is no more than noise.

    Examples
    --------
    >>> against(PairedDifference(2.0, 1.0, 3.0, (0, 1)))
    '+2.00 [+1.00, +3.00]'
    >>> against(PairedDifference(2.0, -1.0, 5.0, (0, 1)))
    '(+2.00 [-1.00, +5.00])'
    """
    if difference is None:
        return NO_VALUE
    if difference.low is None or difference.high is None:
        return f"({difference.mean:+.2f})"
    text = f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]"
    return f"({text})" if difference.is_noise else text


def outcome_table(lines: Sequence[ControlLine], step: int) -> list[list[str]]:
    """Return accuracy, energy and events, with the differences from the reference."""
    name = shown_label(REFERENCE)
    head = ["rule", "seeds", "AAE, %", "ANN, %", f"SNN at t = {step}, %", f"points from {name}"]
    head += ["energy", f"% more than {name}", "events per link", f"% more than {name}", "T0"]
    rows = [head]
    for line in lines:
        joule = spread(line.values.get("energy_joule", {}))
        rows.append(
            [
                shown_label(line.rule),
                str(len(line.done)),
                shown(line.values.get("mean_epoch_accuracy")),
                shown(line.values.get("ann_accuracy")),
                shown(line.values.get("snn_accuracy")),
                against(line.differences.get("snn_accuracy")),
                NO_VALUE if joule.mean is None else energy(joule.mean),
                against(line.differences.get("energy_joule")),
                shown(line.values.get("events_per_link"), ".3f"),
                against(line.differences.get("events_per_link")),
                shown(line.values.get("saturation_time"), ".1f"),
            ]
        )
    return rows


def saturation_table(lines: Sequence[ControlLine]) -> list[list[str]]:
    """Return T0 for every window and threshold."""
    names = [saturation_name(window, epsilon) for window in WINDOWS for epsilon in EPSILONS]
    head = ["rule", "conversion", *(name.replace("T0 ", "window ") for name in names)]
    rows = [
        [shown_label(line.rule), shown_label(line.conversion)]
        + [shown(line.values.get(name), ".1f") for name in names]
        for line in lines
    ]
    return [head, *rows]


def topology_table(lines: Sequence[ControlLine]) -> list[list[str]]:
    """Return the measures of the topologies, which do not depend on the conversion."""
    rows = [["rule", *(HEADINGS[name] for name in TOPOLOGY)]]
    for line in lines:
        rows.append([shown_label(line.rule), *(shown(line.values.get(name)) for name in TOPOLOGY)])
    return rows


def verdicts(lines: Sequence[ControlLine]) -> list[str]:
    """Say for each conversion and quantity which rules differ from the reference."""
    said = []
    for conversion in CONVERSIONS:
        for quantity, word in WORDS.items():
            better, worse, noise = [], [], []
            for line in lines:
                difference = line.differences.get(quantity)
                if line.conversion != conversion or difference is None:
                    continue
                gains = (difference.mean < 0) == (quantity in COSTS)
                place = noise if difference.is_noise else better if gains else worse
                place.append(shown_label(line.rule))
            groups = {"better": better, "worse": worse, "not told apart": noise}
            parts = [f"{name} {', '.join(rules)}" for name, rules in groups.items() if rules]
            if parts:
                said.append(f"{shown_label(conversion)}, {word}: {'; '.join(parts)}.")
    return said


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table, first row headings."""
    texts = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return [texts[0], "|" + "---|" * len(rows[0]), *texts[1:]]


def controls_text(target: Target, lines: Sequence[ControlLine], *, scale: str) -> str:
    """Return the whole comparison as Markdown."""
    name = shown_label(REFERENCE)
    circumstances = [o.circumstances for line in lines for o in line.outcomes.values()]
    about = next((c for c in circumstances if c), {})
    steps = target.table.rows[0].timesteps or 1
    text = [
        f"# {target.name}: {target.table.title}",
        "",
        f"Scale {scale}; {about.get('data', 'not run')}, {about.get('training images')} training "
        f"and {about.get('test images')} test images, {about.get('epochs')} epochs, "
        f"{about.get('hardware')}. Same seed, order of images, epochs and sparsity for every "
        "rule. Mean ± standard deviation over seeds. Differences are from "
        f"{name} with the same seed: mean and 95 % interval m ± t(0.975, n - 1) s / √n of n "
        "seeds; in brackets where it holds 0, which is noise. Intervals are not corrected for the "
        "number of comparisons. AAE: mean validation accuracy over the epochs. Energy is "
        "theoretical, per image. Events per link: synaptic operations over the uses of existing "
        "links behind spikes.",
        "",
        *verdicts(lines),
    ]
    for conversion in CONVERSIONS:
        own = [line for line in lines if line.conversion == conversion]
        text += [
            "",
            f"## {shown_label(conversion)}",
            "",
            *markdown_table(outcome_table(own, steps)),
        ]
    text += ["", "## T0 and how it is read", "", *markdown_table(saturation_table(lines))]
    first = [line for line in lines if line.conversion == CONVERSIONS[0]]
    text += ["", "## Topologies", "", *markdown_table(topology_table(first))]
    states = {
        f"{line.row.key}: {o.state} {o.reason}".strip()
        for line in lines
        for o in line.outcomes.values()
        if o.state != DONE
    }
    text += ["", "## Not done", "", *(f"- {state}" for state in sorted(states))] if states else []
    return "\n".join(text) + "\n"


def content(target: Target, lines: Sequence[ControlLine], *, scale: str) -> dict[str, Any]:
    """Return everything as plain values: each seed's, means, deviations, differences."""
    rows = []
    for line in lines:
        rows.append(
            {
                "rule": line.rule,
                "conversion": line.conversion,
                "timesteps": line.row.timesteps,
                "seeds": {
                    str(seed): {
                        "state": outcome.state,
                        "values": {n: v[seed] for n, v in line.values.items() if seed in v},
                        **curves(outcome),
                    }
                    for seed, outcome in line.outcomes.items()
                },
                "over_seeds": {n: to_json(spread(v)) for n, v in line.values.items()},
                "differences": {n: to_json(d) for n, d in line.differences.items()},
            }
        )
    return {"title": target.table.title, "scale": scale, "reference": REFERENCE, "rows": rows}


def write_controls(
    target: Target, lines: Sequence[ControlLine], folder: Path, *, scale: str
) -> list[Path]:
    """Write ``controls.md`` and ``controls.json``; return their paths."""
    paths = [folder / f"{target.name}.md", folder / f"{target.name}.json"]
    write_atomically(paths[0], controls_text(target, lines, scale=scale))
    record = content(target, lines, scale=scale)
    write_atomically(paths[1], json.dumps(record, indent=1, allow_nan=False) + "\n")
    return paths
