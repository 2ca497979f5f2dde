"""Reproduce: published and measured values side by side, line by line.

Several seeds of a row become a mean and a sample standard deviation. Differences from the dense
row (accuracy in points, energy saved in per cent) are taken between our own rows, never between
ours and a published one. A value that was not measured stays empty.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from topospike.reproduce.outcomes import DONE, Outcome
from topospike.reproduce.published import DENSE, PublishedRow, without_method


@dataclass(frozen=True)
class Cell:
    """One quantity of one row; energies in joules, shares in per cent.

    ``spread`` is the standard deviation over seeds, ``None`` for fewer than two.
    """

    published: float | None
    measured: float | None = None
    spread: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured less published."""
        if self.published is None or self.measured is None:
            return None
        return self.measured - self.published


@dataclass(frozen=True)
class Line:
    """One row of a target with everything known of it."""

    row: PublishedRow
    cells: Mapping[str, Cell]
    outcomes: tuple[Outcome, ...]

    @property
    def done(self) -> tuple[Outcome, ...]:
        """The seeds that came to an end."""
        return tuple(outcome for outcome in self.outcomes if outcome.state == DONE)

    @property
    def state(self) -> str:
        """How many seeds are done, or why none is."""
        if self.done:
            several = f" ({len(self.done)} of {len(self.outcomes)} seeds)"
            return DONE + (several if len(self.done) < len(self.outcomes) else "")
        first = self.outcomes[0]
        return f"{first.state}: {first.reason}" if first.reason else first.state


def compare(
    outcomes: Mapping[str, Sequence[Outcome]],
    rows: Sequence[PublishedRow],
    quantities: Sequence[str],
) -> tuple[Line, ...]:
    """Put measured values beside the published ones.

    Parameters
    ----------
    outcomes
        By row key, one a seed.
    rows
        Published rows, in their order.
    quantities
        What to compare.

    Examples
    --------
    >>> from topospike.reproduce.published import published
    >>> row = published("table1").rows[0]
    >>> done = Outcome(DONE, values={"ann_accuracy": 95.0})
    >>> line, = compare({row.key: [done, Outcome(DONE, values={"ann_accuracy": 94.0})]}, [row],
    ...                 ["ann_accuracy"])
    >>> cell = line.cells["ann_accuracy"]
    >>> cell.measured, round(cell.difference, 2), round(cell.spread, 3)
    (94.5, 0.05, 0.707)
    """
    dense = {without_method(row): row.key for row in rows if row.labels["method"] == DENSE}
    lines = []
    for row in rows:
        own = tuple(outcomes[row.key])
        reference = outcomes.get(dense.get(without_method(row), ""), ())
        measured = [{**o.values, **against(o, reference)} for o in own if o.state == DONE]
        cells = {
            name: cell(row, name, [v[name] for v in measured if name in v]) for name in quantities
        }
        lines.append(Line(row, cells, own))
    return tuple(lines)


def cell(row: PublishedRow, quantity: str, values: Sequence[float]) -> Cell:
    """Return one quantity of one row over its seeds."""
    mean = statistics.fmean(values) if values else None
    spread = statistics.stdev(values) if len(values) > 1 else None
    return Cell(row.values.get(quantity), mean, spread)


def against(outcome: Outcome, reference: Sequence[Outcome]) -> dict[str, float]:
    """Return how an outcome differs from the dense one of the same seed, if that was run."""
    seed = outcome.circumstances.get("seed")
    same = [o for o in reference if o.state == DONE and o.circumstances.get("seed") == seed]
    if not same or same[0] is outcome:
        return {}
    dense, result = same[0].values, {}
    if "snn_accuracy" in dense and "snn_accuracy" in outcome.values:
        result["snn_accuracy_delta"] = outcome.values["snn_accuracy"] - dense["snn_accuracy"]
    if dense.get("energy_joule") and "energy_joule" in outcome.values:
        kept = outcome.values["energy_joule"] / dense["energy_joule"]
        result["energy_reduction_percent"] = 100 * (1 - kept)
    return result
