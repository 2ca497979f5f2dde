"""Reproduce: the perceptron on which Cannistraci-Hebb training was first shown, beside its rivals.

Zhang et al. (ICLR 2024), table 3: 784-784-784-784 and a dense classifier, hidden layers at 99 %,
links replaced after every epoch. CHT grows the links of the highest scores, from correlated pixels
(``cht-csti``) or from a small world (``cht-ws``, beta = 0.25); SET, RigL and MEST start from random
links, ``static`` keeps them. The epochs are not printed (curves reach 100 to 200).

Zhang et al. (2025), tables 1, 4 and 7: the same on CIFAR-10, 3072 wide, 100 epochs, with CHTs
(sampled links, from correlated pixels) and CHTss (from half of the links) beside them. The spiking
networks beside the rows are ours: DCGS, on CIFAR-10 also CS-QCFS with trained thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping

from topospike.reproduce.experiments import Changes, Experiment, together
from topospike.reproduce.published import DENSE, PublishedRow, slug
from topospike.reproduce.scales import QUANTISED, SCALES, SMOKE_DATA

NAME = "cht-mlp"
BASE = "fashion-mnist-mlp"
SOURCES: Mapping[str, str] = {
    "MNIST": "ylecun/mnist",
    "Fashion-MNIST": "zalando-datasets/fashion_mnist",
    "CIFAR-10": "uoft-cs/cifar10",
}
# Momentum 0.9, batches of 32, a rate that stays, as printed; how large it is, is ours.
PUBLISHED: Changes = {
    "data": {"augment": ["crop", "flip"], "batch_size": 32},
    "train": {
        "epochs": 100,
        "learning_rate": 0.025,
        "weight_decay": 1e-5,
        "schedule": "constant",
        "final_learning_rate_fraction": 0.0,
        "execution": "compact",
    },
    "sparsity": {
        "linear": 0.99,
        "initial_topology": "er",
        "linear_score": "CH3-L3p",
        "zeta": 0.3,
        "zeta_schedule": "constant",
        "stop_fraction": 0.99,
    },
    "convert": [{"method": "dcgs", "timesteps": 8}],
    "measure": {"timesteps": 8},
}
# What the second paper changes on CIFAR-10, and thresholds trained as Bao et al. (2026) do.
WIDE_DATASET = "CIFAR-10"
WIDE: Changes = {
    "model": {"hidden": [3072, 3072, 3072]},
    "train": {"weight_decay": 5e-4, "schedule": "linear", "final_learning_rate_fraction": 0.01},
    "sparsity": {"linear_score": "CH2-L3n"},
    "convert": [{"method": "dcgs", "timesteps": 8}, {"method": "cs-qcfs", "timesteps": 16}],
    "measure": {"timesteps": 16},
    "quantise": {"epochs": 300, "channel_epochs": 100, "levels": 4, "learning_rate": 0.05},
}
# Rows whose name is not that of their rule, or that do not start from random links.
STARTS: Mapping[str, Changes] = {
    "cht-csti": {"rule": "cht", "initial_topology": "csti"},
    "cht-ws": {"rule": "cht", "initial_topology": "bsw", "beta": 0.25},
    "chts": {"rule": "chts", "initial_topology": "csti"},
    "chtss": {"rule": "chtss", "initial_linear": 0.5},
}
SMOKE_HIDDEN: Changes = {"hidden": [32, 32, 32]}
SHORT: Mapping[str, Changes] = {
    "full": {},
    # Crop and flip want the published length: after 30 epochs they cost 5 to 8 points here.
    "cpu": {"data": {"augment": []}, "train": {"epochs": 15}, "threads": 1},
    "smoke": {
        "data": SMOKE_DATA,
        "model": SMOKE_HIDDEN,
        "train": {"epochs": 3},
        "sparsity": {"linear": 0.8},
        "threads": 1,
    },
}
# 28 million weights: a larger batch at the rate that goes with it.
SHORT_WIDE: Mapping[str, Changes] = {
    "full": {},
    "cpu": {
        "data": {"batch_size": 128},
        "train": {"epochs": 12, "learning_rate": 0.05},
        # One threshold has to do for hubs and all others: in a CHT network the largest of a neuron
        # spreads over two orders of magnitude, and the usual quantile (0.999) leaves 10 %.
        "quantise": {**QUANTISED["cpu"], "percentile": 0.97},
    },
    "smoke": {"model": SMOKE_HIDDEN, "quantise": QUANTISED["smoke"]},
}


def plan(row: PublishedRow, *, scale: str = "full", seed: int = 0) -> Experiment:
    """Return the recipe of a row at a scale; ``cpu`` trains 15 epochs, 12 wide ones, plain images.

    Raises
    ------
    ConfigError
        Unknown scale.

    Examples
    --------
    >>> from topospike.reproduce.published import published
    >>> chosen = plan(published(NAME).rows[12])
    >>> chosen.name, chosen.changes["sparsity"]["rule"], chosen.changes["train"]["epochs"]
    ('cht-mlp-fashion-mnist-cht-csti', 'cht', 100)
    """
    _ = SCALES[scale]
    dataset, method = row.labels["dataset"], row.labels["method"]
    own: Changes = {"sparse_twin": False}
    if method != DENSE:
        own = {"dense_twin": False, "sparsity": STARTS.get(method, {"rule": method})}
    given = {"seed": seed, "data": {"source": SOURCES[dataset]}}
    is_wide = dataset == WIDE_DATASET
    wide = together(WIDE, own, SHORT_WIDE[scale]) if is_wide else own
    subject = "digits" if scale == "smoke" else slug(dataset)  # equal rows share a run
    return Experiment(
        name=f"{NAME}-{subject}{'-wide' * is_wide}-{method}",
        base=BASE,
        changes=together(PUBLISHED, given, SHORT[scale], wide),
        network=DENSE if method == DENSE else "sparse",
        conversion=row.labels["conversion"],
    )
