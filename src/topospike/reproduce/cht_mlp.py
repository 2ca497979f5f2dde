"""Reproduce: the perceptron on which Cannistraci-Hebb training was first shown, beside its rivals.

Zhang et al. (ICLR 2024), table 3: 784-784-784-784 and a dense classifier, hidden layers at 99 %,
links replaced after every epoch. CHT grows the links of the highest scores, from correlated pixels
(``cht-csti``) or from a small world (``cht-ws``, beta = 0.25); SET, RigL and MEST start from random
links, ``static`` keeps them. The epochs are not printed (curves reach 100 to 200); the spiking
network beside each row is ours.
"""

from __future__ import annotations

from collections.abc import Mapping

from topospike.reproduce.experiments import Changes, Experiment, together
from topospike.reproduce.published import DENSE, PublishedRow, slug
from topospike.reproduce.scales import SCALES, SMOKE_DATA

NAME = "cht-mlp"
BASE = "fashion-mnist-mlp"
CONVERSION = "dcgs"
SOURCES: Mapping[str, str] = {
    "MNIST": "ylecun/mnist",
    "Fashion-MNIST": "zalando-datasets/fashion_mnist",
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
    "convert": [{"method": CONVERSION, "timesteps": 8}],
    "measure": {"timesteps": 8},
}
# Rows whose name is not that of their rule.
STARTS: Mapping[str, Changes] = {
    "cht-csti": {"rule": "cht", "initial_topology": "csti"},
    "cht-ws": {"rule": "cht", "initial_topology": "bsw", "beta": 0.25},
}
SHORT: Mapping[str, Changes] = {
    "full": {},
    # Crop and flip want the published length: after 30 epochs they cost 5 to 8 points here.
    "cpu": {"data": {"augment": []}, "train": {"epochs": 15}, "threads": 1},
    "smoke": {
        "data": SMOKE_DATA,
        "model": {"hidden": [32, 32, 32]},
        "train": {"epochs": 3},
        "sparsity": {"linear": 0.8},
        "threads": 1,
    },
}


def plan(row: PublishedRow, *, scale: str = "full", seed: int = 0) -> Experiment:
    """Return the recipe of a row at a scale; ``cpu`` trains it for 15 epochs on plain images.

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
    changes = together(PUBLISHED, own, given, SHORT[scale])
    subject = "digits" if scale == "smoke" else slug(dataset)  # equal rows share a run
    return Experiment(
        name=f"{NAME}-{subject}-{method}",
        base=BASE,
        changes=changes,
        network=DENSE if method == DENSE else "sparse",
        conversion=CONVERSION,
    )
