"""Reproduce: which recipe gives which published row.

A row is one network, trained in one way, converted by one method. Its recipe is a packaged one
(a YAML file to be read) with a few changes laid over it: what distinguishes the row, then what the
scale shortens. Rows that differ in the conversion alone share the trained network, because they
share the recipe. What the paper leaves open is decided here and in the recipes' comments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from topospike.errors import ConfigError
from topospike.registry import Registry
from topospike.reproduce.published import (
    DENSE,
    PublishedRow,
    hyperparameters,
    published,
    setting,
    slug,
)
from topospike.reproduce.scales import THROUGH_TIME, changes_of

Changes = Mapping[str, Any]
Method = Callable[[PublishedRow], Changes]

BASES: Mapping[tuple[str, str], str] = {
    ("CIFAR-10", "VGG-16"): "cifar10-vgg16",
    ("CIFAR-10", "ResNet-18"): "cifar10-resnet18",
    ("CIFAR-10", "6Conv2FC"): "cifar10-conv6fc2",
    ("CIFAR-100", "VGG-16"): "cifar100-vgg16",
    ("CIFAR-100", "ResNet-18"): "cifar100-resnet18",
    ("CIFAR-100", "6Conv2FC"): "cifar100-conv6fc2",
    ("ImageNet-1K", "ViT-B"): "imagenet-vit-b",
    ("OpenWebText", "LLaMA-60M"): "openwebtext-llama-60m",
}
# Weights of 6Conv2FC's hidden linear layer; the classifier's 512 per class stay dense.
HIDDEN_WEIGHTS, CLASSIFIER_WEIGHTS = 32768 * 512, 512
CLASSES: Mapping[str, int] = {"CIFAR-10": 10, "CIFAR-100": 100}
# Convolutions start from a fifth of their links absent, or from the end where that is below it.
INITIAL_CONV = 0.2
# Bao et al. (2026), section 4.4: the two sparsities of table 3 that table 2 does not have.
SENSITIVITY: Mapping[str, tuple[float, float]] = {
    "72.84": (0.10, 0.90),
    "72.68": (0.10, 0.90),
    "90.62": (0.60, 0.99),
    "90.42": (0.60, 0.99),
}
ALIGNED: Mapping[str, str] = {
    "35.26": "sd-snn",
    "57.87": "dpap",
    "37.02": "sd-snn",
    "57.75": "dpap",
}


@dataclass(frozen=True)
class Experiment:
    """One trained network of a published row.

    Attributes
    ----------
    name
        For folders, such as ``cifar10-vgg16-cht``.
    base
        Packaged recipe.
    changes
        What is laid over it.
    network
        ``dense``, ``sparse``, or ``initial``: which network of the run is meant; ``initial`` is
        the topology before training.
    conversion
        Which conversion of it, if any.
    pruned_from
        The experiment whose dense network is pruned, where that is not part of the row's own run.
    """

    name: str
    base: str
    changes: Changes
    network: str
    conversion: str | None
    pruned_from: Experiment | None = None

    @property
    def part(self) -> str:
        """Which part of its run this is, such as ``dense dcgs``."""
        return f"{self.network} {self.conversion or 'topology'}"


def experiment(row: PublishedRow, *, scale: str = "full", seed: int = 0) -> Experiment:
    """Return the recipe of a published row at a scale.

    Raises
    ------
    ConfigError
        Unknown scale.

    Examples
    --------
    >>> from topospike.reproduce.published import published
    >>> chosen = experiment(published("table1").rows[4])
    >>> chosen.name, chosen.base, chosen.network, chosen.conversion
    ('cifar10-vgg16-cht', 'cifar10-vgg16', 'sparse', 'dcgs')
    """
    labels = row.labels
    dataset, network, method = labels["dataset"], labels["network"], labels["method"]
    own = METHODS[method](row)
    scaled = changes_of(scale, network, method=method)
    changes = together(own, conversions_of(row), scaled, {"seed": seed})
    base = BASES[dataset, network]
    evolved = "cht" if method == "initial" else method
    # Every dataset is the same embedded one at that scale, so equal rows share a run.
    embedded = "topics" if network == "LLaMA-60M" else "digits"
    subject = f"{embedded}-{slug(network)}" if scale == "smoke" else base
    parts = [subject, evolved, *particulars(row)]
    return Experiment(
        name="-".join(parts),
        base=f"{base}-{method}" if method in THROUGH_TIME else base,
        changes=changes,
        network=method if method in (DENSE, "initial") else "sparse",
        conversion=labels.get("conversion"),
        pruned_from=dense_of(row, scale, seed) if method in ONE_SHOT else None,
    )


def dense_of(row: PublishedRow, scale: str, seed: int) -> Experiment:
    """Return the experiment of a row's dense network."""
    labels = {**row.labels, "method": DENSE}
    return experiment(PublishedRow(labels, {}, row.timesteps), scale=scale, seed=seed)


