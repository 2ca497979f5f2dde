"""Reproduce: what can be reproduced, and which rows of it are meant.

A target is a published table or figure. Its kind says what is read off the runs: accuracy and
energy at the row's time step, the saturation time, the whole curve, or the topology.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from topospike.errors import ConfigError
from topospike.registry import Registry, suggestion
from topospike.reproduce import ch_snn, cht_mlp
from topospike.reproduce.experiments import Experiment, experiment
from topospike.reproduce.published import PublishedRow, PublishedTable, published, slug


@dataclass(frozen=True)
class Target:
    """A published table or figure, and what is compared in it.

    Attributes
    ----------
    name
        As on the command line.
    quantities
        What is read off each run, in the order of the columns.
    has_curves
        Whether accuracy is plotted over energy, one figure a network and conversion.
    has_disks
        Whether the topologies are drawn in the hyperbolic disk.
    own
        The rows of a comparison that was not published, or has rows of ours beside the print.
    plan
        From a row, ``scale`` and ``seed`` to how it is trained.
    """

    name: str
    quantities: tuple[str, ...]
    has_curves: bool = False
    has_disks: bool = False
    own: PublishedTable | None = None
    plan: Callable[..., Experiment] = experiment

    @property
    def table(self) -> PublishedTable:
        """The published numbers, or the rows of one's own."""
        return published(self.name) if self.own is None else self.own


COMPARED = (
    "ann_accuracy",
    "snn_accuracy",
    "snn_accuracy_delta",
    "energy_joule",
    "energy_reduction_percent",
)
SPARSE = ("network_sparsity", "ann_accuracy", "snn_accuracy", "energy_joule")
AS_TRAINED = ("ann_accuracy", "mean_epoch_accuracy", "snn_accuracy", "energy_joule")
TARGETS: Registry[Target] = Registry(
    "target",
    {
        target.name: target
        for target in (
            Target("table1", COMPARED),
            Target("table2", SPARSE),
            Target("table3", SPARSE),
            Target("table4", COMPARED),
            Target("fig3", ("gamma",), has_disks=True),
            Target("fig4", COMPARED, has_curves=True),
            Target("fig5", COMPARED, has_curves=True),
            Target("figA1", COMPARED, has_curves=True),
            Target("tableA4", ("saturation_time",)),
            Target(ch_snn.NAME, SPARSE, own=ch_snn.table(), plan=ch_snn.plan),
            Target(cht_mlp.NAME, AS_TRAINED, plan=cht_mlp.plan),
            Target("llama60m", ("ann_perplexity", "snn_perplexity", "energy_joule")),
        )
    },
)


def chosen_rows(target: Target, patterns: Iterable[str] = ()) -> tuple[PublishedRow, ...]:
    """Return the rows of a target that fit one of the patterns; without patterns, all of them.

    Parameters
    ----------
    target
        What is to be reproduced.
    patterns
        Parts of row keys, joined by ``/`` and in any order: ``cht``, ``cifar10/vgg16``,
        ``cifar10/vgg16/cht/dcgs``.

    Raises
    ------
    ConfigError
        A pattern fits no row; lists the rows.

    Examples
    --------
    >>> [row.key for row in chosen_rows(TARGETS["table3"], ["cifar10/90.62"])]
    ['cifar10/conv6fc2/cht/dcgs/90.62']
    """
    rows, wanted = target.table.rows, list(patterns)
    if not wanted:
        return rows
    found: list[PublishedRow] = []
    for pattern in wanted:
        parts = {slug(part) for part in pattern.split("/")}
        fitting = [row for row in rows if parts <= set(row.key.split("/"))]
        if not fitting:
            known = sorted({part for row in rows for part in row.key.split("/")})
            missing = next((part for part in sorted(parts) if part not in known), pattern)
            raise ConfigError(
                f"{target.name} has no row {pattern!r}. Rows are named by {', '.join(known)}, "
                f"joined by '/'.{suggestion(missing, known)}"
            )
        found += fitting
    return tuple(row for row in rows if row in found)
