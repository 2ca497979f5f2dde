"""Reproduce: CH-SNN, which trains sparse spiking networks through time, beside conversions.

The published rows are those of CH-SNN (ICLR 2026); beside each set of events stand ours of the same
network, converted. None of those sets comes with the package, so without the files their rows are
not run; the embedded `digits-events`, which nobody has published on, is the set that always can be.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from topospike.reproduce.experiments import Changes, Experiment, together
from topospike.reproduce.published import DENSE, PublishedRow, PublishedTable, published, slug
from topospike.reproduce.scales import QUANTISED, SCALES, SMOKE, SMOKE_DATA

NAME = "ch-snn"
DIRECT = "direct"
EMBEDDED = "digits-events"
STEPS: Mapping[str, int] = {"dcgs": 8, "cs-qcfs": 16, DIRECT: 8}
# The recipes of converted networks; that of CH-SNN has its name behind.
BASES: Mapping[str, str] = {
    "N-MNIST": "nmnist-2conv2fc",
    "DVS128 Gesture": "dvs-gesture-2conv2fc",
    "CIFAR10-DVS": "cifar10-dvs-6conv2fc",
    EMBEDDED: EMBEDDED,
    "CIFAR-10": "cifar10-conv6fc2",
    "MNIST": "mnist-2fc",
}
IMAGES = ("CIFAR-10", "MNIST")
HIDDEN: Mapping[str, Changes] = {
    "2Conv2FC": {"widths": [4, 6], "hidden": [20], "pool": "avg"},
    "6Conv2FC": {"widths": [4, 4, 6, 6, 8, 8], "hidden": [20], "pool": "avg"},
    "2FC": {"hidden": [32]},
}
SHORT: Mapping[str, Changes] = {
    "full": {},
    "cpu": {
        "data": {"limit_train": 6000, "limit_test": 1000},
        "train": {"epochs": 10},
        "quantise": QUANTISED["cpu"],
    },
    "smoke": {
        "train": {"epochs": 2, "warmup_epochs": 0.5},
        "quantise": {**QUANTISED["smoke"], "percentile": 0.999},
        "threads": 1,
    },
}
SMALL_EVENTS: Changes = {
    "source": EMBEDDED,
    "augment": [],
    "batch_size": 16,
    "limit_train": 60,
    "limit_test": 30,
    "events": {"frames": 8, "crop": None, "resize": 2},
}


def table() -> PublishedTable:
    """Return the published rows with ours beside those of events.

    Examples
    --------
    >>> rows = table().rows
    >>> rows[0].key, rows[4].key, rows[4].values["snn_accuracy"]
    ('nmnist/2conv2fc/dense/dcgs', 'nmnist/2conv2fc/ch-snn/direct', 99.15)
    """
    known = published(NAME)
    rows = [row for given in known.rows for row in (*beside(given), given)]
    embedded = PublishedRow(labels(EMBEDDED, "2Conv2FC", NAME, DIRECT), {}, STEPS[DIRECT])
    rows += [*beside(embedded), embedded]
    return PublishedTable(NAME, known.title, known.labels, tuple(rows), known.source)


def beside(row: PublishedRow) -> Iterator[PublishedRow]:
    """Yield the converted networks that a set of events is measured with as well."""
    dataset, network = row.labels["dataset"], row.labels["network"]
    if dataset in IMAGES:
        return
    for conversion in ("dcgs", "cs-qcfs"):
        for method in (DENSE, "chts"):
            names = labels(dataset, network, method, conversion)
            yield PublishedRow(names, {}, STEPS[conversion])


def labels(dataset: str, network: str, method: str, conversion: str) -> dict[str, str]:
    """Return the labels of a row."""
    return {"dataset": dataset, "network": network, "method": method, "conversion": conversion}


def plan(row: PublishedRow, *, scale: str = "full", seed: int = 0) -> Experiment:
    """Return the recipe of a row at a scale.

    Raises
    ------
    ConfigError
        Unknown scale.

    Examples
    --------
    >>> chosen = plan(table().rows[4])
    >>> chosen.name, chosen.base, chosen.network, chosen.conversion
    ('nmnist-2conv2fc-ch-snn', 'nmnist-2conv2fc-ch-snn', 'sparse', 'direct')
    """
    _ = SCALES[scale]
    dataset, method, conversion = (row.labels[n] for n in ("dataset", "method", "conversion"))
    base, is_direct = BASES[dataset], conversion == DIRECT
    subject = base
    if scale == "smoke":  # equal rows of several sets share a run
        source = "digits" if dataset in IMAGES else EMBEDDED
        subject = f"{source}-{slug(row.labels['network'])}"
    own = together(kind(method), conversions(is_direct), shortened(row, scale))
    return Experiment(
        name=f"{subject}-{method}",
        base=f"{base}-{NAME}" if is_direct and dataset != EMBEDDED else base,
        changes={**own, "seed": seed},
        network=DENSE if method == DENSE else "sparse",
        conversion=conversion,
    )


def kind(method: str) -> Changes:
    """Train one network alone."""
    return {"sparse_twin": False} if method == DENSE else {"dense_twin": False}


def conversions(is_direct: bool) -> Changes:
    """Return how the network is converted, or that it is trained through time instead."""
    if is_direct:
        return {"convert": [{"method": DIRECT, "timesteps": STEPS[DIRECT]}]}
    chosen = [{"method": name, "timesteps": STEPS[name]} for name in ("dcgs", "cs-qcfs")]
    return {"direct": {"rule": None}, "convert": chosen}


def shortened(row: PublishedRow, scale: str) -> Changes:
    """Return what a scale changes; the embedded set is small enough as it is for all but smoke."""
    dataset, network = row.labels["dataset"], row.labels["network"]
    if scale == "cpu" and dataset == EMBEDDED:
        return {}
    if scale != "smoke":
        return SHORT[scale]
    data = SMOKE_DATA if dataset in IMAGES else SMALL_EVENTS
    model = HIDDEN[network] if dataset != "CIFAR-10" else SMOKE[network]["model"]
    return together(SHORT[scale], {"data": data, "model": model})
