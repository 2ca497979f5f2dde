"""The table that says where each network's saving comes from: links, events, cheaper operations."""

from __future__ import annotations

from collections.abc import Mapping

from topospike.contracts import Evaluation
from topospike.measure import split_saving
from topospike.report.chart import Table
from topospike.report.folder import DENSE, Run
from topospike.report.labels import series_name
from topospike.report.simulation import evaluations, marked_timestep
from topospike.report.units import NO_VALUE, percent, plain

COLUMNS = (
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
CAPTION = (
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
    return Table(CAPTION, COLUMNS, rows) if rows else None


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
