"""Reproduce: Cannistraci-Hebb training beside its controls, all converted.

One network at one sparsity, made sparse in nine ways and in none (``dense``): random links that
stay (``static``), SET, RigL, GMP, GraNet, CHT, CHTs, CHTss, and channels of a trained network
pruned by DepGraph. All start from the same seed, see the same images in the same order for the same
number of epochs, and are converted by the same methods on the same calibration images; where a rule
has choices of its own, it takes its own defaults. Not a published table: it answers what the
published ones leave open.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from topospike.analysis.report import TopologyReport
from topospike.contracts import Evaluation
from topospike.measure import saturation_time
from topospike.recipe.files import resolve
from topospike.registry import Registry
from topospike.reproduce.experiments import Changes, Experiment, dense, depgraph, together
from topospike.reproduce.outcomes import DONE, Outcome
from topospike.reproduce.published import DENSE, PublishedRow, PublishedTable
from topospike.reproduce.targets import Target

NAME = "controls"
REFERENCE = "chtss"
CONVERSIONS = ("dcgs", "cs-qcfs")
JUDGED_AT = 8
SIMULATED = 32
# Of Algorithm 1 of the paper, whose own are 5 and 1 %, in `saturation_time`.
WINDOWS, EPSILONS = (5, 10), (0.005, 0.01, 0.02)
DEPGRAPH_TOLERANCE = 0.05
# Layers whose operations are not events.
NOT_EVENTS = ("image", "graded")

# Removal is the rule's own, whatever the recipe says of Cannistraci-Hebb training. GMP prunes a
# dense network (Zhu and Gupta 2017), GraNet starts at a half (Liu et al. 2021).
OWN_REMOVAL: Changes = {"sparsity": {"removal": None}}
RULES: Mapping[str, Changes] = {
    DENSE: {},
    "static": {},
    "set": OWN_REMOVAL,
    "rigl": OWN_REMOVAL,
    "gmp": {"sparsity": {"removal": None, "initial_linear": 0.0, "initial_conv": 0.0}},
    "granet": {"sparsity": {"removal": None, "initial_linear": 0.5, "initial_conv": 0.5}},
    "cht": {},
    "chts": {},
    "chtss": {},
    "depgraph": {},
}
# Which network at which scale, and what of its recipe is changed.
NETWORKS: Registry[tuple[str, Changes]] = Registry(
    "scale",
    {
        "full": ("cifar10-fast", {}),
        "cpu": ("demo", {}),
        "smoke": (
            "demo",
            {
                "data": {"limit_train": 200, "limit_test": 60},
                "model": {"widths": [4, 8, 16], "hidden": [32, 32]},
                "train": {"epochs": 3, "warmup_epochs": 0.5},
                "sparsity": {"linear": 0.8},
            },
        ),
    },
)

OUTCOMES = (
    *("ann_accuracy", "mean_epoch_accuracy", "snn_accuracy"),
    *("energy_joule", "events_per_link", "saturation_time"),
)
TOPOLOGY = (
    *("network_sparsity", "gamma", "meta_depth", "small_world", "modularity", "active"),
    *("paths", "through_hubs"),
)


def controls(scale: str, recipe: str | None = None) -> Target:
    """Return the comparison at a scale, or on the network of a recipe of one's own.

    Raises
    ------
    ConfigError
        Unknown scale.

    Examples
    --------
    >>> target = controls("cpu")
    >>> len(target.table.rows), target.table.rows[8].key
    (20, 'digits/small_cnn/chtss/dcgs')
    """
    base, changes = (recipe, {}) if recipe is not None else NETWORKS[scale]
    known = resolve(base, changes)
    labels = {"dataset": known.data.source.rpartition("/")[2], "network": known.model.name}
    rows = tuple(
        PublishedRow({**labels, "method": rule, "conversion": conversion}, {}, JUDGED_AT)
        for conversion in CONVERSIONS
        for rule in RULES
    )
    title = f"rules of sparse training and controls, recipe {known.name}"
    table = PublishedTable(NAME, title, tuple(rows[0].labels), rows)

    def plan(row: PublishedRow, *, scale: str, seed: int) -> Experiment:
        return control(row, base, known.name, changes, seed=seed)

    quantities = (*OUTCOMES, *TOPOLOGY)
    return Target(NAME, quantities, has_curves=True, has_disks=True, own=table, plan=plan)


def control(row: PublishedRow, base: str, name: str, changes: Changes, *, seed: int) -> Experiment:
    """Return how one network of the comparison is trained."""
    rule, conversion = row.labels["method"], row.labels["conversion"]
    own: Changes
    if rule == DENSE:
        own = dense(row)
    elif rule == "depgraph":
        own = together(depgraph(row), {"prune": {"tolerance": DEPGRAPH_TOLERANCE}})
    else:
        own = together({"dense_twin": False, "sparsity": {"rule": rule}}, RULES[rule])
    measured: Changes = {
        "seed": seed,
        "convert": [{"method": name, "timesteps": JUDGED_AT} for name in CONVERSIONS],
        "measure": {"timesteps": SIMULATED},
    }
    return Experiment(
        name=f"{name}-{rule}",
        base=base,
        changes=together(changes, own, measured),
        network=DENSE if rule == DENSE else "sparse",
        conversion=conversion,
    )


def measured_values(outcome: Outcome, timesteps: int) -> dict[str, float]:
    """Return every quantity of one network and seed that is there; accuracies in per cent."""
    if outcome.state != DONE:
        return {}
    values: dict[str, float | None] = dict(outcome.values)
    if outcome.evaluation is not None:
        values["events_per_link"] = events_per_link(outcome.evaluation, timesteps)
        values |= saturation_times(outcome.evaluation)
    if outcome.topology is not None:
        values |= topology_values(outcome.topology)
    return {name: float(value) for name, value in values.items() if value is not None}


def events_per_link(evaluation: Evaluation, timesteps: int) -> float | None:
    """Return how many events a remaining link carries for one image, up to a time step.

    Synaptic operations over the multiply-accumulates of the same layers on their existing links, of
    the layers that spikes enter: a link of a convolution is counted at every place it is used at.
    """
    layers = [layer for layer in evaluation.layers if layer.input not in NOT_EVENTS]
    uses = sum(layer.macs for layer in layers)
    return sum(layer.sops[timesteps - 1] for layer in layers) / uses if uses else None


def saturation_times(evaluation: Evaluation) -> dict[str, float | None]:
    """Return T0 for every window and threshold, such as ``T0 10 0.5 %``."""
    first = 1 if evaluation.wider is None else evaluation.wider.first_answer
    accuracy = evaluation.accuracy
    return {
        saturation_name(window, epsilon): saturation_time(accuracy, window, epsilon, first=first)
        for window in WINDOWS
        for epsilon in EPSILONS
    }


def saturation_name(window: int, epsilon: float) -> str:
    """Name one way to read T0.

    Examples
    --------
    >>> saturation_name(5, 0.01)
    'T0 5 1 %'
    """
    return f"T0 {window} {100 * epsilon:g} %"


def topology_values(report: TopologyReport) -> dict[str, float | None]:
    """Return the measures of a topology that the table shows."""
    depth, world, paths = report.meta_depth, report.small_world, report.paths
    hubs = None if paths is None else paths.through_hubs
    return {
        "gamma": report.gamma,
        "meta_depth": None if depth is None else depth.index,
        "small_world": None if world is None else world.sigma,
        "modularity": report.modularity,
        "active": 100 * report.anp,
        "paths": None if paths is None else paths.total.value,
        "through_hubs": None if hubs is None else hubs.value,
    }


def curves(outcome: Outcome) -> dict[str, Any]:
    """Return accuracy and energy at every step."""
    evaluation = outcome.evaluation
    if evaluation is None:
        return {}
    return {
        "accuracy": list(evaluation.accuracy),
        "energy_joule": list(evaluation.energy_joule),
        "ann_energy_joule": evaluation.ann_energy_joule,
    }