def together(*layers: Changes) -> dict[str, Any]:
    """Lay changes over one another, group by group; later ones win.

    Examples
    --------
    >>> together({"train": {"epochs": 3, "momentum": 0.9}}, {"train": {"epochs": 5}})
    {'train': {'epochs': 5, 'momentum': 0.9}}
    """
    result: dict[str, Any] = {}
    for changes in layers:
        for key, value in changes.items():
            below = result.get(key)
            if isinstance(value, Mapping) and isinstance(below, Mapping):
                value = together(below, value)
            result[key] = value
    return result


def particulars(row: PublishedRow) -> list[str]:
    """Return what else distinguishes the trained network of a row, for its name."""
    if row.labels["method"] in THROUGH_TIME:
        return []
    if "aligned" in row.labels:
        return [f"as-{row.labels['aligned']}", f"for-{row.labels['conversion']}"]
    if "sparsity" in row.labels:
        number = row.labels["sparsity"].removesuffix(" %")
        return [f"as-{ALIGNED[number]}", "for-dcgs"] if number in ALIGNED else [number]
    return []


def dense(row: PublishedRow) -> Changes:
    """Train the dense network alone; of language models, without warming up again."""
    restarts = {"train": {"restart_every_epochs": 0.0, "restart_warmup_epochs": 0.0}}
    own = restarts if row.labels["network"] == "LLaMA-60M" else {}
    return together({"sparse_twin": False}, dropout_of(row), own)


def cht(row: PublishedRow) -> Changes:
    """Train the network with an evolving topology alone, at the row's sparsity."""
    return together({"dense_twin": False}, dropout_of(row), sparsity_of(row), schedule_of(row))


def evolved(row: PublishedRow) -> Changes:
    """Train a language model with links that change by the row's rule, at its sparsity.

    The published baselines start from random links and remove the smallest weights.
    """
    rule = row.labels["method"]
    share = float(row.labels["sparsity"].removesuffix(" %")) / 100
    own: Changes = {"rule": rule, "linear": share}
    if rule == "chtss":  # from half of the links, over four fifths of the run
        own = {**own, "initial_linear": 0.5, "stop_fraction": 0.8}
    if rule in ("set", "rigl"):
        zeta = 0.3 if rule == "rigl" else 0.1
        own = {**own, "initial_topology": "er", "removal": None, "zeta": zeta}
    return {"dense_twin": False, "sparsity": own}


def dropout_of(row: PublishedRow) -> Changes:
    """Return the dropout of VGG's hidden linear layers, which dense networks need more of."""
    if row.labels["network"] != "VGG-16":
        return {}
    given = hyperparameters("tableA1", "VGG-16")["dropout"]
    return {"model": {"dropout": given["dense" if row.labels["method"] == DENSE else "cht"]}}


def sparsity_of(row: PublishedRow) -> Changes:
    """Return the sparsities of rows that do not have those of their recipe."""
    if row.labels["network"] != "6Conv2FC":
        return {}
    conv, linear = sparsities(row)
    start = min(INITIAL_CONV, conv)
    return {"sparsity": {"conv": conv, "linear": linear, "initial_conv": start}}


def sparsities(row: PublishedRow) -> tuple[float, float]:
    """Return the sparsity of 6Conv2FC's convolutions and of its hidden linear layer.

    The sparsities of table A2 are shares of all linear weights. The classifier stays dense, so the
    hidden layer takes the rest upon itself.

    Examples
    --------
    >>> row = published("table2").rows[1]
    >>> row.labels["aligned"], [round(100 * share, 3) for share in sparsities(row)]
    ('dpap', [3.35, 72.762])
    """
    number = row.labels.get("sparsity", "").removesuffix(" %")
    if number in SENSITIVITY:
        return SENSITIVITY[number]
    aligned = row.labels.get("aligned", ALIGNED.get(number))
    dataset = row.labels["dataset"]
    for line in published("tableA2").rows:
        if dict(line.labels) == {"dataset": dataset, "method": aligned}:
            conv, linear = (line.values[f"{kind}_sparsity"] / 100 for kind in ("conv", "linear"))
            everything = HIDDEN_WEIGHTS + CLASSIFIER_WEIGHTS * CLASSES[dataset]
            return conv, linear * everything / HIDDEN_WEIGHTS
    raise ConfigError(f"no published sparsity for {row.key}; tables 2 and 3 have one for each row.")


def schedule_of(row: PublishedRow) -> Changes:
    """Return the epochs of rows whose conversion trains further and shares the budget with it."""
    return {"train": {"epochs": epochs_of(row)}} if row.labels["network"] == "6Conv2FC" else {}


def epochs_of(row: PublishedRow) -> int:
    """Return the epochs of ANN training of 6Conv2FC, appendix C.2: 600 in all."""
    return hyperparameters("tableA1", "6Conv2FC")["epochs"][row.labels["conversion"]]


def conversions_of(row: PublishedRow) -> Changes:
    """Return the conversions of a row's trained network, those of its neighbours included."""
    if row.labels["method"] in THROUGH_TIME:
        return {}
    if row.labels["network"] == "LLaMA-60M":
        return {}
    if row.labels["network"] == "ViT-B":
        # Where operands are converted the method's own defaults are the paper's: n = 8, c = 4 and
        # the 99.9th percentile.
        return {"convert": [{"method": "dcgs", "timesteps": 8}], "measure": {"timesteps": 32}}
    options = {"levels": 4, "solver": "iterations"}
    dcgs = {"method": "dcgs", "options": options, "timesteps": 8}
    if row.labels["network"] != "6Conv2FC":
        both = [dcgs, {"method": "cs-qcfs", "timesteps": 16}]
        return {"convert": both, "measure": {"timesteps": 32}, "quantise": quantised(row)}
    if row.labels["conversion"] == "dcgs":
        return {"convert": [dcgs], "measure": {"timesteps": 32}}
    chosen = [{"method": "cs-qcfs", "timesteps": 8}]
    return {"convert": chosen, "measure": {"timesteps": 32}, "quantise": quantised(row)}


def quantised(row: PublishedRow) -> Changes:
    """Return the two stages in which CS-QCFS trains its thresholds, table A3.

    The paper searched learning rate and levels and does not say which won. The rate here is the
    largest of its grid; four levels for ten classes and eight for a hundred are those with which
    QCFS was published (Bu et al. 2022).
    """
    given = hyperparameters("tableA3", "cs-qcfs")
    return {
        "epochs": given["train_epochs"],
        "channel_epochs": given["finetune_epochs"],
        "learning_rate": max(given["lr"]),
        "levels": max(given["L"]) if row.labels["dataset"] == "CIFAR-100" else min(given["L"]),
        "dropout": float(given["dropout"]),
    }


def depgraph(row: PublishedRow) -> Changes:
    """Train dense for two thirds of the epochs, prune whole channels, train on at a tenth."""
    given = setting("depgraph")
    settings = {
        "method": "depgraph",
        "fine_tune": 1 - given["pretrain_fraction"],
        "fine_tune_rate": given["finetune_lr_factor"],
    }
    changes: Changes = {"dense_twin": False, "prune": settings}
    if row.labels["network"] != "VGG-16":
        return changes
    # The paper gives the dropout of dense and of evolving networks; a pruned one has few neurons
    # left as well.
    dropout = hyperparameters("tableA1", "VGG-16")["dropout"]
    own = {"model": {"dropout": dropout["dense"]}, "prune": {"fine_tune_dropout": dropout["cht"]}}
    return together(changes, own)


def one_shot(row: PublishedRow) -> Changes:
    """Prune the trained dense network once, without further training."""
    return {"prune": {"method": row.labels["method"]}}


def through_time(row: PublishedRow) -> Changes:
    """Train the spiking network itself, entirely as its own recipe says."""
    return {}


ONE_SHOT = ("sparsegpt", "ria-rec", "wanda-rec", "ria", "wanda", "ri", "magnitude")
METHODS: Registry[Method] = Registry(
    "method of a published row",
    {
        DENSE: dense,
        "cht": cht,
        "initial": cht,
        "depgraph": depgraph,
        **dict.fromkeys(("set", "rigl", "chts", "chtss"), evolved),
        **dict.fromkeys(ONE_SHOT, one_shot),
        **dict.fromkeys(THROUGH_TIME, through_time),
    },
)
